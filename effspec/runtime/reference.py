"""The reference: a graph run by the numpy meaning of its operators, and weights with which every part can be seen."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy

from effspec.ir.graph import Graph, Node, Parameter, Value, leaves
from effspec.ops.meaning import Array, Step, meaning
from effspec.progress import doing

if TYPE_CHECKING:
    from effspec.backend import Weights

Tensors = Callable[[Node, Sequence[Array]], Mapping[str, Array]]
"""The tensors of a node that is about to read these inputs."""
Watch = Callable[[Node, Sequence[Array]], None]
"""Told the results of every node."""

PIXELS = 200_000
"""How many pixels the statistics of batch norm are taken from: a variance of a few would be a matter of luck."""


def outputs(
    graph: Graph,
    tensors: Tensors,
    inputs: Mapping[str, Array],
    *,
    dtype: type[numpy.floating[Any]] = numpy.float64,
    backwards: bool = False,
    watch: Watch | None = None,
    saying: str = "computing the reference",
) -> list[Array]:
    """The tensors of the graph's outputs from left to right, computed in `dtype`; `inputs` have a batch.

    What nothing reads any more is forgotten.  `backwards` rounds differently (see `Step`).
    """
    results: dict[Value, Array] = {}
    kept = {leaf for output in graph.outputs for leaf in leaves(output.value)}
    last = {value: node.id for node in graph for value in node.inputs}
    for position, node in enumerate(graph):
        doing(saying, position, len(graph))
        if node.op == "input":
            found = [inputs[node.path].astype(dtype, copy=False)]
        else:
            given = [results[value] for value in node.inputs]
            owned = {name: array.astype(dtype, copy=False) for name, array in tensors(node, given).items()}
            first = int(graph.type(node.inputs[0]).batched) if node.inputs else 0
            found = meaning(Step(node, given, owned, first, backwards))
        for output, array in enumerate(found):
            results[Value(node.id, output)] = array
        if watch is not None:
            watch(node, found)
        for value in node.inputs:
            if last[value] == node.id and value not in kept:
                results.pop(value, None)
    return [results[leaf] for output in graph.outputs for leaf in leaves(output.value)]


def stored(weights: Weights) -> Tensors:
    """The tensors of a source of weights."""
    return lambda node, inputs: {name: weights.tensor(parameter) for name, parameter in node.parameters.items()}


def random_inputs(graph: Graph, count: int, seed: int | tuple[int, ...], *, pictures: bool = False) -> dict[str, Array]:
    """Standard normal inputs, or, for a model that takes pictures, random values from 0 to 255; float32."""
    source = numpy.random.default_rng(seed)
    shapes = {node.path: (count, *node.types[0].shape) for node in graph.inputs}
    draw = (lambda shape: 255 * source.random(shape)) if pictures else source.standard_normal
    return {path: draw(shape).astype(numpy.float32) for path, shape in shapes.items()}


class Awake:
    """Weights with which every part of a network makes a difference, which an initialiser often avoids (a scale of 0).

    Scales are drawn around 1, biases around 0 and matrices so that signals keep their size; the statistics of batch
    norm are those of random pictures on their way through the network.
    """

    def __init__(self, graph: Graph, seed: int = 0, *, pictures: bool = False) -> None:
        self.seed = seed
        self._arrays: dict[str, Array] = {}
        largest = max(prod(node.types[0].shape[1:]) for node in graph.inputs)
        inputs = random_inputs(graph, min(max(PIXELS // largest, 2), 32), (seed, 1), pictures=pictures)
        with numpy.errstate(all="ignore"):
            outputs(graph, self._met, inputs, dtype=numpy.float32, saying="drawing weights")

    def tensor(self, parameter: Parameter) -> Array:
        """The parameter's numbers; those of training outputs are drawn when they are asked for."""
        if parameter.path not in self._arrays:
            self._arrays[parameter.path] = self._drawn(parameter, parameter.path.rpartition(".")[2])
        return self._arrays[parameter.path]

    def _met(self, node: Node, inputs: Sequence[Array]) -> Mapping[str, Array]:
        if node.op == "batch_norm" and node.parameters["running_mean"].path not in self._arrays:
            x = inputs[0]
            axes = (0, *range(2, x.ndim))
            variance = x.var(axis=axes)
            # A channel that hardly varies would make noise of nothing.
            variance = numpy.maximum(variance, variance.mean() / 4) if variance.any() else variance + 1
            for name, found in (("running_mean", x.mean(axis=axes)), ("running_var", variance)):
                self._arrays[node.parameters[name].path] = found.astype(numpy.float32)
        for name, parameter in node.parameters.items():
            if parameter.path not in self._arrays:
                self._arrays[parameter.path] = self._drawn(parameter, name)
        return {name: self._arrays[parameter.path] for name, parameter in node.parameters.items()}

    def _drawn(self, parameter: Parameter, name: str) -> Array:
        source = numpy.random.default_rng([self.seed, zlib.crc32(parameter.path.encode())])
        shape = parameter.shape
        if max(shape, default=1) < prod(shape):
            drawn = source.standard_normal(shape) / numpy.sqrt(prod(shape[1:]))
        elif name in ("bias", "running_mean"):
            drawn = source.standard_normal(shape) / 5
        else:
            drawn = 0.75 + source.random(shape) / 2
        return numpy.asarray(drawn, numpy.float32)
