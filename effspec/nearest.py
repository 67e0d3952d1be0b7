"""Where a point of a scaling rule lies among the published ones: which variant is nearest in what the rule decides.

The coordinates are the positive numbers that the rule computes from the settings and that a variant may give by hand
instead: width, depth and size for EfficientNet.  Distance is that of the logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import hypot, log

from effspec.elaborate import ParameterValue, Request, header
from effspec.resolve import Module
from effspec.values import is_number

Point = dict[str, int | Fraction]


@dataclass(frozen=True)
class Nearest:
    """The nearest variant, its coordinates, and all published points in the order of the file."""

    variant: str
    point: Point
    published: tuple[str, ...]


def nearest(module: Module, model: str, request: Request, parameters: Mapping[str, ParameterValue]) -> Nearest | None:
    """The variant of `model` nearest to the point with `parameters`; None where its settings compute no coordinate."""
    if request.variant is not None or request.rules or not request.settings:
        return None
    computed = _dependent(parameters, {setting.name for setting in request.settings})
    # What calls another variant is a flavour of that one.
    direct = [name for name, variant in module.variants.items() if variant.call.function.span.text == model]
    variants = {name: header(module, Request(name)) for name in direct}
    given = {key for values in variants.values() for key, found in values.items() if found.origin == "variant"}
    names = [name for name in parameters if name in computed & given and _positive(parameters[name].value)]
    # What follows from another coordinate (a crop from the size) adds nothing.
    names = [name for name in names if name not in _dependent(parameters, set(names) - {name})]
    if not names:
        return None
    points: dict[str, Point] = {
        variant: {name: values[name].value for name in names}
        for variant, values in variants.items()
        if all(_positive(values[name].value) for name in names)
    }
    if not points:
        return None
    best = min(points, key=lambda variant: hypot(*(log(parameters[n].value / points[variant][n]) for n in names)))
    return Nearest(best, points[best], tuple(points))


def _dependent(parameters: Mapping[str, ParameterValue], names: set[str]) -> set[str]:
    """The parameters that were computed from `names`, directly or through others."""
    found = set(names)
    while more := {name for name, value in parameters.items() if value.reads & found} - found:
        found |= more
    return found - names


def _positive(value: object) -> bool:
    return is_number(value) and value > 0  # type: ignore[operator]
