"""`effspec cost`: what a point costs, in total and by layer, block or stage, in the words of several tools."""

from __future__ import annotations

from collections.abc import Iterator

from effspec.conventions import CONVENTIONS, counted, parts, written
from effspec.pipeline import Compiled
from effspec.report import WIDTH, quantity, shape


def lines(compiled: Compiled, by: str | None, convention: str) -> Iterator[str]:
    """The totals, and a line for each part where `by` says which."""
    cost = compiled.cost
    title = " ".join(filter(None, [compiled.point, compiled.scale]))
    inputs = ", ".join(map(shape, compiled.input_shapes.values()))
    yield f"{title:<{WIDTH - len(inputs) - 1}} {inputs}"
    buffers = f", and {cost.buffers:,} in buffers" if cost.buffers else ""
    yield f"  parameters      {cost.params:,}{buffers} ({quantity(cost.weights, 'B')} in float32)"
    for number, name in enumerate(CONVENTIONS):
        unit = " x 10^9" if name == "torchvision" else ""
        yield f"  {'' if number else 'operations':<15} {written(counted(cost, name), name)}{unit}  as {name} counts"
    yield f"  activations     {cost.acts:,} elements made by convolutions, linear layers and pools"
    yield f"  peak memory     {quantity(cost.peak, 'B')} of tensors alive at once, in float32"
    yield f"  depth           {cost.depth} convolutions and linear layers on the longest path"
    if by is None:
        return
    yield ""
    found = list(parts(cost, by, convention))
    width = max(len(part.cost.name) for part in found)

    def line(name: str, out: str, *others: str) -> str:
        params, operations, acts, peak, field = others
        return f"{name:<{width}}  {out:<14} {params:>11} {operations:>15} {acts:>11} {peak:>7} {field:>9}".rstrip()

    yield line(by, "out", "parameters", convention, "activations", "live", "sees")
    for group, operations, field in found:
        out = ",".join("x".join(map(str, kind.shape)) for kind in group.types)
        seen = f"{field[0]}x{field[1]}" if field is not None else "all"
        yield line(
            group.name, out, f"{group.params:,}", f"{operations:,}", f"{group.acts:,}", quantity(group.peak, "B"), seen
        )
