"""Rows of the operators that have weights: most own them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import prod

from effspec.ir.graph import Initializer
from effspec.ir.types import TensorType
from effspec.ops.base import (
    Argument,
    Attributes,
    Op,
    OpError,
    Tensor,
    Types,
    image,
    pair,
    resolve_axes,
    same_type,
    show,
)
from effspec.ops.windows import resolve_window, window_output

ZEROS = Initializer("constant", {"value": 0})
ONES = Initializer("constant", {"value": 1})


def _integer(attributes: Attributes, name: str) -> int:
    value = attributes[name]
    assert isinstance(value, int)
    return value


def _init(attributes: Attributes, arguments: str = "init") -> Initializer:
    value = attributes[arguments]
    assert isinstance(value, Initializer)
    return value


def _grouped_init(attributes: Attributes) -> Initializer:
    """The initialiser with the number of groups beside its arguments: the fans of a grouped convolution need it."""
    init, groups = _init(attributes), _integer(attributes, "groups")
    return init if groups == 1 else Initializer(init.kind, {**init.args, "groups": groups})


def _resolve_conv(arguments: Mapping[str, object], types: Types) -> Attributes:
    attributes = resolve_window(arguments, types)
    attributes["out_channels"] = attributes.pop("out")
    attributes.pop("weight", None)
    channels, groups = types[0].shape[0], attributes["groups"]
    assert isinstance(groups, int)
    for what, count in (("input", channels), ("output", attributes["out_channels"])):
        assert isinstance(count, int)
        if count % groups:
            raise OpError(
                f"{groups} groups do not divide {count} {what} channels",
                "groups" if what == "input" else "out",
                f"choose groups that divide both {channels} and {attributes['out_channels']}",
                code="E0413",
            )
    return attributes  # type: ignore[return-value]


def _conv_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    if len(types) == 2:
        wanted = _conv_weight_shape(types, attributes)
        if types[1].batched or types[1].shape != wanted:
            raise OpError(
                f"the layer given as `weight` makes shape {show(types[1].shape)} of a weight of shape {show(wanted)}",
                "weight",
                "a weight layer keeps the shape and reads nothing but parameters",
            )
    height, width = window_output(types, attributes, "conv")
    return (TensorType((_integer(attributes, "out_channels"), height, width)),)


def _conv_weight_shape(types: Types, attributes: Attributes) -> tuple[int, ...]:
    channels, out = types[0].shape[0], _integer(attributes, "out_channels")
    return (out, channels // _integer(attributes, "groups"), *pair(attributes["kernel_size"]))


def _conv_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    # With a second input, that input is the weight (`conv(weight = layer)`).
    tensors = {}
    if len(types) == 1:
        tensors["weight"] = Tensor(_conv_weight_shape(types, attributes), _grouped_init(attributes))
    if attributes["bias"]:
        tensors["bias"] = Tensor((_integer(attributes, "out_channels"),), ZEROS)
    return tensors


def _conv_macs(types: Types, attributes: Attributes, results: Types) -> int:
    _, height, width = results[0].shape
    return prod(_conv_weight_shape(types, attributes)) * height * width


def _resolve_dynamic_conv(arguments: Mapping[str, object], types: Types) -> Attributes:
    (channels, *_), weight, groups = image(types, "dynamic_conv"), types[1], arguments["groups"]
    assert isinstance(groups, int)
    if not weight.batched:
        raise OpError(
            "dynamic_conv needs a weight that comes from the input, found one that is computed from parameters alone",
            help="such a weight is a convolution's own: `conv(out, weight = layer)`",
        )
    kernel: tuple[int, int] = arguments["k"]  # type: ignore[assignment]
    if weight.shape[2:] != kernel:
        raise OpError(
            f"dynamic_conv needs a weight (out, channels / groups, {show(kernel)[1:-1]}), found {show(weight.shape)}",
            "k",
            f"write `k = {list(weight.shape[2:])}`" if len(weight.shape) == 4 else "reshape the weight to four axes",
        )
    out, inner = weight.shape[:2]
    if inner * groups != channels or out % groups:
        fitting = channels // inner
        raise OpError(
            f"a weight {show(weight.shape)} in {groups} {'group' if groups == 1 else 'groups'} does not fit "
            f"{channels} channels",
            "groups",
            f"write `groups = {fitting}`"
            if fitting * inner == channels and fitting and out % fitting == 0
            else "its axes are out, channels / groups, height and width, and the groups divide out, too",
            code="E0413",
        )
    return resolve_window(arguments, types)  # type: ignore[return-value]


def _dynamic_conv_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType((types[1].shape[0], *window_output(types, attributes, "dynamic_conv"))),)


def _dynamic_conv_macs(types: Types, attributes: Attributes, results: Types) -> int:
    _, height, width = results[0].shape
    return types[1].numel * height * width


def _resolve_conv_transpose(arguments: Mapping[str, object], types: Types) -> Attributes:
    if isinstance(arguments["pad"], str):
        raise OpError("conv_transpose takes its pad as a number", "pad", "write `pad = 0` or the number to cut off")
    attributes = _resolve_conv(arguments, types)
    for more, step, hole in zip(
        pair(attributes["out_pad"]), pair(attributes["stride"]), pair(attributes["dilation"]), strict=True
    ):
        if more >= max(step, hole):
            raise OpError(
                f"out_pad {more} of conv_transpose is not below the stride {step} or the dilation {hole}",
                "out_pad",
                f"choose one of the sizes that the stride leaves open: 0 to {max(step, hole) - 1}",
            )
    return attributes


def _conv_transpose_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    _, *sizes = image(types, "conv_transpose")
    padding, extra = attributes["padding"], pair(attributes["out_pad"])
    assert isinstance(padding, tuple)
    out = []
    for size, k, s, d, pads, more in zip(
        sizes,
        pair(attributes["kernel_size"]),
        pair(attributes["stride"]),
        pair(attributes["dilation"]),
        padding,
        extra,
        strict=True,
    ):
        before, after = pair(pads)
        length = (size - 1) * s - before - after + d * (k - 1) + 1 + more
        if length < 1:
            raise OpError(f"conv_transpose cuts the whole image off: {size} becomes {length}", "pad", code="E0412")
        out.append(length)
    return (TensorType((_integer(attributes, "out_channels"), *out)),)


def _conv_transpose_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    out, groups = _integer(attributes, "out_channels"), _integer(attributes, "groups")
    shape = (types[0].shape[0], out // groups, *pair(attributes["kernel_size"]))
    tensors = {"weight": Tensor(shape, _grouped_init(attributes))}
    if attributes["bias"]:
        tensors["bias"] = Tensor((out,), ZEROS)
    return tensors


def _conv_transpose_macs(types: Types, attributes: Attributes, results: Types) -> int:
    _, height, width = types[0].shape
    return prod(_conv_transpose_tensors(types, attributes)["weight"].shape) * height * width


def _resolve_linear(arguments: Mapping[str, object], types: Types) -> Attributes:
    if not types[0].shape:
        raise OpError("linear needs at least one axis, found a scalar")
    return {"out_features": arguments["out"], "bias": arguments["bias"], "init": arguments["init"]}  # type: ignore[dict-item]


def _linear_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    shape = types[0].shape
    if len(shape) == 3 and shape[0] > shape[1] * shape[2] == 1:
        # Channels are meant: nobody multiplies a single number by a matrix for each of them.
        raise OpError(
            f"linear works on the last axis, which is 1 long in {show(shape)}", help="put `flatten()` before it"
        )
    return (TensorType((*types[0].shape[:-1], _integer(attributes, "out_features")), types[0].batched),)


def _linear_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    out = _integer(attributes, "out_features")
    tensors = {"weight": Tensor((out, types[0].shape[-1]), _init(attributes))}
    if attributes["bias"]:
        tensors["bias"] = Tensor((out,), ZEROS)
    return tensors


def _linear_macs(types: Types, attributes: Attributes, results: Types) -> int:
    return types[0].numel * _integer(attributes, "out_features")


def _batch_norm_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    if not types[0].shape or not types[0].batched:
        raise OpError(f"batch_norm needs a batched tensor with channels, found shape {show(types[0].shape)}")
    return (types[0],)


def _scale_and_shift(shape: tuple[int, ...], attributes: Attributes) -> dict[str, Tensor]:
    return {"weight": Tensor(shape, _init(attributes)), "bias": Tensor(shape, ZEROS)} if attributes["affine"] else {}


def _batch_norm_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    shape = (types[0].shape[0],)
    buffers = {"running_mean": Tensor(shape, ZEROS, buffer=True), "running_var": Tensor(shape, ONES, buffer=True)}
    return _scale_and_shift(shape, attributes) | buffers


def _normalised(types: Types, attributes: Attributes) -> tuple[int, ...]:
    axes = attributes["axes"]
    assert isinstance(axes, tuple)
    return tuple(types[0].shape[axis] for axis in axes if isinstance(axis, int))


def _layer_norm_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    return _scale_and_shift(_normalised(types, attributes), attributes)


def _resolve_layer_norm(arguments: Mapping[str, object], types: Types) -> Attributes:
    return {**arguments, "axes": resolve_axes(arguments["axes"], types, "layer_norm")}  # type: ignore[dict-item]


def _resolve_group_norm(arguments: Mapping[str, object], types: Types) -> Attributes:
    groups = arguments["groups"]
    assert isinstance(groups, int)
    if not types[0].shape or types[0].shape[0] % groups:
        raise OpError(
            f"{groups} groups do not divide the channels of shape {show(types[0].shape)}", "groups", code="E0413"
        )
    return arguments  # type: ignore[return-value]


def _group_norm_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    return _scale_and_shift((types[0].shape[0],), attributes)


_INIT = Argument("init", "init", "default.init")
_SCALE = Argument("init", "init", ONES)

_CONV_ATTRIBUTES = (
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "pad_mode",
    "dilation",
    "groups",
    "bias",
    "init",
)

ROWS = (
    Op(
        "conv",
        "weights",
        "Convolution: weight [out, channels / groups, kh, kw], bias [out].",
        _conv_type,
        (
            Argument("out", "size"),
            Argument("k", "pair", 1),
            Argument("s", "pair", 1),
            Argument("pad", "pad", "default.pad"),
            Argument("dil", "pair", 1),
            Argument("groups", "size", 1),
            Argument("bias", "bool", True),
            Argument("weight", "layer", None),
            _INIT,
        ),
        resolve=_resolve_conv,
        tensors=_conv_tensors,
        macs=_conv_macs,
        linear=True,
        attributes=_CONV_ATTRIBUTES,
    ),
    Op(
        "dynamic_conv",
        "weights",
        "Convolution of a list of two: an image, and its own weight [out, channels / groups, kh, kw], without a bias.",
        _dynamic_conv_type,
        (
            Argument("k", "pair", 1),
            Argument("s", "pair", 1),
            Argument("pad", "pad", "default.pad"),
            Argument("dil", "pair", 1),
            Argument("groups", "size", 1),
        ),
        arity="two",
        resolve=_resolve_dynamic_conv,
        macs=_dynamic_conv_macs,
        attributes=("kernel_size", "stride", "padding", "pad_mode", "dilation", "groups"),
    ),
    Op(
        "conv_transpose",
        "weights",
        "Transposed convolution: weight [channels, out / groups, kh, kw], bias [out].",
        _conv_transpose_type,
        (
            Argument("out", "size"),
            Argument("k", "pair"),
            Argument("s", "pair", 1),
            Argument("pad", "pad", 0),
            Argument("out_pad", "count_pair", 0),
            Argument("dil", "pair", 1),
            Argument("groups", "size", 1),
            Argument("bias", "bool", True),
            _INIT,
        ),
        resolve=_resolve_conv_transpose,
        tensors=_conv_transpose_tensors,
        macs=_conv_transpose_macs,
        linear=True,
        attributes=(*_CONV_ATTRIBUTES, "out_pad"),
    ),
    Op(
        "linear",
        "weights",
        "Matrix product on the last axis: weight [out, in], bias [out].",
        _linear_type,
        (Argument("out", "size"), Argument("bias", "bool", True), _INIT),
        resolve=_resolve_linear,
        tensors=_linear_tensors,
        macs=_linear_macs,
        linear=True,
        attributes=("out_features", "bias", "init"),
    ),
    Op(
        "batch_norm",
        "weights",
        "Batch normalisation over axis 0; `momentum` is PyTorch's (1 - TensorFlow's decay).",
        _batch_norm_type,
        (
            Argument("eps", "real", Fraction(1, 100_000)),
            Argument("momentum", "real", Fraction(1, 10)),
            Argument("affine", "bool", True),
            _SCALE,
        ),
        tensors=_batch_norm_tensors,
        linear=True,
    ),
    Op(
        "layer_norm",
        "weights",
        "Layer normalisation over `axes`, with the biased variance.",
        same_type,
        (
            Argument("axes", "axes", (0,)),
            Argument("eps", "real", Fraction(1, 1_000_000)),
            Argument("affine", "bool", True),
            _SCALE,
        ),
        resolve=_resolve_layer_norm,
        tensors=_layer_norm_tensors,
    ),
    Op(
        "group_norm",
        "weights",
        "Normalisation of `groups` groups of channels, with a weight and bias for each channel.",
        same_type,
        (
            Argument("groups", "size"),
            Argument("eps", "real", Fraction(1, 100_000)),
            Argument("affine", "bool", True),
            _SCALE,
        ),
        resolve=_resolve_group_norm,
        tensors=_group_norm_tensors,
    ),
)
