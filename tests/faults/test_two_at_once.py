"""Two processes at once on one folder: one works, the other waits or says who does, and the result is one's alone."""

import os
import subprocess
import sys
import time

import kills
import pytest
import real_files


@pytest.mark.long
def test_two_of_everything(tmp_path):
    cache, count = tmp_path / "cache", {}
    for words in (kills.RUN, kills.STUDY):
        whole, both = tmp_path / words[0], tmp_path / f"{words[0]}_both"
        seconds = kills.undisturbed(words, whole, cache)
        wrong, _ = kills.refused(kills.together([*words, f"--workdir={both}"], cache, gap=seconds / 3))
        assert not wrong
        assert kills.Started([*words, f"--workdir={both}"], cache).end().status == 0
        assert not kills.differences(both, whole)
        count[words[0]] = 2
    for words, folder in ((["explorer"], "main"), (["report"], "study")):
        before = kills.contents(tmp_path / folder)
        for gap in (0.0, 0.3, 1.0):
            wrong, done = kills.refused(kills.together([*words, f"--workdir={tmp_path / folder}"], cache, gap))
            assert not wrong and done >= 1
            assert kills.contents(tmp_path / folder) == before
            count[words[0]] = count.get(words[0], 0) + 2
    for one, other, folder in ((kills.RUN, ["explorer"], "main"), (kills.STUDY, ["report"], "study")):
        words = [*one, f"--workdir={tmp_path / folder}_beside"]
        first = kills.Started(words, cache)
        while not (tmp_path / f"{folder}_beside" / ("table.csv" if folder == "study" else "config.json")).exists():
            time.sleep(0.01)
        second = kills.Started([*other, f"--workdir={tmp_path / folder}_beside"], cache).end()
        assert not kills.refused([second, first.end()])[0]
        count[f"{other[0]} beside {one[0]}"] = 2
    print(count)


@pytest.mark.long
def test_two_shards_and_a_whole_study(tmp_path):
    cache = tmp_path / "cache"
    kills.undisturbed(kills.STUDY, tmp_path / "whole", cache)
    words = [*kills.STUDY, f"--workdir={tmp_path / 'shards'}"]
    shards = [kills.Started([*words, f"--shard={i}/2"], cache) for i in (1, 2)]
    time.sleep(2)
    whole = kills.Started(words, cache).end()
    assert [shard.end().status for shard in shards] == [0, 0]
    assert whole.status == 1 and "is in use by a shard: process" in whole.errors
    assert kills.Started(words, cache).end().status == 0
    assert not kills.differences(tmp_path / "shards", tmp_path / "whole")


@pytest.mark.long
def test_two_preparations(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    real_files.write_dsprites_npz(folder)
    command = [sys.executable, "-m", "experiments.prepare", "--dataset=dsprites", f"--data_dir={folder}"]
    options = {"cwd": kills.ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0] and "sha256 of the prepared array" in said[0][0]
    assert len(list(folder.glob("*/*"))) == 1, "one entry, and nothing else"
