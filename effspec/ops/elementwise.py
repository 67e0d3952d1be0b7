"""Rows of the operators that keep the shape: sources, activations, clip, and what vanishes at inference."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from effspec.ir.graph import Initializer
from effspec.ir.types import TensorType
from effspec.ops.base import (
    Argument,
    Attributes,
    Op,
    OpError,
    Tensor,
    Types,
    integers,
    resolve_axis,
    same_type,
)
from effspec.values import show as decimal


def _input_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType(integers(attributes["shape"])),)


def _parameter_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    return (TensorType(integers(attributes["shape"]), batched=False),)


def _parameter_tensors(types: Types, attributes: Attributes) -> Mapping[str, Tensor]:
    init = attributes["init"]
    assert isinstance(init, Initializer)
    return {"value": Tensor(integers(attributes["shape"]), init)}


def _resolve_softmax(arguments: Mapping[str, object], types: Types) -> Attributes:
    return {"axis": resolve_axis(arguments["axis"], types, "softmax")}


def _resolve_clip(arguments: Mapping[str, object], types: Types) -> Attributes:
    low, high = arguments["low"], arguments["high"]
    assert isinstance(low, int | Fraction) and isinstance(high, int | Fraction)
    if low > high:
        raise OpError(f"clip has its low end {low} above its high end {high}", "low", f"swap them: clip({high}, {low})")
    return {"low": low, "high": high}


def _resolve_rate(arguments: Mapping[str, object], types: Types) -> Attributes:
    rate = arguments["rate"]
    assert isinstance(rate, int | Fraction)
    if not 0 <= rate < 1:
        raise OpError(
            f"a drop rate lies from 0 to below 1, found {decimal(rate)}",
            "rate",
            "the rate is the share that is dropped: 0 drops nothing",
        )
    return {"rate": rate}


def _drop_path_type(types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    if not types[0].batched:
        raise OpError(
            "drop_path drops whole samples of a batch, but this tensor is computed from parameters alone",
            help="use dropout(rate), or apply drop_path to the branch that comes from the input",
        )
    return (types[0],)


def _activation(name: str, doc: str, *arguments: Argument) -> Op:
    return Op(name, "activation", doc, same_type, arguments)


_RATE = Argument("rate", "real")

ROWS = (
    Op(
        "input",
        "source",
        "A tensor that the model is given; `shape` does not count the batch.",
        _input_type,
        (Argument("shape", "sizes"),),
        arity="none",
        callable=False,
    ),
    Op(
        "parameter",
        "source",
        "A trained tensor, written `param`; it has no batch axis.",
        _parameter_type,
        (Argument("shape", "sizes"), Argument("init", "init", "default.init")),
        arity="none",
        tensors=_parameter_tensors,
        callable=False,
    ),
    _activation("relu", "max(x, 0)."),
    _activation("relu6", "min(max(x, 0), 6)."),
    _activation("silu", "x * sigmoid(x), also called swish."),
    _activation("mish", "x * tanh(softplus(x))."),
    _activation("sigmoid", "1 / (1 + exp(-x))."),
    _activation("hard_sigmoid", "min(max(x / 6 + 1 / 2, 0), 1)."),
    _activation("hard_swish", "x * hard_sigmoid(x)."),
    _activation("tanh", "The hyperbolic tangent."),
    _activation("softplus", "log(1 + exp(x))."),
    _activation(
        "gelu",
        "x * P(X <= x) for a standard normal X; with `approximate`, its form with tanh.",
        Argument("approximate", "bool", False),
    ),
    _activation("leaky_relu", "x where it is positive, else slope * x.", Argument("slope", "real", Fraction(1, 100))),
    _activation("elu", "x where it is positive, else alpha * (exp(x) - 1).", Argument("alpha", "real", 1)),
    Op(
        "softmax",
        "activation",
        "exp(x), divided by its sum over `axis`.",
        same_type,
        (Argument("axis", "index", 0),),
        resolve=_resolve_softmax,
    ),
    Op(
        "clip",
        "arithmetic",
        "min(max(x, low), high).",
        same_type,
        (Argument("low", "real"), Argument("high", "real")),
        resolve=_resolve_clip,
    ),
    Op(
        "identity",
        "shape",
        "The tensor itself.",
        same_type,
        linear=True,
        inference="identity",
    ),
    Op(
        "dropout",
        "stochastic",
        "In training, each element is 0 with probability `rate`, else divided by 1 - rate.",
        same_type,
        (_RATE,),
        resolve=_resolve_rate,
        inference="identity",
    ),
    Op(
        "drop_path",
        "stochastic",
        "In training, each sample of the batch is 0 with probability `rate`, else divided by 1 - rate.",
        _drop_path_type,
        (_RATE,),
        resolve=_resolve_rate,
        inference="identity",
    ),
)
