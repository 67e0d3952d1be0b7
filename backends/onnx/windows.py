"""Rules of the ONNX operators that look at an image through windows, pad it or resize it."""

from __future__ import annotations

from fractions import Fraction

from effspec.backends.onnx.parts import Builder, Number, Unsupported

from effspec.ir.graph import Attribute, Node
from effspec.ops.base import integer, pair


def stated_pads(value: Attribute) -> tuple[int, int, int, int]:
    """((top, bottom), (left, right)) in ONNX's order: top, left, bottom, right."""
    assert isinstance(value, tuple)
    (top, bottom), (left, right) = (pair(ends) for ends in value)
    return top, left, bottom, right


def _window(b: Builder, node: Node, dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pads with which rounding down gives the sizes that `ceil` gives: more at the end, or as they are."""
    pads = stated_pads(node.attributes["padding"])
    if not node.attributes["ceil"]:
        return pads
    ends = []
    sizes, results = b.types(node)[0].shape[1:], node.types[0].shape[1:]
    kernel, stride = pair(node.attributes["kernel_size"]), pair(node.attributes["stride"])
    for size, out, k, s, d, before, after in zip(
        sizes, results, kernel, stride, dilation, pads[:2], pads[2:], strict=True
    ):
        ends.append(max(after, (out - 1) * s + d * (k - 1) + 1 - size - before))
    return *pads[:2], ends[0], ends[1]


def max_pool(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    a = node.attributes
    dilation = pair(a["dilation"])
    b.last(
        "MaxPool",
        x[0],
        dilations=dilation,
        kernel_shape=pair(a["kernel_size"]),
        pads=_window(b, node, dilation),
        strides=pair(a["stride"]),
    )


def avg_pool(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    a = node.attributes
    stated, pads = stated_pads(a["padding"]), _window(b, node, (1, 1))
    y, count = x[0], bool(a["count_pad"]) and any(stated)
    if count and pads != stated:
        # The stated pad counts and what the ceiling adds does not: the stated zeros become pixels.
        y = b.step("Pad", y, b.ints(0, 0, *stated[:2], 0, 0, *stated[2:]), b.real(0))
        pads, count = (0, 0, pads[2] - stated[2], pads[3] - stated[3]), False
    b.last(
        "AveragePool",
        y,
        count_include_pad=int(count),
        kernel_shape=pair(a["kernel_size"]),
        pads=pads,
        strides=pair(a["stride"]),
    )


def adaptive_avg_pool(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    sizes, outs = b.types(node)[0].shape[1:], pair(node.attributes["output_size"])
    if outs == (1, 1):
        b.last("GlobalAveragePool", x[0])
    elif not any(size % out for size, out in zip(sizes, outs, strict=True)):
        step = (sizes[0] // outs[0], sizes[1] // outs[1])
        b.last("AveragePool", x[0], kernel_shape=step, strides=step)
    else:
        # Windows of uneven sizes: a matrix of weights for the rows, another for the columns.
        rows = b.matrix(f"means/{outs[0]}x{sizes[0]}", (outs[0], sizes[0]), _means(sizes[0], outs[0]))
        columns = _means(sizes[1], outs[1])
        across = tuple(columns[o * sizes[1] + i] for i in range(sizes[1]) for o in range(outs[1]))
        matrix = b.matrix(f"means_transposed/{sizes[1]}x{outs[1]}", (sizes[1], outs[1]), across)
        b.last("MatMul", b.step("MatMul", rows, x[0]), matrix)


def _means(size: int, out: int) -> tuple[Number, ...]:
    """Row o averages elements floor(o * size / out) to ceil((o + 1) * size / out)."""
    values: list[Number] = []
    for o in range(out):
        start, stop = o * size // out, -(-(o + 1) * size // out)
        values += [Fraction(1, stop - start) if start <= i < stop else 0 for i in range(size)]
    return tuple(values)


def dynamic_conv(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    """ONNX has one weight for all images: a matrix product of each image's weight and the windows that it meets."""
    a, (channels, *_), weight = node.attributes, b.types(node)[0].shape, b.types(node)[1].shape
    groups, (height, width) = integer(a["groups"]), node.types[0].shape[1:]
    (top, left, bottom, right), (down, across) = stated_pads(a["padding"]), pair(a["stride"])
    (rows, columns), (row, column) = weight[2:], pair(a["dilation"])
    padded = x[0]
    if top or left or bottom or right:
        padded = b.step("Pad", padded, b.ints(0, 0, top, left, 0, 0, bottom, right), b.real(0))
    axes, steps = b.ints(2, 3), b.ints(down, across)
    taps = []
    for y in (i * row for i in range(rows)):
        for z in (j * column for j in range(columns)):
            stops = b.ints(y + (height - 1) * down + 1, z + (width - 1) * across + 1)
            tap = b.step("Slice", padded, b.ints(y, z), stops, axes, steps)
            taps.append(b.step("Reshape", tap, b.ints(0, channels, 1, height * width)))
    windows = b.step("Concat", *taps, axis=2) if len(taps) > 1 else taps[0]
    per_group = channels // groups * rows * columns
    right_side = b.step("Reshape", windows, b.ints(0, groups, per_group, height * width))
    left_side = b.step("Reshape", x[1], b.ints(0, groups, weight[0] // groups, per_group))
    product = b.step("MatMul", left_side, right_side)
    b.last("Reshape", product, b.ints(0, *node.types[0].shape))


def zero_pad(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    top, left, bottom, right = stated_pads(node.attributes["pad"])
    b.last("Pad", x[0], b.ints(0, 0, top, left, 0, 0, bottom, right), b.real(0))


def resize(b: Builder, node: Node, x: tuple[str, ...]) -> None:
    sizes, outs = b.types(node)[0].shape[1:], pair(node.attributes["size"])
    ratios = [Fraction(out, size) for out, size in zip(outs, sizes, strict=True)]
    # Other ratios are rounded in float32, where a position could land on the pixel before.
    exact = all(ratio.denominator.bit_count() == 1 for ratio in ratios)
    if node.attributes["mode"] == "nearest" and not exact:
        rows = b.step("Gather", x[0], b.ints(*(i * sizes[0] // outs[0] for i in range(outs[0]))), axis=2)
        b.last("Gather", rows, b.ints(*(i * sizes[1] // outs[1] for i in range(outs[1]))), axis=3)
        return
    how: dict[str, int | float | str | tuple[int, ...]]
    if node.attributes["mode"] == "nearest":
        how = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
    else:
        corners = "align_corners" if node.attributes["align_corners"] else "half_pixel"
        how = {"coordinate_transformation_mode": corners, "mode": "linear"}
    if exact:
        b.last("Resize", x[0], "", b.scales(Fraction(1), Fraction(1), *ratios), **how)
    elif b.opset >= 18:
        b.last("Resize", x[0], "", "", b.ints(*outs), axes=(2, 3), **how)
    else:
        raise Unsupported(
            f"resize from {sizes[0]} x {sizes[1]} to {outs[0]} x {outs[1]} is not exact below opset 18",
            "choose opset 18 or later",
        )
