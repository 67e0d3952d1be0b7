"""One row an operator: the ways in which PyTorch can say it."""

from __future__ import annotations

from effspec.backends.torch.functionals import FUNCTIONAL, FUNCTIONS
from effspec.backends.torch.operators import ACTIVATIONS, ALWAYS_MODULES

_WAYS = {
    "module": {*ALWAYS_MODULES, *ACTIVATIONS},
    "function": {*FUNCTIONS, *FUNCTIONAL},
    "infix": {"add", "sub", "mul", "div", "pow", "matmul"},
    "nothing": {"identity"},
}

ROWS: dict[str, tuple[str, ...]] = {
    op: tuple(way for way, ops in _WAYS.items() if op in ops) for op in sorted(set().union(*_WAYS.values()))
}
"""A module in `__init__`, a function or an infix in forward, or nothing at all: what `check` holds a graph to."""
