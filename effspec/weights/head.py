"""A new head: the layers at a model's end that a checkpoint has in another size, such as a classifier of 1000 classes.

Everything else comes from the checkpoint; these start from their initial values, and are always named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from effspec.ir.graph import Graph, Parameter
from effspec.ops.base import show
from effspec.weights.layouts import Shape, squeezed


class New(NamedTuple):
    """A parameter that is not taken: `found` is the shape (in PyTorch's layout) of the checkpoint's tensor `name`."""

    parameter: Parameter
    name: str
    found: Shape


def head(graph: Graph) -> frozenset[str]:
    """The paths of the tensors of the last layers: behind them nothing has weights."""
    behind: dict[int, bool] = {}
    found: set[str] = set()
    for node in reversed(list(graph)):
        below = any(behind[user.id] for user in graph.users(node.id))
        behind[node.id] = below or bool(node.parameters)
        if not below:
            found |= {parameter.path for parameter in node.parameters.values()}
    return frozenset(found)


def resized(found: Shape, wanted: Shape) -> bool:
    """Whether two shapes, not counting axes of 1, differ in how many outputs they have and in nothing else."""
    return bool(found and wanted) and found[0] != wanted[0] and squeezed((1, *found[1:])) == squeezed((1, *wanted[1:]))


def lines(new: Iterable[New], seed: int) -> list[str]:
    """What was asked for as a new head, for a person: what is not taken, or that the head was taken, too."""
    said = [
        f"  {one.parameter.path} {show(one.parameter.shape)}; the checkpoint has `{one.name}` {show(one.found)}"
        for one in new
    ]
    if not said:
        return ["--new-head changed nothing: the head of the checkpoint has the model's size, and is taken"]
    return [f"new head, from the initial values of seed {seed}:", *said]
