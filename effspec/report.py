"""What commands print for people: a few lines after compiling, and the stage table; at most 80 columns."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from effspec.identity import short
from effspec.nearest import Nearest, nearest
from effspec.values import Number, is_number, show

if TYPE_CHECKING:
    from effspec.backend import Backend
    from effspec.pipeline import Compiled

WIDTH = 80
_PREFIXES = "kMGTPE"


def shape(sizes: tuple[int, ...]) -> str:
    """`3 x 260 x 260`."""
    return " x ".join(map(str, sizes)) or "scalar"


def quantity(number: int, unit: str = "") -> str:
    """Three digits and a prefix: `14.6 M`, `993 k`, `0`."""
    if number < 1000:
        return f"{number} {unit}".rstrip()
    power = 1
    # 999.7 would print as 1000.
    while number >= 999.5 * 1000**power and power < len(_PREFIXES):
        power += 1
    value = number / 1000**power
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {_PREFIXES[power - 1]}{unit}"


def headline(compiled: Compiled) -> str:
    """`EfficientNet  phi 2: depth x1.44, width x1.21, input 3 x 296 x 296`."""
    inputs = ", ".join(
        f"{'input' if len(compiled.input_shapes) == 1 else name} {shape(sizes)}"
        for name, sizes in compiled.input_shapes.items()
    )
    values = compiled.elaborated.parameters
    settings = {setting.name for setting in compiled.request.settings}
    given = [f"{name} {show(value.value)}" for name, value in values.items() if name in settings]
    decided = [
        f"{name} {_times(compiled, name)}{brief(value.value)}"
        for name, value in values.items()
        if value.reads & settings and name not in settings and is_number(value.value)
    ]
    if compiled.with_preprocessing:
        inputs += " with values from 0 to 255"
    return f"{compiled.point}  " + ": ".join(filter(None, [", ".join(given), ", ".join([*decided, inputs])]))


def _times(compiled: Compiled, name: str) -> str:
    """The sign before a number of the scaling rule, which multiplies what the model states."""
    return "" if name in {parameter.name.id for parameter in compiled.elaborated.model.parameters} else "x"


def brief(value: Number) -> str:
    """A number with at most five digits."""
    return f"{float(value):.5g}"


def summary(compiled: Compiled) -> Iterator[str]:
    """The lines after a compilation, but where it was written."""
    yield headline(compiled)
    blocks = f"   {compiled.elaborated.blocks} blocks" if compiled.elaborated.blocks else ""
    yield (
        f"  {compiled.params:,} parameters   {quantity(compiled.macs)} multiply-adds{blocks}"
        f"   function {short(compiled.hash)}"
    )
    near = nearest(compiled.module, compiled.name, compiled.request, compiled.elaborated.parameters)
    if near is not None:
        yield "  " + near_line(compiled, near)


def near_line(compiled: Compiled, near: Nearest) -> str:
    """What the settings mean beside the published points."""
    point = ", ".join(f"{name} {_times(compiled, name)}{show(value)}" for name, value in near.point.items())
    names = ", ".join(setting.name for setting in compiled.request.settings)
    ends = near.published[0] + (f" ... {near.published[-1]}" if len(near.published) > 1 else "")
    phi = next((setting.name for setting in compiled.request.settings if setting.name == "phi"), None)
    rule = f"{phi} is the paper's formula" if phi else f"{names} set by hand"
    return f"nearest published: {near.variant} ({point}); {rule}, the published models are --variant {ends}"


def table(compiled: Compiled, width: int = WIDTH) -> Iterator[str]:
    """The stage table: a line of the spec a row, then the total."""
    from effspec import stages

    title = " ".join(filter(None, [compiled.point, compiled.scale]))
    inputs = ", ".join(shape(sizes) for sizes in compiled.input_shapes.values())
    yield f"{title:<{width - len(inputs) - 1}} {inputs}"
    rows = stages.stages(compiled.elaborated, compiled.cost)
    outs = [",".join("x".join(map(str, kind.shape)) for kind in row.cost.types) for row in rows]
    # The usual length: a longer label moves its own line only.
    usual = Counter(len(row.label) for row in rows if row.written).most_common(1)
    label_width = usual[0][0] if usual else 0
    out_width = min(max([3, *map(len, outs)]), 14)
    params_width = max(6, len(f"{compiled.params:,}"))
    what = width - 32 - out_width - params_width

    def line(number: str, text: str, repeats: str, out: str, params: str, *others: str) -> str:
        start = f"{number:>4} {_cut(text, what):<{what}}{repeats:>4} {_cut(out, out_width):<{out_width}}"
        return start + f" {params:>{params_width}}" + "".join(f"{other:>7}" for other in others)

    yield line("line", "what", "", "out", "params", "MACs", "acts", "peak")
    for row, out in zip(rows, outs, strict=True):
        text = f"{row.label:<{label_width}} {stages.summary(row)}" if row.written else stages.summary(row)
        repeats = f"x{row.repeats}" if row.repeats is not None else ""
        counts = [_short(count) for count in (row.cost.macs, row.cost.acts, row.cost.peak)]
        yield line(str(row.line), text, repeats, out, f"{row.cost.params:,}", *counts)
    cost = compiled.cost
    totals = [_short(count) for count in (cost.macs, cost.acts, cost.peak)]
    yield line("", "total", "", "", f"{cost.params:,}", *totals)
    if cost.training_params != cost.params:
        yield f"with what exists in training only: {cost.training_params:,} parameters"
    yield "acts: elements made by convolutions, linear layers and pools; peak: bytes of the"
    yield f"tensors alive at once in float32, without the parameters ({quantity(cost.weights, 'B')})"


def options_of(backend: Backend) -> Iterator[str]:
    """What may be chosen of a target, with the defaults."""
    for name, option in backend.options.items():
        default = str(option.default).lower() if isinstance(option.default, bool) else option.default
        text = f"{name} = {default}: {option.doc} ({option.legal})"
        yield from textwrap.wrap(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12)


def _short(number: int) -> str:
    return quantity(number).replace(" ", "")


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 2] + ".."
