"""`effspec weights`: checkpoints of other code bases, and initial values, as safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from effspec import output
from effspec.progress import doing
from effspec.report import quantity

if TYPE_CHECKING:
    from effspec.backend import Weights
    from effspec.pipeline import Compiled


def convert(
    compiled: Compiled, checkpoint: str, path: str, *, part: str | None = None, force: bool = False
) -> Iterator[str]:
    """Move a checkpoint, or a part of it, to the model's names; yields what to print."""
    from effspec.weights.checkpoint import load
    from effspec.weights.convert import Moved
    from effspec.weights.convert import convert as matched

    output.check(Path(path), inputs=[checkpoint, *compiled.inputs()])
    doing(f"matching {Path(checkpoint).name} by structure and shape")
    file = load(checkpoint, part)
    matching = matched(file.shapes, compiled.graph)
    yield from matching.lines()
    yield _write(compiled, Moved(file, matching), path, force)


def initial(compiled: Compiled, path: str, *, seed: int = 0, force: bool = False) -> Iterator[str]:
    """Write the seeded initial values; yields what to print."""
    output.check(Path(path), inputs=compiled.inputs())
    yield _write(compiled, compiled.weights(seed=seed), path, force)


def _write(compiled: Compiled, weights: Weights, path: str, force: bool) -> str:
    from effspec.weights.safetensors import chunks

    # Which function the numbers are for, and which models they fit.
    metadata = {
        "producer": "effspec",
        "model": compiled.title,
        "function": compiled.hash,
        "weights": compiled.hashes["weights"],
    }
    place = Path(path)
    named = {parameter.path: parameter for parameter in compiled.graph.parameters(training=True, buffers=True)}
    shapes = {name: parameter.shape for name, parameter in named.items()}

    def content() -> Iterator[bytes | memoryview]:
        return chunks(shapes, lambda name: weights.tensor(named[name]), metadata)

    if not force:
        output.protect(place, content())
    size = sum(4 * prod(shape) for shape in shapes.values())
    output.write_atomically(place, content(), size)
    return f"wrote {path} ({quantity(place.stat().st_size, 'B')})"
