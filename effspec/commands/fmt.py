"""`effspec fmt`: specs in their canonical form, checked to mean the same before they are written."""

from __future__ import annotations

from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path

from effspec import library, output
from effspec.diagnostics import fail
from effspec.syntax.format import format_text


def format_file(path: str, *, write: bool = True, show: Callable[[str], None] | None = None) -> bool:
    """Format a spec; returns whether that changes it.  With `show` the difference is printed."""
    if not Path(path).exists():
        raise fail("E0109", f"there is no file {path}", help="give the path of a spec: shipped specs are not rewritten")
    source = library.find(path).source
    text = format_text(source)
    if text == source.text:
        return False
    if show is not None:
        old, new = source.text.splitlines(), text.splitlines()
        for line in unified_diff(old, new, f"{path} (now)", f"{path} (formatted)", lineterm=""):
            show(line)
    if write:
        output.check(Path(path))
        output.write_atomically(Path(path), [text.encode()])
    return True
