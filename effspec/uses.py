"""Which definition uses which: no cycles, and no chain that is too long for what walks it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from effspec.diagnostics import Diagnostic, Label, Span
from effspec.syntax import nodes

MAX_CHAIN = 64
"""How deep definitions may use each other: a fn that calls a fn that calls ..."""

Uses = dict[nodes.Item, dict[nodes.Item, Span]]
"""For each definition and variant those that it names, with the first place."""


def check(uses: Uses) -> Iterator[Diagnostic]:
    """The error of each cycle, which is printed, and of the first chain that is too long.  Works without recursion."""
    depths: dict[nodes.Item, int] = {}
    too_deep: Diagnostic | None = None
    for start in uses:
        path = [start] if start not in depths else []
        rest = [iter(uses[item].items()) for item in path]
        while path:
            found = next(rest[-1], None)
            if found is None:
                item = path.pop()
                rest.pop()
                depths[item] = 1 + max((depths.get(other, 0) for other in uses[item]), default=0)
                if depths[item] > MAX_CHAIN and too_deep is None:
                    too_deep = _too_deep(item)
                    yield too_deep
                continue
            other, span = found
            if other in depths or other not in uses:
                continue
            if other in path:
                yield _cycle([*path[path.index(other) :], other], span)
                continue
            path.append(other)
            rest.append(iter(uses[other].items()))


def _name(item: nodes.Item) -> nodes.Identifier:
    assert not isinstance(item, nodes.Import | nodes.Expect)
    return item.name


def _cycle(items: list[nodes.Item], span: Span) -> Diagnostic:
    names = [_name(items[0]).id]
    for before, item in pairwise(items):
        name = _name(item).id
        if item is before or name != names[-1]:  # a model under other rules is two items of one name
            names.append(name)
    shown = names if len(names) <= 12 else [*names[:6], "...", *names[-5:]]
    message = f"{names[0]} uses itself: {' -> '.join(shown)}"
    return Diagnostic(
        "E0206", message, Label(span), help="nothing is recursive: repeat a line with `x N`, or use `for`"
    )


def _too_deep(item: nodes.Item) -> Diagnostic:
    name = _name(item)
    message = f"{name.id} uses definitions that use definitions, more than {MAX_CHAIN} deep"
    return Diagnostic("E0104", message, Label(name.span), help="let it use them directly")
