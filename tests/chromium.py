"""A page in Chromium, without a window: that of Qt's WebEngine, so that `pip install PySide6` is all it takes.

`visit(path, script)` loads a page in a process of its own, runs a script in it and returns what that gives, with
whatever the page wrote to its console. Run as a script, this file is that process: it reads a task as JSON and writes
the answer as JSON.
"""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

WAIT_MS = 1500  # for what a page does after it has loaded
LATER = "later"  # what a script gives that leaves its answer in window.answer when it has one


def visit(path, script="0", before="", size=(1200, 900), picture=None, dark=False):
    """Returns (what `script` gives in the page, lines of its console); of LATER, what it leaves in window.answer.
    `before` runs ahead of the page's own scripts; `picture` is a PNG file for what is seen. Skips without Chromium."""
    if importlib.util.find_spec("PySide6") is None:
        pytest.skip("no Chromium here: pip install PySide6")
    task = dict(url=pathlib.Path(path).resolve().as_uri(), script=script, before=before, size=size, dark=dark)
    task["picture"] = str(picture) if picture else None
    ran = subprocess.run(
        [sys.executable, __file__], input=json.dumps(task), capture_output=True, text=True, timeout=120, env=os.environ
    )
    if "cannot open shared object file" in ran.stderr:
        pytest.skip(f"Chromium lacks a library of the system: {ran.stderr.strip().splitlines()[-1]}")
    assert ran.returncode == 0 and ran.stdout, ran.stderr
    answer = json.loads(ran.stdout.splitlines()[-1])
    assert answer["loaded"], path
    return answer["result"], answer["console"]


def main():
    task = json.load(sys.stdin)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ["QTWEBENGINE_DISABLE_SANDBOX"] = "1"
    # Phones' widths are narrower than the narrowest window; forced dark would invert colors that are dark already.
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = "--no-sandbox --disable-gpu" + (
        " --blink-settings=preferredColorScheme=0" if task["dark"] else " --blink-settings=preferredColorScheme=1"
    )
    from PySide6.QtCore import QTimer, QUrl
    from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineScript
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    app = QApplication([])
    answer = {"loaded": False, "result": None, "console": []}

    class Page(QWebEnginePage):
        def javaScriptConsoleMessage(self, level, message, line, source):
            answer["console"].append(message)

    view = QWebEngineView()
    page = Page(view)
    view.setPage(page)
    view.resize(*task["size"])
    view.show()
    first = QWebEngineScript()
    first.setInjectionPoint(QWebEngineScript.InjectionPoint.DocumentCreation)
    first.setWorldId(QWebEngineScript.ScriptWorldId.MainWorld)
    first.setSourceCode(task["before"])
    page.scripts().insert(first)

    def finish(result):
        answer["result"] = result
        if result == LATER:
            ask()
        else:
            QTimer.singleShot(WAIT_MS, leave)

    def ask():
        page.runJavaScript(f"window.answer ?? '{LATER}'", answered)

    def answered(result):
        answer["result"] = result
        QTimer.singleShot(100, ask if result == LATER else leave)

    def leave():
        if task["picture"]:
            view.grab().save(task["picture"])
        print(json.dumps(answer), flush=True)
        os._exit(0)  # Qt's own way out may hang without a display

    def loaded(whole):
        answer["loaded"] = whole
        QTimer.singleShot(WAIT_MS, lambda: page.runJavaScript(task["script"], finish))

    view.loadFinished.connect(loaded)
    view.load(QUrl(task["url"]))
    QTimer.singleShot(60_000, leave)
    app.exec()


if __name__ == "__main__":
    main()
