"""Says on a terminal what a long command is doing: one line, from its third second on, erased when there is a result.

What works reports with `doing`, which costs next to nothing and prints nothing; a command that somebody watches runs
within `shown`, and only there a thread looks at the latest report from time to time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO

DELAY = 2.0
"""Seconds that a command may take without a word."""
_EVERY = 0.2


class _Report(NamedTuple):
    text: str
    done: int
    total: int
    began: float


class _State:
    report: _Report | None = None
    line: _Line | None = None


def doing(text: str, done: int = 0, total: int = 0) -> None:
    """Report what is being done, and how much of it (bytes, points: any unit) where that is known."""
    before = _State.report
    began = before.began if before is not None and before.text == text else time.monotonic()
    _State.report = _Report(text, done, total, began)


def hide() -> None:
    """Erase the line, so that something else can be printed; it comes back if the work goes on."""
    if _State.line is not None:
        _State.line.erase()


def rest() -> None:
    """Erase the line, and say nothing before the next report: something else has the terminal."""
    _State.report = None
    hide()


@contextmanager
def shown(stream: TextIO, *, delay: float = DELAY) -> Iterator[None]:
    """Show what is reported meanwhile on a terminal; do nothing where the stream is none."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    _State.report, _State.line = None, _Line(stream, delay)
    try:
        yield
    finally:
        _State.line.stop()
        _State.line = None


class _Line:
    def __init__(self, stream: TextIO, delay: float) -> None:
        # Imported here: most commands are not watched, or over before they would have to say anything.
        import threading

        self.stream, self.delay = stream, delay
        self.visible = False
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join()
        self.erase()

    def erase(self) -> None:
        with self.lock:
            if self.visible:
                self._print("")
                self.visible = False

    def _run(self) -> None:
        if self.ended.wait(self.delay):
            return
        while not self.ended.wait(_EVERY):
            report = _State.report
            if report is not None:
                with self.lock:
                    self._print(worded(report.text, report.done, report.total, time.monotonic() - report.began))
                    self.visible = True

    def _print(self, text: str) -> None:
        try:
            width = os.get_terminal_size(self.stream.fileno()).columns or 80
            # The last column would wrap on some terminals.
            self.stream.write("\r\x1b[K" + text[: width - 1])
            self.stream.flush()
        except (OSError, ValueError):
            self.ended.set()  # the terminal is gone


def worded(text: str, done: int, total: int, elapsed: float) -> str:
    """`writing l2.onnx.data: 45 %, 8 s left`."""
    if not done or not total:
        return f"{text} ..."
    done = min(done, total)
    said = f"{text}: {100 * done // total} %"
    if elapsed < 1 or done == total:
        return said
    left = round(elapsed * (total - done) / done)
    return f"{said}, {left // 60} min {left % 60} s left" if left >= 60 else f"{said}, {left} s left"
