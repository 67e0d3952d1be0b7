"""Operators as modules: how each is made in `__init__`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.build import call, is_literal, tupled

from effspec.ir.graph import Initializer

Attributes: TypeAlias = Mapping[str, ast.expr]
Need: TypeAlias = Callable[[str], str]
"""Asks the file for a helper; the helper's name there."""

NEED_CHANNELS = frozenset({"conv", "conv_transpose", "linear", "batch_norm", "layer_norm", "group_norm"})
ALWAYS_MODULES = NEED_CHANNELS | {"dropout", "drop_path"}
WINDOWS = frozenset({"max_pool", "avg_pool", "dynamic_conv"})

ACTIVATIONS: dict[str, str] = {
    "relu": "nn.ReLU",
    "relu6": "nn.ReLU6",
    "silu": "nn.SiLU",
    "mish": "nn.Mish",
    "sigmoid": "nn.Sigmoid",
    "hard_sigmoid": "nn.Hardsigmoid",
    "hard_swish": "nn.Hardswish",
    "tanh": "nn.Tanh",
    "softplus": "nn.Softplus",
    "gelu": "nn.GELU",
    "leaky_relu": "nn.LeakyReLU",
    "elu": "nn.ELU",
    "softmax": "nn.Softmax",
}


class ConvClass(NamedTuple):
    """A convolution class of the file: its name, and the keywords that it takes."""

    name: str
    keywords: frozenset[str]


class Making(NamedTuple):
    """What the constructor of a module with parameters is written from; `rank` is the input's, without the batch."""

    attributes: Attributes
    channels: ast.expr
    need: Need
    weight: ConvClass | None
    rank: int


def keywords_of(pairs: list[tuple[str, ast.expr | None, int | float | bool | None]]) -> dict[str, ast.expr]:
    """The keywords whose value is not torch's default."""
    return {word: tree for word, tree, default in pairs if tree is not None and not is_literal(tree, default)}


def activation_keywords(op: str, attributes: Attributes) -> dict[str, ast.expr]:
    """The arguments of an activation, the same for the module and the function."""
    if op == "gelu":
        return {"approximate": ast.Constant("tanh")} if is_literal(attributes.get("approximate"), True) else {}
    if op == "leaky_relu":
        return keywords_of([("negative_slope", attributes.get("slope"), 0.01)])
    if op == "elu":
        return keywords_of([("alpha", attributes.get("alpha"), 1)])
    return {"dim": build.shifted(attributes["axis"], 1)} if op == "softmax" else {}


def module(
    op: str, attributes: Attributes, channels: ast.expr | None, need: Need, weight: ConvClass | None, rank: int
) -> ast.expr:
    """The constructor call of an operator's module; `channels` is there for what is in NEED_CHANNELS."""
    if op == "dropout":
        return call("nn.Dropout", attributes["rate"])
    if op == "drop_path":
        return call(need("DropPath"), attributes["rate"])
    if channels is None:
        return call(ACTIVATIONS[op], **activation_keywords(op, attributes))
    return _MODULES[op](Making(attributes, channels, need, weight, rank))


def _conv(making: Making) -> ast.expr:
    attributes, weight = {word: tupled(tree) for word, tree in making.attributes.items()}, making.weight
    function = "nn.Conv2d"
    keywords = keywords_of(
        [
            ("stride", attributes["stride"], 1),
            ("padding", attributes.get("padding"), 0),
            ("dilation", attributes["dilation"], 1),
            ("groups", attributes["groups"], 1),
            ("bias", attributes["bias"], True),
        ]
    )
    if weight is not None:
        function = weight.name
        keywords = {word: tree for word, tree in keywords.items() if word in weight.keywords}
    elif "same" in attributes:
        function = making.need("SameConv2d")
    elif "explicit" in attributes:
        function = making.need("PaddedConv2d")
        keywords["pads"] = attributes["explicit"]
    kernel = build.tupled(attributes["kernel_size"])
    pairs = {word: build.tupled(tree) for word, tree in keywords.items()} if function == "nn.Conv2d" else keywords
    return call(function, making.channels, attributes["out_channels"], kernel, **pairs)


def _conv_transpose(making: Making) -> ast.expr:
    attributes = making.attributes
    keywords = keywords_of(
        [
            ("stride", attributes["stride"], 1),
            ("padding", attributes.get("padding"), 0),
            ("output_padding", attributes["out_pad"], 0),
            ("groups", attributes["groups"], 1),
            ("bias", attributes["bias"], True),
            ("dilation", attributes["dilation"], 1),
        ]
    )
    sizes = attributes["out_channels"], attributes["kernel_size"]
    return call("nn.ConvTranspose2d", making.channels, *sizes, **keywords)


def _linear(making: Making) -> ast.expr:
    keywords = keywords_of([("bias", making.attributes["bias"], True)])
    return call("nn.Linear", making.channels, making.attributes["out_features"], **keywords)


def _batch_norm(making: Making) -> ast.expr:
    defaults: list[tuple[str, float | bool]] = [("eps", 1e-5), ("momentum", 0.1), ("affine", True)]
    keywords = keywords_of([(word, making.attributes[word], default) for word, default in defaults])
    return call("nn.BatchNorm2d" if making.rank == 3 else "nn.BatchNorm1d", making.channels, **keywords)


def _layer_norm(making: Making) -> ast.expr:
    attributes, axes = making.attributes, making.attributes["axes"]
    keywords = keywords_of([("eps", attributes["eps"], 1e-5), ("elementwise_affine", attributes["affine"], True)])
    over_channels = isinstance(axes, ast.List) and len(axes.elts) == 1 and is_literal(axes.elts[0], 0)
    if over_channels and making.rank == 3:
        return call(making.need("LayerNorm2d"), making.channels, **keywords)
    return call("nn.LayerNorm", making.channels, **keywords)


def _group_norm(making: Making) -> ast.expr:
    attributes = making.attributes
    keywords = keywords_of([("eps", attributes["eps"], 1e-5), ("affine", attributes["affine"], True)])
    return call("nn.GroupNorm", attributes["groups"], making.channels, **keywords)


_MODULES: dict[str, Callable[[Making], ast.expr]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


def parameter(sizes: list[ast.expr], init: Any) -> ast.expr:
    """`nn.Parameter(...)` of a `param`, at its starting value where that is a constant."""
    if isinstance(init, Initializer) and init.kind == "constant":
        init = init.args["value"]
    shape = sizes or [ast.Tuple([], ast.Load())]
    if isinstance(init, Initializer):
        start = call("torch.empty", *shape)
    elif init in (0, 1):
        start = call("torch.zeros" if init == 0 else "torch.ones", *shape)
    else:
        start = call("torch.full", ast.Tuple(sizes, ast.Load()), build.literal(init))
    return call("nn.Parameter", start)
