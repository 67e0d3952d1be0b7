"""What is said when effspec itself fails: a few lines, and a report in a file that can be sent to its makers."""

from __future__ import annotations

import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

from effspec import __version__


def report(error: Exception, words: Sequence[str]) -> Iterator[str]:
    """The lines to print; the traceback goes into a file of the folder for temporary files, where there is one."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    yield f"effspec failed: {type(error).__name__} in {place.name} (line {place.lineno})."
    yield "This is a fault of effspec, not of the spec."
    text = "\n".join([f"effspec {' '.join(words)}", *_versions(), "", *traceback.format_exception(error)])
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="effspec-report-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        yield f"The report is in {file.name}: read it before you share it."
    except OSError:
        yield "Set EFFSPEC_TRACEBACK=1 to see where."


def _versions() -> Iterator[str]:
    yield f"effspec {__version__}, Python {platform.python_version()}, {sys.platform}"
    for name in ("click", "jinja2", "lark", "networkx", "numpy", "onnx", "pydantic", "torch"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} is not installed"
