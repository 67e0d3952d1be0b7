"""Whether every target computes what the graph means, and the first layer from which on one does not.

The reference is the graph run in float64 by the numpy meaning of its operators, so it is there whatever is installed,
and it is nobody's artefact.  What computes in float64 has to equal it; what computes in float32 may be as far from it
as rounding explains: `NOISE` times as far as the reference's own runs in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy

from effspec.diagnostics import EffspecError, Span
from effspec.ir.graph import Graph, Node, leaves
from effspec.layers import Instance
from effspec.progress import doing
from effspec.runtime import reference
from effspec.runtime.runners import Artefact, Runner

if TYPE_CHECKING:
    from effspec.backend import Weights
    from effspec.ops.meaning import Array
    from effspec.pipeline import Compiled

NOISE = 3.0
"""A float32 runtime may be so many times as far from the reference as the reference's own float32 runs."""
FLOOR = 1e-6
"""A distance in float32 that is fine however near the reference's own runs are."""
MOST_BYTES = 4 * 2**30
"""The most memory that looking for a layer may take."""
_SAMPLE = 256


@dataclass(frozen=True)
class Layer:
    """The first node whose value a target does not compute, and the lines that lead to it, the model's first."""

    node: Node
    lines: tuple[Span, ...]


@dataclass(frozen=True)
class Verdict:
    """How a runner did: the largest difference of an output over its largest value, and what is allowed.

    `output` is the output's name; `trouble` says why there is no number, or no layer.
    """

    runner: Runner
    difference: float
    allowed: float
    output: str = ""
    layer: Layer | None = None
    trouble: str = ""

    @property
    def agrees(self) -> bool:
        return self.difference <= self.allowed


@dataclass
class Reference:
    """What a model means on one input, and how far rounding to float32 carries it from that."""

    compiled: Compiled
    weights: Weights
    inputs: Mapping[str, Array]
    graph: Graph = field(init=False)
    expected: list[Array] = field(init=False)
    noise: list[float] | None = None

    def __post_init__(self) -> None:
        self.graph = self.compiled.graph.live(training=False)
        self.expected = self._run(numpy.float64)

    @property
    def names(self) -> list[str]:
        """The name of each output tensor; those of a list are numbered."""
        every = [(output.name, leaves(output.value)) for output in self.graph.outputs]
        return [f"{name}.{k}" if len(found) > 1 else name for name, found in every for k in range(len(found))]

    def allowed(self, runner: Runner) -> list[float]:
        """The largest difference of each output that is none, over its largest value."""
        if runner.dtype == "float64":
            return [runner.tolerance for _ in self.expected]
        if self.noise is None:
            runs = [self._run(numpy.float32, backwards) for backwards in (False, True)]
            self.noise = [max(map(distance, pair, (e, e))) for *pair, e in zip(*runs, self.expected, strict=True)]
        return [max(NOISE * noise, FLOOR) for noise in self.noise]

    def _run(
        self, dtype: type[numpy.floating], backwards: bool = False, watch: reference.Watch | None = None
    ) -> list[Array]:
        tensors = reference.stored(self.weights)
        with numpy.errstate(all="ignore"):
            return reference.outputs(self.graph, tensors, self.inputs, dtype=dtype, backwards=backwards, watch=watch)

    def judge(self, runner: Runner, path: Path) -> Verdict:
        """Run an artefact and compare; on a difference, look for the first layer."""
        artefact = Artefact(path, self.compiled, self.weights)
        doing(f"running {self.compiled.title} in {runner.name}")
        try:
            found = runner.run(artefact, self.inputs)
        except Exception as error:  # whatever a runtime finds wrong with a model
            return Verdict(runner, inf, 0, trouble=f"it cannot be run: {type(error).__name__}: {error}")
        if [a.shape for a in found] != [e.shape for e in self.expected]:
            shapes = [", ".join(map(str, (a.shape for a in arrays))) or "none" for arrays in (found, self.expected)]
            return Verdict(runner, inf, 0, trouble=f"its outputs have the shapes {shapes[0]}, not {shapes[1]}")
        rows = zip(map(distance, found, self.expected), self.allowed(runner), self.names, strict=True)
        difference, allowed, name = max(rows, key=lambda row: row[0] / row[1])
        if difference <= allowed:
            return Verdict(runner, difference, allowed, name)
        layer, trouble = None, self._too_large()
        if not trouble:
            layer = self._first_parted(artefact, runner)
            trouble = "" if layer else "asked for all its intermediate values, it agrees: an optimisation of it differs"
        return Verdict(runner, difference, allowed, name, layer, trouble)

    def _too_large(self) -> str:
        batch = max(len(array) for array in self.inputs.values())
        # The reference's, a second one meanwhile, and the runtime's.
        size = 24 * batch * sum(kind.numel for node in self.graph for kind in node.types if kind.batched)
        if size <= MOST_BYTES:
            return ""
        return f"to find the layer takes {size / 2**30:.0f} GiB: try a smaller input"

    def _first_parted(self, artefact: Artefact, runner: Runner) -> Layer | None:
        """The first node whose value the artefact never computes, and nothing that follows from it either.

        Artefacts compute in their own way: a value may be there under any name, or not at all where a neighbour was
        folded into it.  So values are looked for, not names, and a node that is missing is no mistake while a result of
        it is there.
        """
        doing(f"looking for the first layer that differs in {runner.name}")
        values: dict[int, list[Array]] = {}

        def keep(node: Node, arrays: Sequence[Array]) -> None:
            # What follows from parameters alone may be folded into anything, and shows where it meets the input.
            if node.op != "input" and node.types[0].batched:
                values[node.id] = list(arrays)

        self._run(numpy.float64, watch=keep)
        noise = dict.fromkeys(values, 0.0)
        if runner.dtype == "float32":

            def watch(node: Node, arrays: Sequence[Array]) -> None:
                if node.id in values:
                    noise[node.id] = max(noise[node.id], *map(distance, arrays, values[node.id]))

            for backwards in (False, True):
                self._run(numpy.float32, backwards, watch)
        seen: list[Array] = []
        runner.run(artefact, self.inputs, seen)
        by_size: dict[int, list[Array]] = {}
        for array in seen:
            by_size.setdefault(array.size, []).append(array.reshape(-1))
        there: dict[int, bool] = {}
        for node in reversed(list(self.graph)):
            allowed = runner.tolerance if runner.dtype == "float64" else max(NOISE * noise.get(node.id, 0.0), FLOOR)
            there[node.id] = (
                node.id not in values
                or any(there[user.id] for user in self.graph.users(node.id))
                or all(_is_among(array, by_size.get(array.size, ()), allowed) for array in values[node.id])
            )
        parted = next((node for node in self.graph if not there[node.id]), None)
        return Layer(parted, _lines(self.compiled.elaborated.root, parted)) if parted else None


def distance(found: Array, expected: Array) -> float:
    """The largest absolute difference over the largest absolute value; infinite where one is no number."""
    found, expected = (
        numpy.asarray(found, numpy.float64).reshape(expected.shape),
        numpy.asarray(expected, numpy.float64),
    )
    largest = float(numpy.abs(expected).max(initial=0))
    with numpy.errstate(invalid="ignore"):
        difference = float(numpy.abs(found - expected).max(initial=0))
    if not isfinite(difference):
        return inf
    return difference / largest if largest else difference


def _is_among(value: Array, seen: Sequence[Array], allowed: float) -> bool:
    """Whether some array has the elements of a value, in its order."""
    flat = value.reshape(-1)
    limit = allowed * float(numpy.abs(flat).max(initial=0))
    some = numpy.linspace(0, flat.size - 1, min(flat.size, _SAMPLE)).astype(int)

    def near(other: Array, at: Array | slice) -> bool:
        return bool((numpy.abs(other[at] - flat[at]) <= limit).all())

    return any(near(other, some) and near(other, slice(None)) for other in seen)


def _lines(instance: Instance, node: Node) -> tuple[Span, ...]:
    """The spec's lines that lead to a node, from the model's inwards."""
    for (site, _), application in instance.applied.items():
        if node.id in application.nodes:
            return (site.span,)
        if application.child is not None and (inner := _lines(application.child, node)):
            return (site.span, *inner)
    return ()


def verify(
    compiled: Compiled,
    runners: Sequence[Runner],
    inputs: Mapping[str, Array],
    weights: Weights,
    refused: dict[str, EffspecError] | None = None,
) -> list[Verdict]:
    """Compile to each runner's target, run it, and compare with the reference; every runner has to be installed.

    Raises the EffspecError of a target that cannot express the model, or collects it in `refused` by the target's name.
    """
    judged = Reference(compiled, weights, inputs)
    verdicts = []
    for runner in runners:
        try:
            files = compiled.files(runner.target, weights, options=runner.options)
        except EffspecError as error:
            if refused is None:
                raise
            refused[runner.target] = error
            continue
        with TemporaryDirectory(prefix="effspec") as folder:
            for file in files:
                with (Path(folder) / file.name).open("wb") as stream:
                    stream.writelines(file.chunks())
            verdicts.append(judged.judge(runner, Path(folder) / files[0].name))
    return verdicts
