"""Evaluates recipes: the numbers of derived tensors, in float64 and rounded once at the end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from effspec.backend import Weights
from effspec.ir.graph import Parameter, Value
from effspec.ops.meaning import Step, meaning
from effspec.passes.derived import Computed, Derived, Eye, Norm, Recipe, Scaled, Shifted, Spread, Total, needed

Array = numpy.ndarray


_PIECE = 1 << 16
"""Elements of a piece: it is computed and written while the processor's cache has it, and its memory is used again."""


def pieces(item: Recipe, weights: Weights, dtype: type[numpy.floating]) -> Iterator[Array]:
    """The tensor of a recipe in `dtype`, in parts that follow each other in memory."""
    if isinstance(item, Scaled) and not isinstance(item.weight, Derived) and isinstance(item.weight, Parameter):
        # The common case, without a float64 copy of the weight.
        whole = weights.tensor(item.weight)
        weight, scale = _grouped(whole, item), _scale(item, whole.ndim, weights)
        rows = max(1, _PIECE // max(1, weight[0].size))
        for start in range(0, len(weight), rows):
            part = weight[start : start + rows]
            by = scale[start : start + rows] if len(scale) > 1 else scale
            product = numpy.empty(part.shape, dtype)
            yield numpy.multiply(part, by, out=product, dtype=numpy.float64, casting="same_kind")
    else:
        yield evaluate(item, weights, dtype)


def evaluate(item: Recipe, weights: Weights, dtype: type[numpy.floating]) -> Array:
    """The tensor of a recipe in `dtype`; a parameter that nothing was done to is the source's own array."""
    if isinstance(item, Parameter) and not isinstance(item, Derived):
        return weights.tensor(item).astype(dtype, copy=False)
    return _exact(item, weights).astype(dtype, copy=False)


def _exact(item: Recipe, weights: Weights) -> Array:
    """The tensor of a recipe in float64."""
    match item:
        case Derived():
            if item.recipe is None:
                raise ValueError(f"{item.path} has no recipe")
            return _exact(item.recipe, weights)
        case Parameter():
            return weights.tensor(item).astype(numpy.float64)
        case Scaled():
            weight = _exact(item.weight, weights)
            product: Array = _grouped(weight, item) * _scale(item, weight.ndim, weights)
            return product.reshape(weight.shape)
        case Shifted():
            norm = item.norm
            bias = _exact(item.bias, weights) if item.bias is not None else 0.0
            shift = _exact(norm.bias, weights) if norm.bias is not None else 0.0
            moved: Array = (bias - _exact(norm.mean, weights)) * _factor(norm, weights) + shift
            return moved
        case Eye():
            eye = numpy.zeros((item.channels, item.channels // item.groups, 1, 1))
            out = numpy.arange(item.channels)
            eye[out, out % eye.shape[1], 0, 0] = 1
            return eye
        case Spread():
            kernel = _exact(item.kernel, weights)
            wide = numpy.zeros((*kernel.shape[:2], *item.shape))
            (top, left), (down, right) = item.start, item.step
            wide[:, :, top::down, left::right][:, :, : kernel.shape[2], : kernel.shape[3]] = kernel
            return wide
        case Total():
            total = _exact(item.terms[0], weights)
            for term in item.terms[1:]:
                total += _exact(term, weights)
            return total
        case Computed():
            return _computed(item, weights)


def _computed(item: Computed, weights: Weights) -> Array:
    """What depends on parameters alone, operator by operator."""
    results: dict[Value, Array] = {}
    for node in needed(item):
        tensors = {name: _exact(parameter, weights) for name, parameter in node.parameters.items()}
        for output, array in enumerate(meaning(Step(node, [results[value] for value in node.inputs], tensors))):
            results[Value(node.id, output)] = array
    return results[item.value]


def _factor(norm: Norm, weights: Weights) -> Array:
    factor: Array = 1 / numpy.sqrt(_exact(norm.variance, weights) + float(norm.eps))
    return factor * _exact(norm.weight, weights) if norm.weight is not None else factor


def _grouped(weight: Array, item: Scaled) -> Array:
    """A view in which the output channels stand where `_scale` has them."""
    if item.axis == 0:
        return weight
    return weight.reshape(item.groups, weight.shape[0] // item.groups, *weight.shape[1:])


def _scale(item: Scaled, rank: int, weights: Weights) -> Array:
    """The norm's scale, to multiply a `_grouped` weight of `rank` axes with."""
    factor = _factor(item.norm, weights)
    if item.axis == 0:
        return factor.reshape(-1, *(1,) * (rank - 1))
    return factor.reshape(item.groups, 1, -1, *(1,) * (rank - 2))
