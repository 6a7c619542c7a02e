"""What is measured on a card in one go, and the page that it writes."""

import json
import pathlib
import subprocess
import sys
import time
import types

import pytest

from experiments import measure

ROOT = pathlib.Path(__file__).resolve().parents[1]
MACHINE = {"device": "Card X", "backend": "gpu", "jax": "0.10.2", "cores": 8}
ROW = {"milliseconds": 2.5, "ratio": 0.5, "quartiles": [0.4, 0.6], "note": ""}


def table(reference, *names):
    return {"unit": "step", "reference": reference, "rows": [{**ROW, "name": n} for n in names], "remarks": ["fast"]}


def test_a_part_is_run_and_says_what_came_of_it(tmp_path):
    out = tmp_path / "step.json"
    write = f"import pathlib; pathlib.Path({str(out)!r}).write_text({json.dumps({'machine': MACHINE})!r})"
    part = measure.Part("step", [sys.executable, "-c", write, f"--out={out}"])
    assert measure.run(part, 60).found == {"machine": MACHINE} and not measure.run(part, 60).failed
    wrong = measure.run(measure.Part("tests", [sys.executable, "-c", "print('1 failed'); raise SystemExit(1)"]), 60)
    assert wrong.failed and wrong.said == "1 failed" and wrong.found == {}
    slow = measure.run(measure.Part("dci", [sys.executable, "-c", "import time; time.sleep(60)"]), 1.5)
    assert slow.said == "not done when the time was up" and not slow.failed
    assert measure.run(part, 0.5).said == "no time was left"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no process groups")
def test_a_part_whose_time_is_up_ends_with_what_it_started(tmp_path):
    number = tmp_path / "number"
    grandchild = f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {grandchild!r}])"
    assert measure.run(measure.Part("step", [sys.executable, "-S", "-c", start]), 1.5).said.startswith("not done")
    until = time.monotonic() + 10
    while is_alive(int(number.read_text())):
        assert time.monotonic() < until, "it outlives the part"
        time.sleep(0.02)


def is_alive(process):
    """Whether a process runs; one that has ended and waits for its parent does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def test_a_page_stays_where_nothing_was_measured(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("## Card X\n")
    options = types.SimpleNamespace(out=str(page), smoke=False, dry_run=False, limit=60.0)
    monkeypatch.setattr(measure.flags, "FLAGS", options)
    monkeypatch.setattr(measure, "run", lambda part, _: part._replace(said="no such device", failed=True))
    with pytest.raises(SystemExit):
        measure.main(["measure"])
    assert page.read_text() == "## Card X\n" and "error: nothing was measured" in capsys.readouterr().err
    options.smoke = True
    with pytest.raises(SystemExit):
        measure.main(["measure"])
    assert "figures of --smoke mean nothing" in capsys.readouterr().err


def test_the_section_has_the_cards_name_and_no_ratio_to_another_device():
    found = {"machine": MACHINE, "sections": {"step": table("PyTorch", "causalvae", "PyTorch")}}
    done = [
        measure.Part("step", [], found=found),
        measure.Part("ensemble", [], found={**found, "sections": {"ensemble": table("members: 1", "members: 30")}}),
        measure.Part("tests", [], said="7 passed in 3 s"),
    ]
    text = measure.section(done)
    assert text.startswith("## Card X\n") and "gpu, jax 0.10.2, 8 processor cores" in text
    assert "| step | causalvae | 2.5 | 0.500 | PyTorch | step |\n| step | PyTorch | 2.5 | 0.500 | PyTorch |" in text
    assert "| ensemble | members: 30 | 2.5 | 0.500 | members: 1 | step |" in text
    assert "* tests: 7 passed in 3 s\n" in text and "* step: fast\n" in text
    beside_tpu = [part._replace(found={**part.found, "machine": {**MACHINE, "backend": "tpu"}}) for part in done[:2]]
    text = measure.section(beside_tpu)
    assert "| step | causalvae | 2.5 |  |  | step |" in text and "| PyTorch |" not in text, "it runs on the processor"
    assert "| ensemble | members: 30 | 2.5 | 0.500 | members: 1 | step |" in text


def test_a_page_keeps_other_cards_and_renews_its_own():
    page = measure.merged(measure.INTRODUCTION + measure.NONE_YET, "## A\n\nold\n")
    page = measure.merged(page, "## B\n\nother\n")
    page = measure.merged(page, "## A\n\nnew\n")
    assert page == measure.INTRODUCTION + "\n## B\n\nother\n\n## A\n\nnew\n"
    assert (ROOT / "docs" / "performance.md").read_text().startswith(measure.INTRODUCTION)


@pytest.mark.parametrize("smoke", [False, True])
def test_every_part_is_a_command_that_exists(tmp_path, smoke):
    from experiments.benchmark.sections import SECTIONS, Settings

    for part in measure.parts(tmp_path, smoke):
        for argument in part.command[3:]:
            if part.name == "tests":
                assert argument.startswith("-") or argument == "0" or (ROOT / argument).exists()
            elif argument.startswith("--only="):
                assert argument.removeprefix("--only=") in SECTIONS
            elif not argument.startswith("--out="):
                assert argument.removeprefix("--").split("=")[0] in Settings._fields
