"""`effspec verify`: whether every target that can run here computes what the graph means, and which layer does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import TYPE_CHECKING

import numpy

from effspec import backend as backends
from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, fail
from effspec.runtime import pictures
from effspec.runtime.reference import Awake, random_inputs
from effspec.runtime.runners import Runner, runners
from effspec.runtime.verify import Verdict, verify

if TYPE_CHECKING:
    from effspec.ops.meaning import Array
    from effspec.pipeline import Compiled

_HEAD = ("target", "runs in", "difference", "allowed")


@dataclass(frozen=True)
class Result:
    """What each runtime made of the same input, targets that cannot express the model, and what is not installed."""

    compiled: Compiled
    weights: str | None
    images: tuple[str, ...]
    batch: int
    seed: int
    verdicts: tuple[Verdict, ...]
    refused: Mapping[str, EffspecError]
    missing: tuple[Runner, ...]

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(_problem(verdict) for verdict in self.verdicts if not verdict.agrees)

    def lines(self) -> list[str]:
        """A table: a runtime a line."""
        given = f"{self.batch} picture{'s' * (self.batch != 1)}" if self.images else f"{self.batch} random"
        numbers = f"the weights of {self.weights}" if self.weights else "weights drawn so that every part shows"
        rows = [_HEAD]
        for verdict in self.verdicts:
            found = "does not run" if isinf(verdict.difference) and verdict.trouble else f"{verdict.difference:.1e}"
            rows.append((verdict.runner.target, verdict.runner.title, found, f"{verdict.allowed:.1e}"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        table = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
        absent = [
            f"  {target:<{widths[0]}}  cannot express it: {error.diagnostics[0].message}"
            for target, error in self.refused.items()
        ]
        absent += [f"  {runner.target:<{widths[0]}}  {runner.state}" for runner in self.missing]
        said = f"on {given} input{'s' * (self.batch != 1)}" if not self.images else f"on {given}"
        return [f"{self.compiled.title} {said}, {numbers}", *table, *absent]


def check(
    compiled: Compiled,
    *,
    targets: str | None = None,
    weights: str | None = None,
    images: Sequence[str] = (),
    batch: int = 1,
    seed: int = 0,
    place: Span | None = None,
) -> Result:
    """Run the targets (names with commas between them, `place` is where they are given; all if None) and compare."""
    chosen = _chosen(targets, place)
    baked = compiled.with_preprocessing
    inputs = _pictures(compiled, images) if images else random_inputs(compiled.graph, batch, seed, pictures=baked)
    source = compiled.weights(weights) if weights is not None else Awake(compiled.graph, seed, pictures=baked)
    here = [runner for runner in chosen if runner.version is not None]
    refused: dict[str, EffspecError] = {}
    verdicts = verify(compiled, here, inputs, source, refused if targets is None else None)
    if not verdicts and refused:
        raise next(iter(refused.values()))
    missing = tuple(runner for runner in chosen if runner.version is None)
    return Result(compiled, weights, tuple(images), len(images) or batch, seed, tuple(verdicts), refused, missing)


def _chosen(targets: str | None, place: Span | None) -> list[Runner]:
    if targets is None:
        return list(runners())
    chosen = []
    for target in filter(None, targets.split(",")):
        backends.find(target)
        found = list(runners(target))
        if not any(runner.version for runner in found):
            help = " or ".join(f"pip install {runner.install}" for runner in found) or None
            why = "its runtime is not installed" if found else "nothing runs what it writes"
            raise fail("E0721", f"target `{target}` cannot run here: {why}", place, help=help)
        chosen += found
    return chosen


def _pictures(compiled: Compiled, images: Sequence[str]) -> Mapping[str, Array]:
    [*names] = compiled.input_shapes
    if len(names) != 1:
        inputs = ", ".join(names)
        raise fail("E0719", f"a picture is one input, and this model has {len(names)}: {inputs}", help="drop --image")
    wanted = compiled.prepared(names[0])
    return {names[0]: numpy.stack([pictures.read(image, wanted) for image in images])}


def _problem(verdict: Verdict) -> Diagnostic:
    runner, layer = verdict.runner, verdict.layer
    if isinf(verdict.difference) and verdict.trouble:
        return Diagnostic("E0904", f"target `{runner.target}` in {runner.title}: {verdict.trouble}")
    message = (
        f"target `{runner.target}` computes something else: in {runner.title}, `{verdict.output}` differs by "
        f"{verdict.difference:.1e} of its largest value, and {verdict.allowed:.1e} is allowed"
    )
    notes = (verdict.trouble,) if verdict.trouble else ()
    if layer is None:
        return Diagnostic("E0904", message, notes=notes)
    span = layer.node.span or layer.lines[-1]
    label = Label(span, f"the first layer that differs: `{layer.node.path}`")
    outer = [line for line in layer.lines[:1] if line.place != span.place]
    notes = (f"what comes before `{layer.node.path}` agrees; nothing that follows from it does",)
    return Diagnostic("E0904", message, label, tuple(Label(line, "in this line of the model") for line in outer), notes)
