"""The functions of `torch` and `torch.nn.functional` on symbolic tensors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from effspec.backends.torch.proof.tensors import Batch, Folded, Session, Tensor, pads_of, pair_of, unary
from effspec.backends.torch.proof.values import ShapeError, Value


def conv2d(
    x: Any,
    weight: Any,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: Any = 1,
) -> Any:
    if isinstance(x, Folded) or isinstance(weight, Folded) or isinstance(groups, Batch):
        return _each_conv2d(x, weight, bias, stride, padding, dilation, groups)
    return Tensor(
        Session.values.conv(
            x.value,
            weight.value,
            None if bias is None else bias.value,
            pair_of(stride),
            pads_of(padding),
            pair_of(dilation),
            groups,
        )
    )


def _each_conv2d(
    x: Any, weight: Any, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Folded:
    """Every image with its own weight: one convolution of the batch's images and weights, in groups of each."""
    images = isinstance(x, Folded) and x.image
    weights = isinstance(weight, Folded) and not weight.image
    if not images or not weights or not isinstance(groups, Batch) or bias is not None:
        raise ShapeError("a convolution of a batch in the channels with a weight that has none there")
    numbers = pair_of(stride), pads_of(padding), pair_of(dilation), groups.times
    return Folded(Session.values.conv(x.value, weight.value, None, *numbers), image=True)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    return Tensor(
        Session.values.conv_transpose(
            x.value,
            weight.value,
            None if bias is None else bias.value,
            pair_of(stride),
            pads_of(padding),
            pair_of(output_padding),
            pair_of(dilation),
            groups,
        )
    )


def value_of(tensor: Tensor | None) -> Value | None:
    return None if tensor is None else tensor.value


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return Tensor(Session.values.linear(x.value, weight.value, value_of(bias)))


def layer_norm(
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    rank = len(x.value.shape)
    axes = tuple(range(rank - len(sizes), rank))
    if not axes or axes[0] < 0 or x.value.shape[axes[0] :] != sizes:
        raise ShapeError(f"layer_norm of {sizes} on {x.value.shape}")
    return Tensor(Session.values.layer_norm(x.value, axes, value_of(weight), value_of(bias), eps))


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    return Tensor(Session.values.group_norm(x.value, num_groups, value_of(weight), value_of(bias), eps))


def max_pool2d(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Tensor:
    kernel = pair_of(kernel_size)
    strides = kernel if stride is None else pair_of(stride)
    return Tensor(Session.values.max_pool(x.value, kernel, strides, pads_of(padding), pair_of(dilation), ceil_mode))


def avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    kernel = pair_of(kernel_size)
    strides = kernel if stride is None else pair_of(stride)
    return Tensor(Session.values.avg_pool(x.value, kernel, strides, pads_of(padding), ceil_mode, count_include_pad))


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    return Tensor(Session.values.adaptive_avg_pool(x.value, pair_of(output_size)))


def adaptive_max_pool2d(x: Tensor, output_size: Any) -> Tensor:
    if pair_of(output_size) != (1, 1):
        raise ShapeError("adaptive_max_pool2d to more than one pixel")
    return Tensor(Session.values.reduce("reduce_max", x.value, (1, 2)))


def pad(x: Tensor, pad: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    left, right, top, bottom = pad
    return Tensor(Session.values.pad(x.value, ((top, bottom), (left, right)), value))


def interpolate(
    x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    if (size is None) == (scale_factor is None) or (mode == "nearest" and align_corners is not None):
        raise ValueError("interpolate takes a size or a scale, and align_corners with bilinear only")
    if size is None:
        scales = (scale_factor, scale_factor) if isinstance(scale_factor, int | float) else scale_factor
        found = [side * scale for side, scale in zip(x.value.shape[1:], scales, strict=True)]
        if any(side != int(side) for side in found):
            raise ShapeError(f"interpolate to {found}, not whole pixels")
        size = tuple([int(side) for side in found])
    return Tensor(Session.values.resize(x.value, pair_of(size), mode, bool(align_corners)))


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return Tensor(Session.values.drop("dropout", x.value, p)) if training else x


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("relu", x)


def relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("relu6", x)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("silu", x)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("mish", x)


def sigmoid(x: Tensor) -> Tensor:
    return unary("sigmoid", x)


def hardsigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("hard_sigmoid", x)


def hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    return unary("hard_swish", x)


def tanh(x: Tensor) -> Tensor:
    return unary("tanh", x)


def softplus(x: Tensor) -> Tensor:
    return unary("softplus", x)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    return unary("gelu", x, approximate == "tanh")


def leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return unary("leaky_relu", x, negative_slope)


def elu(x: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return unary("elu", x, alpha)


def softmax(x: Tensor, dim: int) -> Tensor:
    return x.softmax(dim)


def cat(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
    xs = list(tensors)
    return Tensor(Session.values.concat([x.value for x in xs], xs[0].axis(dim)))


def stack(tensors: Iterable[Tensor], dim: int = 0) -> Tensor:
    return cat([x.unsqueeze(dim) for x in tensors], dim)
