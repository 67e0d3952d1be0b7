"""`effspec explain`: a row of the table of codes, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from effspec.codes import CODES, Code


def find(code: str) -> Code | None:
    """The row of a code, in any case and with or without its E; None for one that does not exist."""
    word = code.upper()
    return CODES.get(word if word.startswith("E") else f"E{word.zfill(4)}")


def lines(entry: Code) -> Iterator[str]:
    """The explanation in 80 columns; examples are cut after a few lines."""
    yield f"{entry.code}: {entry.title}"
    yield ""
    yield from textwrap.wrap(entry.why, 78)
    for title, example in (("Wrong", entry.bad), ("Right", entry.good)):
        if example:
            yield ""
            yield f"{title}:"
            yield from (f"    {_cut(line)}" for line in example.strip("\n").split("\n"))


def _cut(line: str) -> str:
    return line if len(line) <= 76 else line[:72] + " ..."
