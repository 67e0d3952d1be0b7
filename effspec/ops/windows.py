"""Arithmetic of sliding windows: pads, and the size of what comes out.

TensorFlow's SAME puts the odd row or column at the bottom and to the right, and depends on the size of the input:
the result has ceil(size / stride) elements (`facts`: 224 with kernel 3 and stride 2 pads (0, 1), 225 pads (1, 1)).
"""

from __future__ import annotations

from collections.abc import Mapping

from effspec.ops.base import Attributes, OpError, Types, image, show


def resolve_window(arguments: Mapping[str, object], types: Types) -> dict[str, object]:
    """`k s dil pad` of a convolution or pool as `kernel_size stride dilation padding pad_mode`."""
    out = {name: value for name, value in arguments.items() if name not in ("k", "s", "dil", "pad")}
    _, height, width = image(types, "a window")
    kernel: tuple[int, int] = arguments["k"]  # type: ignore[assignment]
    stride: tuple[int, int] = arguments["s"]  # type: ignore[assignment]
    dilation: tuple[int, int] = arguments.get("dil", (1, 1))  # type: ignore[assignment]
    pad = arguments["pad"]
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if pad == "half":
        if any(extent % 2 == 0 for extent in extents):
            raise OpError(
                f'`pad = "half"` needs an odd kernel, found {kernel[0]} x {kernel[1]}'
                + (f" dilated to {extents[0]} x {extents[1]}" if dilation != (1, 1) else ""),
                "k",
                'state the pad: `pad = 0`, `pad = "same"` or `pad = [[top, bottom], [left, right]]`',
                code="E0411",
            )
        padding = tuple(((extent - 1) // 2, (extent - 1) // 2) for extent in extents)
    elif pad == "same":
        totals = [
            max((-(-size // step) - 1) * step + extent - size, 0)
            for size, step, extent in zip((height, width), stride, extents, strict=True)
        ]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    else:
        padding = pad  # type: ignore[assignment]
    return out | {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "pad_mode": pad if isinstance(pad, str) else "explicit",
        "dilation": dilation,
    }


def window_output(types: Types, attributes: Attributes, op: str) -> tuple[int, int]:
    """Height and width after a sliding window with resolved pads."""
    _, *sizes = image(types, op)
    kernel, stride, dilation = attributes["kernel_size"], attributes["stride"], attributes["dilation"]
    padding = attributes["padding"]
    assert isinstance(kernel, tuple) and isinstance(stride, tuple) and isinstance(dilation, tuple)
    assert isinstance(padding, tuple)
    out = []
    for size, k, s, d, pads in zip(sizes, kernel, stride, dilation, padding, strict=True):
        assert isinstance(k, int) and isinstance(s, int) and isinstance(d, int) and isinstance(pads, tuple)
        before, after = pads
        assert isinstance(before, int) and isinstance(after, int)
        extent = d * (k - 1) + 1
        space = size + before + after - extent
        if space < 0:
            raise OpError(
                f"the kernel of {op} does not fit: it spans {extent}, the padded image {size + before + after}",
                "k",
                f"the image is {show(types[0].shape)} here; a larger input size, a smaller kernel or more pad fits",
                code="E0412",
            )
        if attributes.get("ceil"):
            count = -(-space // s) + 1
            # A window that starts past the image and its leading pad sees padding only: PyTorch drops it.
            if (count - 1) * s >= size + before:
                count -= 1
        else:
            count = space // s + 1
        out.append(count)
    return out[0], out[1]
