"""Commands that are ended anywhere: the next ones go on to the same bytes and leave nothing behind."""

import random

import kills
import pytest

SEED = 20
TRAIN = [*kills.RUN, "--stage=train"]


def until_done(words, folder, cache, seconds, draw, most):
    """Ends a command at random until it is through or was ended `most` times, then lets it end; what went wrong."""
    ways, wrong = [], []
    for _ in range(most):
        way, done, found = kills.disturb(words, folder, cache, seconds, draw)
        ways.append(way)
        wrong += found
        if done:
            break
    ended = kills.Started([*words, f"--workdir={folder}"], cache).end()
    if ended.status:
        wrong.append(f"the last one ended with {ended.status}: {ended.errors[-2000:]}")
    return ways, wrong


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(a trained run, the cache of its programs)."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "cache").mkdir()
    ended = kills.Started([*TRAIN, f"--workdir={folder / 'whole'}"], folder / "cache", fills_cache=True).end()
    assert ended.status == 0, ended.errors
    return folder / "whole", folder / "cache"


def test_training_that_is_ended_at_random_goes_on_to_the_same_bytes(trained, tmp_path):
    whole, cache = trained
    ways, wrong = until_done(TRAIN, tmp_path / "ended", cache, 2.0, random.Random(SEED), most=1)
    assert not wrong and not kills.differences(tmp_path / "ended", whole), ways


def test_two_trainings_of_one_folder(trained, tmp_path):
    whole, cache = trained
    wrong, done = kills.refused(kills.together([*TRAIN, f"--workdir={tmp_path / 'both'}"], cache))
    assert not wrong and done >= 1
    assert not kills.differences(tmp_path / "both", whole)


@pytest.mark.long
@pytest.mark.parametrize(
    "words, times",
    [([*kills.STUDY, "--report=false"], 50), (kills.STUDY, 10), (kills.RUN, 20)],
    ids=["study", "reported", "run"],
)
def test_many_times(tmp_path, words, times):
    draw, cache = random.Random(SEED), tmp_path / "cache"
    seconds = kills.undisturbed(words, tmp_path / "whole", cache)
    count, wrong, directory = {}, [], 0
    while sum(count.values()) < times:
        directory += 1
        folder = tmp_path / str(directory)
        ways, found = until_done(words, folder, cache, seconds, draw, most=5)
        count |= {way: count.get(way, 0) + ways.count(way) for way in set(ways)}
        wrong += found + [f"differs: {name}" for name in kills.differences(folder, tmp_path / "whole")]
        print(f"{sum(count.values())} ended, {len(wrong)} wrong", ways, flush=True)
    print(f"seed {SEED}: {count}, {directory} directories; {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong)
