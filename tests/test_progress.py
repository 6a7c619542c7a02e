"""The line that shows progress: rewritten in a terminal, several in a log."""

import io
import sys
import types

from causalvae import progress
from causalvae.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_in_a_terminal_and_lines_in_a_log(monkeypatch):
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: types.SimpleNamespace(columns=60))
    clock = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    terminal = Terminal()
    with Progress(40, unit="steps", rate=("images/s", 8), stream=terminal) as bar:
        bar.update(10, "loss 3.0")
        bar.update(20, "a note that is longer than the terminal is wide, and would wrap")
        bar.say("said")
        bar.update(40)
    shown = terminal.getvalue().split("\r")
    assert shown[1] == " 25% [##--------]  10/40 steps  loss 3.0"
    assert shown[2].startswith(" 50% [#####-----]  20/40 steps  80 images/s  2 s left") and len(shown[2]) == 59
    assert shown[3:5] == [" " * 59, f"said\n{shown[2]}"] and "100% [##########]  40/40 steps" in shown[5]
    assert terminal.getvalue().endswith("\n")
    log = io.StringIO()
    with Progress(40, unit="steps", rate=("images/s", 8), stream=log) as bar:
        bar.update(10, "loss 3.0")
        bar.say("said")
        bar.update(40)
    assert log.getvalue().splitlines() == ["10/40 steps  loss 3.0", "said", "40/40 steps  240 images/s  0 s left  "]
