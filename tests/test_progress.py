"""What a long command says on a terminal, and that nobody else hears it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from effspec import progress

pty = pytest.importorskip("pty", reason="no terminals here")
ROOT = Path(__file__).parent.parent
# Two seconds of work, and many more after them.
LONG = ["compile", "b0", "--variant", "l2", "--set", "size=64", "--set", "width=7", "--target", "onnx", "-o", "l2.onnx"]


@pytest.fixture
def terminal() -> Any:
    parent, child = pty.openpty()
    yield parent, child
    for end in (parent, child):
        os.close(end)


def read(parent: int) -> str:
    time.sleep(0.05)  # a terminal delivers when it likes
    os.set_blocking(parent, False)
    try:
        return os.read(parent, 1 << 16).decode()
    except BlockingIOError:
        return ""


def test_a_line_that_comes_and_goes(terminal: Any) -> None:
    parent, child = terminal
    with os.fdopen(os.dup(child), "w") as stream:
        with progress.shown(stream, delay=0.05):
            progress.doing("thinking")
            time.sleep(0.4)
            progress.hide()
            shown = read(parent)
            # A slow reader also sees it come back.
            assert shown.startswith("\r\x1b[Kthinking ...") and "thinking ...\r\x1b[K" in shown
            progress.doing("writing x", 30, 100)
            time.sleep(0.4)
        shown = read(parent)
        assert "writing x: 30 %" in shown and shown.endswith("\r\x1b[K")
        with progress.shown(stream, delay=10):
            progress.doing("quick")
        assert read(parent) == ""


def test_wide_reports_stay_on_their_line(terminal: Any) -> None:
    import termios

    parent, child = terminal
    termios.tcsetwinsize(child, (24, 40))
    with os.fdopen(os.dup(child), "w") as stream, progress.shown(stream, delay=0.05):
        progress.doing("x" * 200)
        time.sleep(0.4)
    assert all(len(line) < 40 for line in read(parent).split("\r\x1b[K"))


def test_words() -> None:
    assert progress.worded("writing x", 0, 0, 5) == "writing x ..."
    assert progress.worded("writing x", 10, 100, 0.5) == "writing x: 10 %"
    assert progress.worded("writing x", 25, 100, 4) == "writing x: 25 %, 12 s left"
    assert progress.worded("writing x", 1, 100, 2) == "writing x: 1 %, 3 min 18 s left"
    assert progress.worded("writing x", 101, 100, 2) == "writing x: 100 %"


def hear_interrupts() -> None:
    """In a new process: what a shell starts in the background is deaf to SIGINT, and so is all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(words: list[str], where: Path, stderr: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "effspec", *words]
    return subprocess.Popen(
        command, cwd=where, env=environment, stderr=stderr, stdout=subprocess.DEVNULL, preexec_fn=hear_interrupts
    )


def test_on_a_terminal(terminal: Any, tmp_path: Path) -> None:
    parent, child = terminal
    process = start(LONG, tmp_path, child)
    shown, end = "", time.monotonic() + 60
    while not re.search(r"writing l2\.onnx\.data: \d+ %, \d+ s left", shown) and time.monotonic() < end:
        shown += read(parent)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    shown += read(parent)
    assert re.search(r"writing l2\.onnx\.data: \d+ %, \d+ s left", shown)
    # Erased before the last word.
    assert re.search(r"\r\x1b\[Kinterrupted\r\n\Z", shown), shown[-200:]
    process = start(["compile", "b0", "--target", "ir", "-o", "x.txt"], tmp_path, child)
    assert process.wait(60) == 0
    assert "\r\x1b" not in read(parent)


@pytest.mark.parametrize("case", ["pipe", "json", "dumb"])
def test_nobody_else_hears_it(case: str, terminal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = terminal
    if case == "dumb":
        monkeypatch.setattr(progress, "_EVERY", 0.01)
        monkeypatch.setenv("TERM", "dumb")
        with os.fdopen(os.dup(child), "w") as stream, progress.shown(stream, delay=0.01):
            progress.doing("thinking")
            time.sleep(0.2)
        assert read(parent) == ""
        return
    process = start(
        [*LONG, *(["--json"] if case == "json" else [])], tmp_path, subprocess.PIPE if case == "pipe" else child
    )
    time.sleep(3.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = process.stderr.read().decode() if process.stderr else read(parent)
    assert said.strip() == "interrupted"
