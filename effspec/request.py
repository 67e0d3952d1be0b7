"""What a person asks for, as a `Request` whose settings point back at the words that were typed.

`--phi 2` is the setting phi = 2.  On a command line a value is an expression of the language; in Python it is a value,
and a float means its shortest decimal (0.1 is 1/10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Any

from effspec.diagnostics import CALL, COMMAND_LINE, Diagnostic, EffspecError, Source, Span, fail
from effspec.elaborate import Request, Setting
from effspec.library import SUFFIX
from effspec.rescaling import Stated
from effspec.syntax.parser import parse_expression


def from_call(
    name: str,
    *,
    variant: str | None,
    phi: object,
    settings: Mapping[str, object] | None,
    model: str | None,
    scaling: str | Sequence[str] = (),
) -> Request:
    """The request of `effspec.compile(name, variant=..., scaling=..., phi=..., set={...})`; EffspecError E0606 for a
    value that the language has no counterpart of."""
    rules = [scaling] if isinstance(scaling, str) else list(scaling)
    source, places = _call(name, variant, rules, phi, settings or {})
    stated = tuple(_stated(source, end - len(text), end) for text, (_, end) in zip(rules, places, strict=False))
    made = []
    for (key, value), (start, end) in zip(_given(phi, settings or {}), places[len(rules) :], strict=True):
        span = Span(source, start, end)
        made.append(Setting(key, _value(key, value, span), span))
    return Request(variant, model, tuple(made), stated)


def _given(phi: object, settings: Mapping[str, object]) -> list[tuple[str, object]]:
    return [*([("phi", phi)] if phi is not None else []), *((str(name), value) for name, value in settings.items())]


def _call(
    name: str, variant: str | None, rules: Sequence[str], phi: object, settings: Mapping[str, object]
) -> tuple[Source, list[tuple[int, int]]]:
    """The call as one line, and where each rule and each setting stands in it."""
    text = f"effspec.compile({name!r}" + (f", variant={variant!r}" if variant is not None else "")
    places = []

    def add(before: str, shown: str) -> None:
        nonlocal text
        places.append((len(text) + len(before), len(text) + len(before) + len(shown)))
        text += before + shown

    for position, rule in enumerate(rules):
        add('", "' if position else ', scaling=["' if len(rules) > 1 else ', scaling="', rule.replace("\n", " "))
    text += ('"]' if len(rules) > 1 else '"') if rules else ""
    if phi is not None:
        add(", ", f"phi={phi!r:.80}")
    for position, (key, value) in enumerate(settings.items()):
        add(", " if position else ", set={", f"{key!r}: {value!r:.80}")
    return Source(CALL, (text + ("})" if settings else ")")).replace("\n", " ")), places


def _value(name: str, value: object, span: Span) -> Any:
    """A Python value as the language holds it."""
    if hasattr(value, "tolist"):
        value = value.tolist()  # of an array library
    match value:
        case bool() | int() | str():
            return value
        case float() if isfinite(value):
            return _reduced(Fraction(repr(value)))
        case Decimal() if value.is_finite():
            return _reduced(Fraction(value))
        case Fraction():
            return _reduced(value)
        case list() | tuple():
            return tuple(_value(name, element, span) for element in value)
    shown = repr(value) if isinstance(value, float) else f"a {type(value).__name__}"
    raise fail(
        "E0606", f"{name} cannot be {shown}", span, help="a value is a number, a bool, a text or a list of these"
    )


def _reduced(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


def from_words(
    words: Sequence[str],
    *,
    variant: str | None,
    phi: str | None,
    settings: Sequence[str],
    model: str | None,
    scaling: Sequence[str] = (),
) -> Request:
    """The request of a command line, `words`, of which these are the options.

    Raises EffspecError with every setting and rule that cannot be read: E0605 where a setting is not `NAME=VALUE`, and
    what the parser finds in a value.
    """
    source, places = _command_line(words)
    problems: list[Diagnostic] = []
    made: list[Setting] = []
    stated: list[Stated] = []
    taken: set[tuple[int, int]] = set()
    options = [*([("--phi", phi)] if phi is not None else []), *(("--set", text) for text in settings)]
    options += [("--scaling", text) for text in scaling]
    for option, text in options:
        free = (place for place in _occurrences(words, places, option, text) if place not in taken)
        start, end = next(free, (0, len(source.text)))
        taken.add((start, end))
        try:
            if option == "--scaling":
                stated.append(_stated(source, end - len(text), end))
                continue
            name, skip = ("phi", 0) if option == "--phi" else _split(text, Span(source, start, end))
            value = parse_expression(source, end - len(text) + skip, end)
            made.append(Setting(name, value, Span(source, start, end)))
        except EffspecError as error:
            problems += error.diagnostics
    if problems:
        raise EffspecError(tuple(problems))
    named = {"variant": place(words, "--variant", variant), "model": place(words, "--model", model)}
    places_of = {what: span for what, span in named.items() if span is not None}
    return Request(variant, model, tuple(made), tuple(stated), places_of)


def _stated(source: Source, start: int, end: int) -> Stated:
    """A rule as a request states it: `Name`, `Name(alpha = 1.2)`, or one of these after `FILE.eff:`, or `FILE.eff`."""
    text, span = source.text[start:end], Span(source, start, end)
    path, colon, rest = text.partition(f"{SUFFIX}:")
    if colon or text.endswith(SUFFIX):
        path = path.removesuffix(SUFFIX) + SUFFIX
        return Stated(parse_expression(source, end - len(rest), end) if rest else None, path, span)
    return Stated(parse_expression(source, start, end), None, span)


def place(words: Sequence[str], option: str, text: str | None) -> Span | None:
    """Where a command line gives an option this value."""
    source, places = _command_line(words)
    found = next(_occurrences(words, places, option, text), None) if text is not None else None
    return Span(source, *found) if found is not None else None


def _split(text: str, span: Span) -> tuple[str, int]:
    """The name in `NAME=VALUE`, and how many characters stand before the value."""
    name, equals, _ = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise fail(
            "E0605", f"`{text}` sets nothing", span, help="write `--set NAME=VALUE`, for example `--set classes=10`"
        )
    return name.strip(), len(name) + 1


def _command_line(words: Sequence[str]) -> tuple[Source, list[int]]:
    """The words as one line, and where each begins.  They are shown, not quoted: no shell reads them again."""
    places, position = [], 0
    for word in words:
        places.append(position)
        position += len(word) + 1
    # A word may hold a line break, and a source's lines end there.
    return Source(COMMAND_LINE, " ".join(words).replace("\n", " ")), places


def _occurrences(words: Sequence[str], places: Sequence[int], option: str, text: str) -> Iterator[tuple[int, int]]:
    """Where `option text` or `option=text` stands."""
    for position, word in enumerate(words):
        if word == f"{option}={text}":
            yield places[position], places[position] + len(word)
        elif word == option and position + 1 < len(words) and words[position + 1] == text:
            yield places[position], places[position + 1] + len(text)
