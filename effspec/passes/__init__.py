"""Passes: graph to graph, one file a pass, in the order in which backends run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from effspec.ir.graph import Graph
from effspec.ir.verify import verify
from effspec.passes.drop_identity import drop_identity
from effspec.passes.fold_batch_norm import fold_batch_norm
from effspec.passes.fold_constants import fold_constants
from effspec.passes.fold_linear import fold_linear

Pass: TypeAlias = Callable[[Graph], Graph]

INFERENCE: tuple[Pass, ...] = (drop_identity,)
"""What a deployed model does without: nothing is computed or renamed."""

LINEAR_FOLD: tuple[Pass, ...] = (*INFERENCE, fold_batch_norm, fold_linear)
"""The equivalent deploy form that `folded.` names in an `expect` line speak of."""

FOLDS: dict[str, tuple[Pass, ...]] = {
    "none": INFERENCE,
    "batch_norm": (*INFERENCE, fold_constants, fold_batch_norm),
    "linear": (*INFERENCE, fold_constants, fold_batch_norm, fold_linear),
}
"""What a runtime's graph is made by, by the name of the `fold` option."""


def run(graph: Graph, passes: Iterable[Pass]) -> Graph:
    """The graph after each pass in turn; verified after each that changed it (a pass with nothing to do returns it)."""
    for step in passes:
        before, graph = graph, step(graph)
        if graph is not before:
            verify(graph, step.__name__, before)
    return graph
