"""Places in a spec, what is wrong there, and how it is shown to a person.

A `Diagnostic` is data: a code, a message, labelled places and help.  `render` draws it as text with carets.
`EffspecError` is the one exception that effspec raises for bad input; it carries every diagnostic of the run.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

COMMAND_LINE = "command line"
CALL = "call"
"""What the sources of requests are called: a command line, and a call of the Python API."""


@dataclass(frozen=True, eq=False)
class Source:
    """A text that diagnostics can point into: a spec file or a command line."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def _starts(self) -> list[int]:
        # Only "\n" ends a line: str.splitlines() would also split at characters that an editor does not count.
        starts = [0]
        position = self.text.find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = self.text.find("\n", position + 1)
        return starts

    def line_column(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column of a character offset."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its end."""
        start = self._starts[number - 1]
        end = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        return self.source.line_column(self.start)[0]

    @property
    def place(self) -> str:
        """`file:line`, as it is quoted inside messages."""
        return f"{self.source.name}:{self.line}"

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of the other."""
        return Span(self.source, self.start, other.end)


@dataclass(frozen=True, slots=True)
class Label:
    """A place and what is to be said about it."""

    span: Span
    text: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One independent mistake.

    `code` is a row of `codes.CODES`.  `notes` state facts (values in conflict, where they come from), `help` says what
    to do, `trail` is the chain of lines of an expansion, from the variant inwards.
    """

    code: str
    message: str
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str | None = None
    trail: tuple[str, ...] = ()


@dataclass
class EffspecError(Exception):
    """Everything that is wrong with a spec or a request: at least one diagnostic; `str()` renders them all."""

    diagnostics: tuple[Diagnostic, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.diagnostics:
            raise ValueError("an EffspecError carries at least one diagnostic")
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return render_all(self.diagnostics)


def fail(
    code: str,
    message: str,
    span: Span | None = None,
    text: str = "",
    *,
    secondary: tuple[Label, ...] = (),
    notes: tuple[str, ...] = (),
    help: str | None = None,
) -> EffspecError:
    """An error of one diagnostic: `raise fail("E0301", ...)`."""
    primary = Label(span, text) if span is not None else None
    return EffspecError((Diagnostic(code, message, primary, secondary, notes, help),))


_STYLES = {"error": "1;31", "place": "34", "caret": "1;31", "second": "34", "help": "36", "bold": "1"}
_LIMIT = 160
# So many lines of a deep expansion are named.
_STEPS = 8


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control and direction characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """The diagnostic as rustc would draw it, with the source lines and carets under the places."""

    def style(name: str, text: str) -> str:
        return f"\x1b[{_STYLES[name]}m{text}\x1b[0m" if color else text

    out = [style("error", f"error[{diagnostic.code}]") + style("bold", f": {printable(diagnostic.message)}")]
    labels = ([diagnostic.primary] if diagnostic.primary else []) + list(diagnostic.secondary)
    width = max([len(str(label.span.line)) for label in labels], default=1)
    bar = style("place", " " * (width + 1) + "|")
    previous: Label | None = None
    drawn: tuple[Source, int, int] | None = None
    for label in labels:
        line, column = label.span.source.line_column(label.span.start)
        main = label is diagnostic.primary
        if previous is None or previous.span.source is not label.span.source:
            arrow = "-->" if main else ":::"
            place = f"{printable(label.span.source.name)}:{line}:{column}"
            out.append(style("place", " " * width + arrow + " ") + place)
            out.append(bar)
        text = label.span.source.line(line)
        start, end = column - 1, column - 1 + max(1, label.span.end - label.span.start)
        # A very long line is shown as a window around the place.
        first = max(0, start - 60) if len(text) > _LIMIT else 0
        shown = text[first : first + _LIMIT]
        # Marks of one line stand below each other.
        if (above := (label.span.source, line, first)) != drawn:
            out.append(
                style("place", f"{line:>{width}} |") + (" " + printable(shown.replace("\t", " ")) if shown else "")
            )
            drawn = above
        carets = max(1, min(end, len(text), first + _LIMIT) - start)
        mark = ("^" if main else "-") * carets
        comment = f" {printable(label.text)}" if label.text else ""
        out.append(bar + " " * (start - first + 1) + style("caret" if main else "second", mark + comment))
        previous = label
    pad = " " * (width + 1) + "= "
    for note in diagnostic.notes:
        out.append(style("place", pad) + printable(note))
    if diagnostic.trail:
        trail = list(diagnostic.trail)
        if len(trail) > _STEPS:
            trail[_STEPS - 2 : -2] = ["..."]
        out.append(style("place", pad) + "in " + " > ".join(map(printable, trail)))
    if diagnostic.help:
        out.append(style("place", pad) + style("help", "help: ") + printable(diagnostic.help))
    return "\n".join(out)


def render_all(diagnostics: tuple[Diagnostic, ...], color: bool = False) -> str:
    return "\n\n".join(render(diagnostic, color) for diagnostic in diagnostics)


def closest(word: str, known: Iterable[object]) -> str | None:
    """The known word that was probably meant, if one is near enough."""
    from difflib import get_close_matches

    words = [str(k) for k in known]
    near = [k for k in words if k.casefold() == word.casefold()] or get_close_matches(word, words, n=1, cutoff=0.6)
    return near[0] if near else None


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def suggest(word: str, known: Iterable[object]) -> str | None:
    """What to say of a word that is unknown, if another one was probably meant: "did you mean `expand`?"."""
    meant = closest(word, known)
    return f"did you mean `{meant}`?" if meant is not None else None
