"""From the arguments of a call to the attributes of a node: fills defaults, checks and converts each value.

Values arrive as the language has them: bool, int, Fraction, str, tuple (a list), None and Initializer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from effspec.ir.graph import Initializer
from effspec.ir.types import TensorType
from effspec.ops.base import REAL_LIMIT, REQUIRED, Argument, Attributes, Kind, Op, OpError, Types
from effspec.values import show as decimal

LIMIT = 2**31
"""No size, pad or index is larger."""


def bind(op: Op, given: Mapping[str, object], types: Types) -> Attributes:
    """The attributes of `op` called with `given` on tensors of `types`.

    Contextual defaults ("default.pad") have to be among `given`.  Raises OpError: E0408 for a value of the wrong kind,
    else what the row finds.
    """
    _check_arity(op, types, {})
    bound = convert(op.name, op.arguments, given)
    attributes = op.resolve(bound, types)
    # In the order of the row, which is the order in which a graph prints them.
    return {name: attributes[name] for name in op.attribute_names}


def infer(op: Op, types: Types, attributes: Attributes) -> tuple[TensorType, ...]:
    """The types of the results; raises OpError, with E0409 where the number of tensors is not the operator's."""
    _check_arity(op, types, attributes)
    return op.infer(types, attributes)


_ARITIES: dict[str, tuple[range, str]] = {
    "none": (range(1), "no tensor"),
    "one": (range(1, 2), "one tensor"),
    "two": (range(2, 3), "a list of two tensors"),
    "list": (range(1, LIMIT), "a list of tensors"),
}


def _check_arity(op: Op, types: Types, attributes: Attributes) -> None:
    allowed, words = _ARITIES[op.arity]
    if "scalar" in attributes:
        allowed, words = range(1, 2), "one tensor beside its number"
    elif op.arity == "one" and op.weighted:
        allowed = range(1, 3)  # the second input is what the layer made of the weight
    if len(types) not in allowed:
        found = "one tensor" if len(types) == 1 else f"{len(types)} tensors" if types else "none"
        raise OpError(
            f"{op.name} takes {words}, found {found}",
            help=f"apply it to a list: [a, b] |> {op.name}"
            if len(types) < 2
            else "apply it to one of them, or use each",
            code="E0409",
        )


def convert(owner: str, arguments: Sequence[Argument], given: Mapping[str, object]) -> dict[str, object]:
    """Every argument of `owner` (an operator or initialiser) with its given or default value, checked and converted."""
    names = [argument.name for argument in arguments]
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise OpError(f"{owner} has no argument `{name}`", name, f"its arguments are: {known}", code="E0408")
    return {argument.name: _value(owner, argument, given) for argument in arguments}


def _value(owner: str, argument: Argument, given: Mapping[str, object]) -> object:
    value = given.get(argument.name, argument.default)
    contextual = isinstance(value, str) and value.startswith("default.")
    if value is REQUIRED or contextual:
        where = f"; it is read from `{value}`, which is not set" if contextual else ""
        raise OpError(f"{owner} needs its argument `{argument.name}`{where}", argument.name, code="E0408")
    if value is None and argument.default is None:
        return None
    kind = argument.kind
    converted = _CONVERTERS[kind](value) if kind != "text" else value if value in argument.choices else _WRONG
    if converted is _WRONG:
        expected = " or ".join(f'"{choice}"' for choice in argument.choices) if kind == "text" else _EXPECTED[kind]
        help = "round it: `floor(...)`, `ceil(...)` or `round(...)`" if isinstance(value, Fraction) else None
        raise OpError(
            f"`{argument.name}` of {owner} is {describe(value)}, expected {expected}", argument.name, help, code="E0408"
        )
    return converted


def describe(value: object) -> str:
    """A value of the language as messages print it."""
    match value:
        case bool():
            return str(value).lower()
        case int() | Fraction():
            return decimal(value)
        case str():
            return f'"{value}"'
        case None:
            return "nothing"
        case tuple():
            text = ", ".join(describe(item) for item in value[:8])
            return f"[{text}, ...]" if len(value) > 8 else f"[{text}]"
        case Initializer():
            return f"the initialiser {value.kind}"
        case _:
            return "a tensor or layer"


class _Wrong:
    """The mark of a value that a converter refuses."""


_WRONG = _Wrong()
_Converter = Callable[[object], object]


def _integer(least: int) -> _Converter:
    def convert(value: object) -> object:
        if isinstance(value, Fraction) and value.denominator == 1:
            value = int(value)
        # A bool is an int to Python, but not in the language.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LIMIT:
            return _WRONG
        return value

    return convert


def _list(item: _Converter) -> _Converter:
    def convert(value: object) -> object:
        if not isinstance(value, tuple):
            return _WRONG
        items = tuple(item(element) for element in value)
        return _WRONG if _WRONG in items else items

    return convert


def _two(item: _Converter) -> _Converter:
    """One value that counts for height and width, or a list of both."""
    many = _list(item)

    def convert(value: object) -> object:
        if isinstance(value, tuple):
            return many(value) if len(value) == 2 else _WRONG
        single = item(value)
        return _WRONG if single is _WRONG else (single, single)

    return convert


_size, _count, _index = _integer(1), _integer(0), _integer(-LIMIT)


def _pad(value: object) -> object:
    if isinstance(value, str):
        return value if value in ("half", "same") else _WRONG
    ends = _two(_count)
    if isinstance(value, tuple) and len(value) == 2:
        return _list(ends)(value)
    return _WRONG if isinstance(value, tuple) or (both := ends(value)) is _WRONG else (both, both)


def _bool(value: object) -> object:
    return value if isinstance(value, bool) else _WRONG


def _real(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
        return _WRONG
    return value if abs(value.numerator) <= REAL_LIMIT * value.denominator else _WRONG


def _parts(value: object) -> object:
    return _list(_size)(value) if isinstance(value, tuple) and value else _size(value)


def _init(value: object) -> object:
    if isinstance(value, Initializer):
        return value
    return _WRONG if _real(value) is _WRONG else Initializer("constant", {"value": value})  # type: ignore[dict-item]


_CONVERTERS: dict[Kind, _Converter] = {
    "size": _size,
    "count": _count,
    "index": _index,
    "pair": _two(_size),
    "count_pair": _two(_count),
    "pad": _pad,
    "bool": _bool,
    "real": _real,
    "sizes": _list(_size),
    "axes": _list(_index),
    "parts": _parts,
    "init": _init,
    "layer": lambda value: value,
}
_EXPECTED: dict[Kind, str] = {
    "size": "an integer from 1 to 2^31",
    "count": "an integer from 0 to 2^31",
    "index": "an integer",
    "pair": "a size or [height, width]",
    "count_pair": "an integer from 0, or [height, width]",
    "pad": 'a number from 0, [height, width], [[top, bottom], [left, right]], "half" or "same"',
    "bool": "true or false",
    "real": "a number that float32 can hold",
    "sizes": "a list of sizes",
    "axes": "a list of integers",
    "parts": "a size or a list of sizes, each at least 1",
    "init": "a number or an initialiser such as normal(std = 0.02)",
}
