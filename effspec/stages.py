"""What each line of a model's body costs: the rows of the stage table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from effspec.cost import Cost, GroupCost
from effspec.elaborate import Elaborated
from effspec.ir.graph import Node
from effspec.layers import Application
from effspec.syntax import nodes
from effspec.values import is_number, show


@dataclass(frozen=True)
class Stage:
    """A line of the model's body in one iteration of its loops.

    `label` is its path and `written` whether the spec names it (or it has parameters), `layer` the layer's name,
    `arguments` what it is given in short, `repeats` None for what runs once.
    """

    line: int
    label: str
    layer: str
    arguments: dict[str, Any]
    repeats: int | None
    written: bool
    cost: GroupCost


@dataclass
class _Row:
    line: int
    label: str
    first: Application
    count: int = 0
    ids: set[int] = field(default_factory=set)
    repeated: bool = False


def stages(elaborated: Elaborated, cost: Cost) -> list[Stage]:
    """The rows in the order in which their operators run; what exists in training only has none."""
    rows = {row.label: row for row in _rows(elaborated)}
    by_node = {number: row.label for row in rows.values() for number in row.ids}

    def label(node: Node) -> str:
        if node.id in by_node:
            return by_node[node.id]
        parts = node.path.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((prefix for prefix in prefixes if prefix in rows), "")

    out = []
    for group in cost.groups(label):
        row = rows.get(group.name)
        if row is not None:
            repeats = row.count if row.repeated or row.count > 1 else None
            layer, written = row.first.layer.name, row.first.written
            out.append(Stage(row.line, row.label, layer, _numbers(row.first), repeats, written, group))
    return out


def _rows(elaborated: Elaborated) -> Iterator[_Row]:
    rows: dict[tuple[nodes.Node, str], _Row] = {}
    for (site, _), application in elaborated.root.applied.items():
        name, indices = application.label
        label = ".".join([name, *map(str, indices)])
        row = rows.setdefault((site, label), _Row(site.span.line, label, application))
        row.count += 1
        row.ids.update(application.nodes)
        row.repeated = row.repeated or (isinstance(site, nodes.Line) and site.repeats is not None)
    taken: dict[str, int] = {}
    for row in rows.values():
        # Layers without parameters may have the same free name on several lines.
        taken[row.label] = taken.get(row.label, 0) + 1
        if taken[row.label] > 1:
            row.label = f"{row.label}_{taken[row.label] - 1}"
        yield row


def _numbers(application: Application) -> dict[str, Any]:
    bound = application.layer.bound.items()
    return {name: b.value for name, b in bound if isinstance(b.value, int | Fraction | str) and name != "out"}


def summary(stage: Stage) -> str:
    """`MBConv k5 s2 expand6`: the layer and its arguments in short."""
    given = (f"{name}{'' if is_number(value) else ' '}{show(value)}" for name, value in stage.arguments.items())
    return " ".join([stage.layer, *given])
