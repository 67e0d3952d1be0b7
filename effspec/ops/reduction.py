"""Rows of the reductions: mean, sum and largest value over axes, which stay as axes of size 1."""

from __future__ import annotations

from collections.abc import Mapping

from effspec.ir.types import TensorType
from effspec.ops.base import Argument, Attributes, Op, Types, integers, resolve_axes


def _reduced(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    axes = integers(attributes["axes"])
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(types[0].shape))
    return (TensorType(shape, types[0].batched),)


def _reduction(name: str, doc: str, linear: bool) -> Op:
    def resolve(arguments: Mapping[str, object], types: Types) -> Attributes:
        return {"axes": resolve_axes(arguments["axes"], types, name)}

    return Op(name, "reduction", doc, _reduced, (Argument("axes", "axes"),), resolve=resolve, linear=linear)


ROWS = (
    _reduction("reduce_mean", "The mean over `axes`.", linear=True),
    _reduction("reduce_sum", "The sum over `axes`.", linear=True),
    _reduction("reduce_max", "The largest value over `axes`.", linear=False),
)
