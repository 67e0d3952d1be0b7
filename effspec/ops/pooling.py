"""Rows of the pools: the largest or mean value of a window, or of the whole image.

Pads of a max_pool count as minus infinity.  Pads of an avg_pool count as zeros with `count_pad`; without it the mean is
taken over the real pixels of the window.  With `ceil`, a last window that sticks out counts its real pixels only (and,
with `count_pad`, its stated pad), and one that would start past the image is dropped: PyTorch's rules.
"""

from __future__ import annotations

from collections.abc import Mapping

from effspec.ir.types import TensorType
from effspec.ops.base import Argument, Attributes, Op, OpError, Types, image, pair
from effspec.ops.windows import resolve_window, window_output


def _resolve_pool(name: str, arguments: Mapping[str, object], types: Types) -> Attributes:
    attributes: Attributes = resolve_window(arguments, types)  # type: ignore[assignment]
    padding = attributes["padding"]
    assert isinstance(padding, tuple)
    for kernel, pads in zip(pair(attributes["kernel_size"]), padding, strict=True):
        widest = max(pair(pads))
        # As in PyTorch, where a dilated kernel counts without its holes.
        if 2 * widest > kernel:
            raise OpError(
                f"{name} pads {widest} around a kernel of {kernel}: at most half of the kernel may be padding",
                "pad",
                f"pad at most {kernel // 2}; zero_pad() adds zeros that count as pixels",
                code="E0411",
            )
    return attributes


def _resolve_max_pool(arguments: Mapping[str, object], types: Types) -> Attributes:
    return _resolve_pool("max_pool", arguments, types)


def _resolve_avg_pool(arguments: Mapping[str, object], types: Types) -> Attributes:
    attributes = dict(_resolve_pool("avg_pool", arguments, types))
    del attributes["dilation"]
    return attributes


def _max_pool_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((types[0].shape[0], *window_output(types, attributes, "max_pool"))),)


def _avg_pool_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    window = {**attributes, "dilation": (1, 1)}
    return (TensorType((types[0].shape[0], *window_output(types, window, "avg_pool"))),)


def _global_avg_pool_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((image(types, "global_avg_pool")[0], 1, 1)),)


def _global_max_pool_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((image(types, "global_max_pool")[0], 1, 1)),)


def _resolve_adaptive(arguments: Mapping[str, object], types: Types) -> Attributes:
    return {"output_size": arguments["size"]}  # type: ignore[dict-item]


def _adaptive_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((image(types, "adaptive_avg_pool")[0], *pair(attributes["output_size"]))),)


_K = Argument("k", "pair")
_S = Argument("s", "pair")
_PAD = Argument("pad", "pad", "default.pad")
_CEIL = Argument("ceil", "bool", False)
_WINDOW = ("kernel_size", "stride", "padding", "pad_mode")

ROWS = (
    Op(
        "max_pool",
        "pooling",
        "The largest value of each window; pads never win.",
        _max_pool_type,
        (_K, _S, _PAD, Argument("dil", "pair", 1), _CEIL),
        resolve=_resolve_max_pool,
        attributes=(*_WINDOW, "dilation", "ceil"),
    ),
    Op(
        "avg_pool",
        "pooling",
        "The mean of each window; pads count as zeros with `count_pad` and not at all without.",
        _avg_pool_type,
        (_K, _S, _PAD, _CEIL, Argument("count_pad", "bool", False)),
        resolve=_resolve_avg_pool,
        linear=True,
        attributes=(*_WINDOW, "ceil", "count_pad"),
    ),
    Op(
        "global_avg_pool",
        "pooling",
        "The mean of each channel, as an image of one pixel.",
        _global_avg_pool_type,
        linear=True,
    ),
    Op(
        "global_max_pool",
        "pooling",
        "The largest value of each channel, as an image of one pixel.",
        _global_max_pool_type,
    ),
    Op(
        "adaptive_avg_pool",
        "pooling",
        "Means of a grid of `size` windows: window i spans floor(i * n / size) to ceil((i + 1) * n / size).",
        _adaptive_type,
        (Argument("size", "pair"),),
        resolve=_resolve_adaptive,
        linear=True,
        attributes=("output_size",),
    ),
)
