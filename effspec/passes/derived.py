"""Tensors that a pass derives from others: the recipe of their numbers, so that folding needs no numbers itself.

A pass works on shapes alone and leaves a `Derived` parameter behind; whoever has the weights evaluates the recipe, one
tensor at a time, in float64, and rounds once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from effspec.ir.graph import Graph, Initializer, Node, Parameter, Value

# No weight source knows this kind: asking one for a derived tensor is a mistake that does not stay silent.
INITIALIZER = Initializer("derived")


@dataclass(frozen=True)
class Norm:
    """A batch norm at inference: y = (x - mean) * scale + bias with scale = weight / sqrt(variance + eps)."""

    mean: Parameter
    variance: Parameter
    eps: Fraction
    weight: Parameter | None = None
    bias: Parameter | None = None


@dataclass(frozen=True)
class Scaled:
    """The weight of an operator followed by `norm`: each output channel times the norm's scale.

    Output channels are on `axis`; with axis 1 (a transposed convolution, [in, out / groups, h, w]) the channels of
    `groups` groups follow each other along axis 0.
    """

    weight: Recipe
    norm: Norm
    axis: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Shifted:
    """The bias of an operator followed by `norm`; `bias` is None where it had none."""

    bias: Recipe | None
    norm: Norm


@dataclass(frozen=True)
class Eye:
    """The 1 x 1 convolution that changes nothing: [channels, channels / groups, 1, 1]."""

    channels: int
    groups: int


@dataclass(frozen=True)
class Spread:
    """A kernel [out, in, h, w] put among zeros: element i of an axis goes to `start + step * i` of `shape`."""

    kernel: Recipe
    shape: tuple[int, int]
    start: tuple[int, int]
    step: tuple[int, int]


@dataclass(frozen=True)
class Total:
    """The sum of tensors of one shape."""

    terms: tuple[Recipe, ...]


@dataclass(frozen=True)
class Computed:
    """A value that depends on parameters alone, computed by the operators of `graph`."""

    graph: Graph
    value: Value


Recipe: TypeAlias = "Parameter | Scaled | Shifted | Eye | Spread | Total | Computed"


@dataclass(frozen=True)
class Derived(Parameter):
    """A parameter whose numbers follow from others by `recipe`."""

    recipe: Recipe | None = None


def derived(path: str, shape: tuple[int, ...], recipe: Recipe) -> Derived:
    return Derived(path, shape, INITIALIZER, recipe=recipe)


def recipe(parameter: Parameter) -> Recipe:
    """How a parameter's numbers come about: itself if it is not derived."""
    return parameter.recipe if isinstance(parameter, Derived) and parameter.recipe is not None else parameter


def norm_of(node: Node) -> Norm:
    """The norm of a `batch_norm` node."""
    tensors = node.parameters
    eps = node.attributes["eps"]
    assert isinstance(eps, int | Fraction)
    return Norm(
        tensors["running_mean"], tensors["running_var"], Fraction(eps), tensors.get("weight"), tensors.get("bias")
    )


def sources(item: Recipe | Norm | None) -> Iterator[Parameter]:
    """The underived parameters that a recipe reads; one may come up several times."""
    match item:
        case Derived():
            yield from sources(item.recipe)
        case Parameter():
            yield item
        case Norm():
            for part in (item.mean, item.variance, item.weight, item.bias):
                yield from sources(part)
        case Scaled():
            yield from sources(item.weight)
            yield from sources(item.norm)
        case Shifted():
            yield from sources(item.bias)
            yield from sources(item.norm)
        case Spread():
            yield from sources(item.kernel)
        case Total():
            for term in item.terms:
                yield from sources(term)
        case Computed():
            for node in needed(item):
                for parameter in node.parameters.values():
                    yield from sources(parameter)
        case Eye() | None:
            pass


def needed(item: Computed) -> list[Node]:
    """The nodes that a computed value depends on, each after its inputs."""
    found: set[int] = set()
    stack = [item.value.node]
    while stack:
        number = stack.pop()
        if number not in found:
            found.add(number)
            stack.extend(value.node for value in item.graph[number].inputs)
    return [item.graph[number] for number in sorted(found)]


def fresh(path: str, taken: set[str]) -> str:
    """A path that no parameter has yet, and takes it."""
    while path in taken:
        path += "_"
    taken.add(path)
    return path
