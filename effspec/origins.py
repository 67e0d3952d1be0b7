"""Where the values that an error is about were given: lines of a person's own file, of a variant, of the request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from effspec.diagnostics import Label, Span
from effspec.frames import Cell
from effspec.layers import Instance
from effspec.signatures import Rule
from effspec.syntax import nodes

_MOST = 3
_WORD = re.compile(r"(?<![\w.])[a-z_]\w*")


@dataclass(frozen=True, eq=False)
class Head:
    """The parameters of a model that runs, and its scaling rules."""

    cells: Mapping[str, Cell]
    rules: tuple[Rule, ...]


def labels(
    span: Span, running: Sequence[Instance], heads: Mapping[Instance, Head], home: str, shown: Iterable[Span]
) -> Iterator[Label]:
    """What to show beside an error at `span`, raised while these bodies ran, the innermost last.

    These are the places where the values were given that its words name; where there are none and the error is not in
    the file `home`, the line of `home` that led to it.  `shown` are places that the error shows anyhow.
    """
    search = _Search(heads)
    found: list[Label] = []
    for instance in reversed(running):
        if _holds(instance, heads.get(instance), span):
            for name in dict.fromkeys(_WORD.findall(span.text)):
                found += search.given(name, instance)
            found = found or search.usual
            break
    places = [span, *shown]
    mine = span.source.name == home
    for label in found[:_MOST]:
        if not any(_overlap(label.span, place) for place in places):
            yield label
            mine = mine or label.span.source.name != span.source.name
            places.append(label.span)
    if not mine and running and not any(place.source.name == home for place in places):
        yield from (label for label in _way(running[-1], home) if label.span.source is not span.source)


def _holds(instance: Instance, head: Head | None, span: Span) -> bool:
    """Whether a place is in what an instance is an instance of, or in the scaling of that model."""
    return any(
        node.span.source is span.source and node.span.start <= span.start and span.end <= node.span.end
        for node in (instance.node, *(rule.node for rule in (head.rules if head is not None else ())))
    )


def _overlap(one: Span, other: Span) -> bool:
    return one.source is other.source and one.start < other.end and other.start < one.end


def _way(instance: Instance, home: str) -> Iterator[Label]:
    """The line of a file that applied what applied ... an instance; for a model itself its `with`."""
    one: Instance | None = instance
    while one is not None:
        if one.site is not None and one.site.span.source.name == home:
            yield Label(one.site.span, "applied here")
            return
        if one.site is None and isinstance(one.node, nodes.Model):
            for rule in one.node.rules:
                yield Label(rule.span, "applied here")
        one = one.parent


class _Search:
    """Follows names from body to body, each once; `usual` are what a model's `with` gives to every point of it."""

    def __init__(self, heads: Mapping[Instance, Head]) -> None:
        self.heads = heads
        self.seen: set[object] = set()
        self.usual: list[Label] = []

    def given(self, name: str, instance: Instance) -> Iterator[Label]:
        """Where a name of a body got its value from outside."""
        while isinstance(instance.node, nodes.Group) and instance.parent is not None:
            instance = instance.parent
        if (instance, name) in self.seen:
            return
        self.seen.add((instance, name))
        head = self.heads.get(instance)
        if head is not None and name in head.cells:
            yield from self._cell(head.cells[name])
            return
        bound = instance.arguments.get(name)
        if bound is None:
            for part in nodes.descend(instance.node):
                if isinstance(part, nodes.Bind) and any(target.id == name for target in part.targets):
                    yield from self._read(part.value, instance)
        elif bound.node is not None:
            further = list(self._read(bound.node, bound.instance)) if bound.instance is not None else []
            yield from further
            if not further and bound.how != "default":
                yield Label(bound.node.span, f"{name} is given here")

    def _read(self, node: nodes.Node, instance: Instance) -> Iterator[Label]:
        for part in nodes.descend(node):
            if isinstance(part, nodes.Name):
                yield from self.given(part.id, instance)

    def _cell(self, cell: Cell) -> Iterator[Label]:
        if cell in self.seen:
            return
        self.seen.add(cell)
        if cell.given is not None:
            label = Label(cell.given, f"{cell.name} is given here")
            if cell.origin == "with":
                self.usual.append(label)
            else:
                yield label
            return
        for other in cell.reads:
            yield from self._cell(other)
