"""The one authority for how parameters start: the initialisers of the language, fans, and the laws that are drawn from.

References: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010) for
xavier; He et al., "Delving deep into rectifiers" (2015) for kaiming.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from effspec.ir.graph import Initializer
from effspec.ops.base import Argument, OpError, show
from effspec.ops.bind import convert

# The square root as the language computes it: 50 digits, then exact.
_SQRT2 = Fraction(Decimal(2).sqrt(Context(prec=50)))
_MODE = Argument("mode", "text", "fan_in", choices=("fan_in", "fan_out", "fan_out_all"))

INITIALIZERS: dict[str, tuple[Argument, ...]] = {
    "constant": (Argument("value", "real"),),
    "normal": (Argument("std", "real"), Argument("mean", "real", 0)),
    "truncated_normal": (Argument("std", "real"), Argument("mean", "real", 0), Argument("cut", "real", 2)),
    "uniform": (Argument("low", "real"), Argument("high", "real")),
    "kaiming_normal": (_MODE, Argument("gain", "real", _SQRT2)),
    "kaiming_uniform": (_MODE, Argument("gain", "real", _SQRT2)),
    "xavier_normal": (Argument("gain", "real", 1),),
    "xavier_uniform": (Argument("gain", "real", 1),),
}
"""The arguments of each initialiser; `cut` of truncated_normal counts standard deviations from the mean."""


def initializer(kind: str, given: Mapping[str, object]) -> Initializer:
    """The initialiser `kind(given)` with its defaults filled in; `kind` is a row of `INITIALIZERS`.

    Raises OpError (E0408) for an unknown or missing argument, or a number that makes no distribution.
    """
    args = convert(kind, INITIALIZERS[kind], given)
    for name in ("std", "cut", "gain"):
        if name in args and args[name] <= 0:  # type: ignore[operator]
            raise OpError(f"`{name}` of {kind} is {args[name]}, expected a number above 0", name, code="E0408")
    if kind == "uniform" and args["low"] > args["high"]:  # type: ignore[operator]
        raise OpError(f"uniform has its low end {args['low']} above its high end {args['high']}", "low", code="E0408")
    return Initializer(kind, args)  # type: ignore[arg-type]


ROOT_INIT = initializer("kaiming_normal", {})
"""What `default.init` is where a model sets none: it keeps the variance, also of a classifier of few classes."""


class Constant(NamedTuple):
    """Every element is `value`."""

    kind: Literal["constant"]
    value: float


class Normal(NamedTuple):
    """The normal law of `mean` and `std`, drawn again while outside `low` to `high` (infinite where nothing is cut)."""

    kind: Literal["normal"]
    mean: float
    std: float
    low: float
    high: float


class Uniform(NamedTuple):
    """Every number from `low` to `high` alike."""

    kind: Literal["uniform"]
    low: float
    high: float


Distribution: TypeAlias = Constant | Normal | Uniform


def fans(shape: tuple[int, ...], groups: int = 1) -> tuple[int, int]:
    """Fan in and fan out of a weight [out, in / groups, ...]: the inputs of an output element, the outputs of an input.

    The fan out of a grouped convolution is out / groups * kh * kw, as TensorFlow and timm count it; `torch.nn.init`
    leaves the groups out, which the mode `fan_out_all` does, too.  Raises OpError for a shape of fewer than two axes.
    """
    if len(shape) < 2:
        raise OpError(
            f"a tensor of shape {show(shape)} has no fan in and fan out",
            "init",
            "use constant, normal, truncated_normal or uniform for a tensor with fewer than two axes",
        )
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] // groups * window


@lru_cache(4096)
def distribution(init: Initializer, shape: tuple[int, ...]) -> Distribution:
    """The law of one element of a tensor of `shape`; raises OpError where the shape has no fans but needs them."""
    number = {name: float(value) for name, value in init.args.items() if isinstance(value, int | Fraction)}
    match init.kind:
        case "constant":
            return Constant("constant", number["value"])
        case "normal":
            return Normal("normal", number["mean"], number["std"], -math.inf, math.inf)
        case "truncated_normal":
            reach = number["cut"] * number["std"]
            mean = number["mean"]
            return Normal("normal", mean, number["std"], mean - reach, mean + reach)
        case "uniform":
            return Uniform("uniform", number["low"], number["high"])
        case "kaiming_normal" | "kaiming_uniform" | "xavier_normal" | "xavier_uniform":
            mode = init.args.get("mode")
            fan_in, fan_out = fans(shape, 1 if mode == "fan_out_all" else int(number.get("groups", 1)))
            kaiming = fan_in if mode == "fan_in" else fan_out
            fan = kaiming if "kaiming" in init.kind else (fan_in + fan_out) / 2
            std = number["gain"] / math.sqrt(fan)
            if init.kind.endswith("normal"):
                return Normal("normal", 0.0, std, -math.inf, math.inf)
            # The uniform law from -b to b has the standard deviation b / sqrt(3).
            return Uniform("uniform", -math.sqrt(3) * std, math.sqrt(3) * std)
    raise ValueError(f"the initialiser `{init.kind}` has no law of its own")
