"""`effspec weights`: initial values and checkpoints of other code bases as safetensors files; what is in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from effspec import output
from effspec.identity import short
from effspec.progress import doing
from effspec.report import WIDTH, quantity, shape
from effspec.weights import classes
from effspec.weights.store import nbytes

if TYPE_CHECKING:
    from effspec.backend import Weights
    from effspec.pipeline import Compiled
    from effspec.weights.convert import Matching
    from effspec.weights.difference import Difference
    from effspec.weights.store import TensorFile


class Converted(NamedTuple):
    """What was moved from where, the class names that went along, and the lines that say so."""

    matching: Matching
    class_names: classes.Names
    lines: tuple[str, ...]


def convert(
    compiled: Compiled,
    checkpoint: str,
    path: str,
    *,
    part: str | None = None,
    new_head: bool = False,
    class_names: str | None = None,
    seed: int = 0,
    force: bool = False,
) -> Converted:
    """Move a checkpoint, or a part of it, to the model's names."""
    from effspec.weights.checkpoint import load
    from effspec.weights.convert import Moved
    from effspec.weights.convert import convert as matched
    from effspec.weights.head import lines

    output.check(Path(path), inputs=[checkpoint, *compiled.inputs(), *filter(None, [class_names])])
    doing(f"matching {Path(checkpoint).name} by structure and shape")
    file = load(checkpoint, part)
    names = classes.read(class_names) if class_names is not None else classes.of(file)
    matching = matched(file.shapes, compiled.graph, new_head=new_head)
    said = matching.lines() + (lines(matching.new, seed) if new_head else [])
    if class_names is None and names and matching.new:
        said.append(f"its {len(names):,} class names are left out")
        names = ()
    where = class_names or checkpoint
    if classes.check(names, compiled.graph, where):
        said.append(f"{len(names):,} class names, from {where}")
    said.append(_write(compiled, Moved(file, matching, seed), path, force, classes.metadata(names)))
    return Converted(matching, names, tuple(said))


def initial(compiled: Compiled, path: str, *, seed: int = 0, force: bool = False) -> Iterator[str]:
    """Write the seeded initial values; yields what to print."""
    output.check(Path(path), inputs=compiled.inputs())
    yield _write(compiled, compiled.weights(seed=seed), path, force, {"seed": str(seed)})


def _write(compiled: Compiled, weights: Weights, path: str, force: bool, more: dict[str, str]) -> str:
    from effspec.weights.safetensors import chunks

    # Which function the numbers are for, and which models they fit.
    metadata = {
        "producer": "effspec",
        "spec": Path(compiled.module.name).name,
        "model": compiled.title,
        "function": compiled.hash,
        "weights": compiled.hashes["weights"],
    } | more
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


def shown(file: TensorFile) -> Iterator[str]:
    """The lines of `show`: what the file is, what it says about itself, a line a tensor, the total."""
    rows = [(name, shape(sizes), file.dtypes[name], nbytes(file, name)) for name, sizes in file.shapes.items()]
    total = sum(size for *_, size in rows)
    yield f"{file.path.name}: {file.kind}, {quantity(file.path.stat().st_size, 'B')}"
    yield from _about(file.metadata)
    widths = [max(map(len, ["shape", *(row[1] for row in rows)])), max(map(len, ["type", *(row[2] for row in rows)]))]

    def line(name: str, *rest: str) -> Iterator[str]:
        yield from _row(name, f"  {rest[0]:<{widths[0]}}  {rest[1]:<{widths[1]}}  {rest[2]:>8}")

    yield from line("tensor", "shape", "type", "size")
    for name, sizes, dtype, size in rows:
        yield from line(name, sizes, dtype, quantity(size, "B"))
    kinds = Counter(dtype for _, _, dtype, _ in rows)
    elements = sum(map(prod, file.shapes.values()))
    listed = ", ".join(f"{count} {dtype}" for dtype, count in kinds.most_common())
    yield from _row(f"{_tensors(len(rows))} ({listed}), {elements:,} elements", f"  {quantity(total, 'B'):>8}")


def compared(first: TensorFile, second: TensorFile, found: Difference) -> Iterator[str]:
    """The lines of `diff`: what only one file has, what differs in kind, what differs in its numbers, what is equal."""
    for file, names in ((first, found.only_first), (second, found.only_second)):
        if names:
            yield f"only in {file.path} ({len(names)})"
            for name in names:
                yield from _row(f"  {name}", f"  {shape(file.shapes[name])}")
    for what, names, said in (
        ("another shape", found.shapes, lambda file, name: shape(file.shapes[name])),
        ("another element type", found.dtypes, lambda file, name: file.dtypes[name]),
    ):
        if names:
            yield f"of {what} ({len(names)})"
            for name in names:
                yield from _row(f"  {name}", f"  {said(first, name)} | {said(second, name)}")
    if found.changes:
        yield from _row(f"of other numbers ({len(found.changes)})", f"{'elements':>22}  {'largest':>8}  relative")
        for change in found.changes:
            count = f"{change.count:,} of {prod(change.shape):,}"
            yield from _row(f"  {change.name}", f"{count:>22}  {change.absolute:>8.1e}  {change.relative:>8.1e}")
    if found.equal:
        yield f"equal: {_tensors(found.equal)}"


def _about(metadata: Mapping[str, str]) -> Iterator[str]:
    """What a file says about itself, first of all which model it is for."""
    rest = dict(metadata)
    if rest.get("producer") == "effspec" and "model" in rest:
        del rest["producer"]
        spec = f" of {rest.pop('spec')}" if "spec" in rest else ""
        yield f"  written by effspec for {rest.pop('model')}{spec}"
        hashes = [f"{name} {short(rest.pop(name))}" for name in ("function", "weights") if name in rest]
        if hashes:
            yield "  " + ", ".join(hashes)
    for key, value in rest.items():
        value = value if key != classes.KEY else value.strip("[]")
        text = f"  {key}: {' '.join(value.split())}"
        yield text if len(text) <= WIDTH else text[: WIDTH - 4] + " ..."


def _row(name: str, rest: str) -> Iterator[str]:
    """A name, and columns that end at the right margin; a name that reaches into them has a line of its own."""
    if len(name) + len(rest) > WIDTH:
        yield name
        name = ""
    yield f"{name:<{WIDTH - len(rest)}}{rest}".rstrip()


def _tensors(count: int) -> str:
    return f"{count:,} tensor{'s' * (count != 1)}"
