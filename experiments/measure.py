"""All that an accelerator must show, in one go: the tests that matter there, and the benchmark, as one table.

    python -m experiments.measure --out=docs/performance.md      within ten minutes; the page gets this card's section
    python -m experiments.measure --smoke                        the smallest sizes: whether it runs, on a CPU too
    python -m experiments.measure --dry_run                      the commands, and nothing else

Each part is a process of its own, one after the other, for a device's memory belongs to one. What does not end in time
is said to have not ended. Exit status 1 where a part failed.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags

from causalvae.progress import write_text
from experiments import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHARE = 0.3  # of the time, that one part may take at most
TESTS = ("test_layers", "test_precision", "test_training_members", "test_training", "test_metrics_kernels")
BENCHMARKS = {  # name -> arguments; the first is what the others are compared with
    "step": ["--only=step", "--rounds=9", "--steps=100"],
    "ensemble of 30": ["--only=ensemble", "--members=30", "--rounds=5", "--steps=50"],
    "ensemble of 90": ["--only=ensemble", "--members=90", "--rounds=5", "--steps=20"],
    "patch": ["--only=patch", "--pairs=256", "--units=0", "--rounds=3"],
    "convolutions of 30": ["--only=convolutions", "--members=30", "--rounds=3", "--steps=20"],
    "architectures": ["--only=architectures", "--rounds=3", "--steps=50"],
    "dci": ["--only=dci", "--rows=2000"],  # of the literature's 10,000 rows scikit-learn alone takes minutes
    "data": ["--only=render", "--rounds=3"],
}
SMALLEST = ["--rounds=1", "--steps=1", "--batch_size=2", "--pairs=2", "--units=1", "--rows=200", "--members=2"]
INTRODUCTION = """\
# Performance on accelerators

`python -m experiments.measure --out=docs/performance.md` runs, within ten minutes, the tests that matter on an
accelerator and the benchmark, and writes the section of its card below. Times are medians of runs taken in turn, and
ratios are to the row that is named. On a GPU PyTorch's side of the benchmark runs on the same card; beside a TPU it
would run on the processor, and is left out. Bounds to compare with: [the roofline](roofline.md).
"""
NONE_YET = "\nNot measured: no accelerator has been at hand yet.\n"


class Part(NamedTuple):
    """What is run, and what came of it."""

    name: str
    command: list[str]
    seconds: float = 0.0
    said: str = ""  # in a line
    failed: bool = False
    found: Mapping[str, Any] = {}  # what the benchmark wrote


def main(argv: list[str]) -> None:
    del argv
    values: Any = flags.FLAGS
    if values.smoke and values.out:
        cli.fail("figures of --smoke mean nothing, and would replace a card's on the page: leave --out out")
    cli.check_folder_of(values.out, "out")
    with tempfile.TemporaryDirectory() as folder:
        planned = parts(pathlib.Path(folder), values.smoke)
        if values.dry_run:
            print("\n".join(f"{part.name:20} {' '.join(part.command[1:])}" for part in planned))
            return
        done, end = [], time.monotonic() + values.limit
        for part in planned:
            done.append(run(part, min(values.limit * SHARE, end - time.monotonic())))
            print(f"{part.name}: {done[-1].said} ({done[-1].seconds:.0f} s)", flush=True)
    print(text := section(done))
    if not any(part.found for part in done):
        cli.fail("nothing was measured, see above; no page is written")
    if values.out:
        path = pathlib.Path(values.out)
        write_text(path, merged(path.read_text() if path.exists() else INTRODUCTION, text))
    if failed := [part.name for part in done if part.failed]:
        cli.fail(f"failed: {', '.join(failed)}")


def parts(folder: pathlib.Path, smoke: bool) -> list[Part]:
    """Returns what is to be run: the benchmark, of which a card's table is made, and then the tests."""
    sizes = SMALLEST if smoke else []
    chosen = {name: BENCHMARKS[name] for name in ("step", "ensemble of 30")} if smoke else BENCHMARKS
    benchmark = [sys.executable, "-m", "experiments.benchmark"]
    listed = [
        Part(name, [*benchmark, *arguments, *sizes, f"--out={folder / name.replace(' ', '_')}.json"])
        for name, arguments in chosen.items()
    ]
    files = [f"tests/{name}.py" for name in (TESTS[2:3] if smoke else TESTS)]
    return [*listed, Part("tests", [sys.executable, "-m", "pytest", "-q", "-n", "0", *files])]


def run(part: Part, seconds: float) -> Part:
    """Returns the part with what came of it; `seconds` are left for it."""
    started = time.monotonic()
    try:
        if seconds <= 1:
            return part._replace(said="no time was left")
        # Tests compare with float32 to the last digits, which an accelerator's default products do not have.
        exact = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"} if part.name == "tests" else {}
        done = _output(part.command, {**os.environ, **exact}, seconds)
    except subprocess.TimeoutExpired:
        return part._replace(seconds=time.monotonic() - started, said="not done when the time was up")
    lines = (done.stdout.strip() or done.stderr.strip() or "nothing was said").splitlines()
    said = lines[-1].strip() if part.name == "tests" or done.returncode else "done"
    out = pathlib.Path(part.command[-1].removeprefix("--out="))
    found = json.loads(out.read_text()) if out.suffix == ".json" and out.exists() else {}
    return part._replace(
        seconds=time.monotonic() - started, said=said, failed=done.returncode not in (0, 5), found=found
    )


def _output(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess:
    """What a command said. When its time is up it ends with all that it started: PyTorch's process, which has the
    device's memory, would outlive it."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes) as process:
        try:
            out, error = process.communicate(timeout=seconds)
        except BaseException:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def section(done: Sequence[Part]) -> str:
    """Returns the section of a card in Markdown: a line of where it was measured, the table, and what else was said."""
    machines = [part.found["machine"] for part in done if part.found]
    where = machines[0] if machines else {"device": "unknown", "backend": "unknown", "jax": "unknown", "cores": "?"}
    lines = [
        f"## {where['device']}\n",
        f"{time.strftime('%Y-%m-%d')}, {where['backend']}, jax {where['jax']}, {where['cores']} processor cores.\n",
        "| part | what | ms | ratio | to | of |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    remarks, same_card = [], where["backend"] == "gpu"
    for part in done:
        for table in part.found.get("sections", {}).values():
            lines += [
                _row(part.name, table, row, same_card)
                for row in table["rows"]
                if same_card or "PyTorch" not in row["name"]
            ]
            remarks += [f"{part.name}: {remark}" for remark in table["remarks"] if same_card or "PyTorch" not in remark]
        if not part.found:
            remarks.append(f"{part.name}: {part.said}")
    return "\n".join(lines) + "\n\n" + "".join(f"* {remark}\n" for remark in remarks)


def _row(name: str, table: Mapping[str, Any], row: Mapping[str, Any], same_card: bool) -> str:
    known = same_card or "PyTorch" not in table["reference"]
    ratio, reference = (f"{row['ratio']:.3f}", table["reference"]) if known else ("", "")
    return f"| {name} | {row['name']} | {row['milliseconds']:.3g} | {ratio} | {reference} | {table['unit']} |"


def merged(page: str, text: str) -> str:
    """Returns the page with a card's section in place of an earlier one of that card, or after the others."""
    introduction, *sections = re.split(r"(?m)^(?=## )", page.replace(NONE_YET, ""))
    heading = text.splitlines()[0]
    kept = [old.rstrip() + "\n" for old in sections if old.splitlines()[0] != heading]
    return "\n".join([introduction.rstrip() + "\n", *kept, text])


if __name__ == "__main__":
    flags.DEFINE_string("out", None, "The page that gets the section; without it, it is printed only.")
    flags.DEFINE_bool("smoke", False, "The smallest sizes: figures that mean nothing.")
    flags.DEFINE_bool("dry_run", False, "Print the commands, and leave.")
    flags.DEFINE_float("limit", 600.0, "Seconds for all of it.", lower_bound=1.0)
    cli.run(main)
