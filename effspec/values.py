"""Compile-time numbers and lists: exact, bounded, the same on every machine.

A number is an int or a Fraction (never one with denominator 1).  Irrational results (`sqrt`, `log`, `exp`, fractional
powers) are the correctly rounded 50-digit decimal, which is then exact.  Failures raise ValueProblem, and the evaluator
adds the place.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

Number: TypeAlias = int | Fraction

MAX_BITS = 4096
MAX_LIST = 65_536
DIGITS = 50
_LONG = 10**30  # from here on messages print the first digits
_GUARD = 30  # extra digits of an intermediate result, so that rounding to DIGITS is right


class ValueProblem(Exception):
    """A computation that has no answer, or too large a one: the message, and what would help."""

    def __init__(self, message: str, help: str | None = None, code: str = "E0501") -> None:
        super().__init__(message)
        self.message, self.help, self.code = message, help, code


def number(value: Fraction | int) -> Number:
    """The canonical form of a number, checked against the size limit."""
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise ValueProblem(f"a number of more than {MAX_BITS} bits", "stay below about 10 ** 1200", "E0505")
        return value
    if value.denominator == 1:
        return number(value.numerator)
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise ValueProblem(f"a fraction of more than {MAX_BITS} bits", "round it first", "E0505")
    return value


def is_number(value: object) -> bool:
    # By type: `isinstance` of a Fraction asks an abstract class, which is slow where the answer is no.
    kind = type(value)
    return kind is int or kind is Fraction or (isinstance(value, int) and kind is not bool)


def show(value: Any) -> str:
    """A value as messages print it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < _LONG else decimal_text(Fraction(value))
    if isinstance(value, Fraction):
        return decimal_text(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        inner = ", ".join(show(v) for v in value[:8])
        return f"[{inner}{', ...' if len(value) > 8 else ''}]"
    return str(value)


def decimal_text(value: Fraction) -> str:
    """The decimal of a fraction: exact where it ends within 12 digits, otherwise rounded with a mark."""
    with decimal.localcontext() as context:
        context.prec = 60
        context.traps[decimal.Inexact] = False
        quotient = decimal.Decimal(value.numerator) / decimal.Decimal(value.denominator)
        short = +quotient.quantize(decimal.Decimal(1).scaleb(-12)) if abs(quotient) < 10**12 else quotient
        exact = Fraction(short) == value
        if abs(quotient) >= _LONG:
            return f"{quotient:.6e}"
    text = f"{short.normalize():f}" if abs(short) >= decimal.Decimal("1e-9") or not short else f"{quotient:.6e}"
    return text if exact else f"{text}..." if short else f"{quotient:.6e}"


def add(a: Number, b: Number) -> Number:
    return number(a + b)


def subtract(a: Number, b: Number) -> Number:
    return number(a - b)


def multiply(a: Number, b: Number) -> Number:
    return number(a * b)


def _check_divisor(a: Number, b: Number) -> None:
    if b == 0:
        raise ValueProblem(f"{show(a)} is divided by zero", help="guard it: `a / b if b != 0 else ...`")


def divide(a: Number, b: Number) -> Number:
    _check_divisor(a, b)
    return number(Fraction(a) / b)


def floor_divide(a: Number, b: Number) -> Number:
    _check_divisor(a, b)
    return number(Fraction(a) // b)


def modulo(a: Number, b: Number) -> Number:
    _check_divisor(a, b)
    return number(Fraction(a) % b)


def power(base: Number, exponent: Number) -> Number:
    """Exact with an integer exponent; otherwise exp(exponent * ln(base)) to 50 digits."""
    if isinstance(exponent, int):
        if base == 0 and exponent <= 0:
            raise ValueProblem(f"0 ** {exponent} has no value")
        size = max(abs(Fraction(base).numerator).bit_length(), Fraction(base).denominator.bit_length())
        if size > 1 and abs(exponent) * (size - 1) > MAX_BITS:
            raise ValueProblem(
                f"{show(base)} ** {show(exponent)} has more than {MAX_BITS} bits",
                "a smaller exponent is meant",
                "E0505",
            )
        return number(Fraction(base) ** (exponent if size > 1 else exponent % 2))
    if base < 0:
        raise ValueProblem(f"{show(base)} ** {show(exponent)}: a negative number has no fractional power")
    if base == 0:
        if exponent < 0:
            raise ValueProblem(f"0 ** {show(exponent)} has no value")
        return 0
    exact = _exact_root(base, exponent)
    if exact is not None:
        return exact
    estimate = float(exponent) * math.log(float(base)) if 1e-300 < base < 10**300 else 1e9
    if abs(estimate) > 2000:
        raise ValueProblem(f"{show(base)} ** {show(exponent)} is out of range", code="E0505")
    return _decimal(lambda: (_to_decimal(base).ln() * _to_decimal(exponent)).exp())


def _exact_root(base: Number, exponent: Number) -> Number | None:
    """`4 ** 0.5` is 2: the answer where it is rational."""
    order = Fraction(exponent).denominator
    if order > 64:
        return None
    parts: list[int] = []
    for part in (Fraction(base).numerator, Fraction(base).denominator):
        root = _integer_root(part, order)
        if root**order != part:
            return None
        parts.append(root)
    return power(number(Fraction(parts[0], parts[1])), Fraction(exponent).numerator)


def _integer_root(value: int, order: int) -> int:
    low, high = 0, 1 << (value.bit_length() // order + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**order <= value:
            low = middle
        else:
            high = middle - 1
    return low


def _to_decimal(value: Number) -> decimal.Decimal:
    fraction = Fraction(value)
    return decimal.Decimal(fraction.numerator) / decimal.Decimal(fraction.denominator)


def _decimal(compute: Callable[[], decimal.Decimal]) -> Number:
    """Compute with guard digits, round once to DIGITS, and take that decimal as the exact result."""
    with decimal.localcontext() as context:
        context.prec = DIGITS + _GUARD
        context.rounding = decimal.ROUND_HALF_EVEN
        context.Emax, context.Emin = 999_999, -999_999
        result = compute()
        context.prec = DIGITS
        return number(Fraction(+result))


def sqrt(value: Number) -> Number:
    if value < 0:
        raise ValueProblem(f"sqrt({show(value)}): a negative number has no square root")
    return power(value, Fraction(1, 2))


def exp(value: Number) -> Number:
    if value == 0:
        return 1
    if not -2000 <= value <= 2000:
        raise ValueProblem(f"exp({show(value)}) is out of range", code="E0505")
    return _decimal(lambda: _to_decimal(value).exp())


def log(value: Number, base: Number | None = None) -> Number:
    """The natural logarithm, or that to a base; exact where the answer is (`log(1000, 10)` is 3)."""
    if value <= 0:
        raise ValueProblem(f"log({show(value)}): only a positive number has a logarithm")
    if base is not None and (base <= 0 or base == 1):
        raise ValueProblem(f"log to the base {show(base)} is not defined")
    if value == 1:
        return 0
    if base is None:
        return _decimal(lambda: _to_decimal(value).ln())
    return _decimal(lambda: _to_decimal(value).ln() / _to_decimal(base).ln())


def _multiple(rounding: Callable[[Fraction], int]) -> Callable[..., Number]:
    def function(value: Number, multiple: Number = 1) -> Number:
        if multiple <= 0:
            raise ValueProblem(f"cannot round to a multiple of {show(multiple)}", "the multiple is positive")
        return number(rounding(Fraction(value) / multiple) * multiple)

    return function


floor = _multiple(math.floor)
ceil = _multiple(math.ceil)
round_half_even = _multiple(round)
round_half_up = _multiple(lambda quotient: math.floor(quotient + Fraction(1, 2)))


def checked_list(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(values) > MAX_LIST:
        raise ValueProblem(f"a list of {len(values):,} elements", f"a list holds at most {MAX_LIST:,}", "E0505")
    return values


def make_range(start: Any, stop: Any, inclusive: bool) -> tuple[int, ...]:
    """`a ..< b` or `a .. b` as a list of integers."""
    for end in (start, stop):
        if not isinstance(end, int) or isinstance(end, bool):
            raise ValueProblem(f"a range runs between integers, found {show(end)}")
    stop += inclusive
    if stop - start > MAX_LIST:
        raise ValueProblem(f"a range of {stop - start:,} elements", f"a list holds at most {MAX_LIST:,}", "E0505")
    return tuple(range(start, stop))


def _extreme(pick: Callable[..., Any]) -> Callable[..., Number]:
    def function(*values: Any) -> Number:
        elements = values[0] if len(values) == 1 and isinstance(values[0], tuple) else values
        if not elements:
            raise ValueProblem("the list is empty")
        for element in elements:
            if not is_number(element):
                raise ValueProblem(f"numbers are compared, found {show(element)}")
        result: Number = pick(elements)
        return result

    return function


def _total(values: Any) -> Number:
    return number(sum((Fraction(v) for v in values), Fraction(0)))


def _zip(*lists: Any) -> tuple[Any, ...]:
    if len({len(values) for values in lists}) > 1:
        lengths = " and ".join(str(len(values)) for values in lists)
        raise ValueProblem(f"zip needs lists of one length, found {lengths}")
    return tuple(zip(*lists, strict=True))


def _runs(values: Any) -> tuple[Any, ...]:
    out: list[list[Any]] = []
    for value in values:
        if out and out[-1][0] == value:
            out[-1][1] += 1
        else:
            out.append([value, 1])
    return tuple(tuple(pair) for pair in out)


def _sides(size: Any) -> tuple[Number, ...]:
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(map(is_number, sides)):
        raise ValueProblem(f"sides needs a number or [height, width], found {describe(size)}", code="E0503")
    return sides


# name -> (function, kinds of the arguments, how many of them are optional).  "number", "list", "numbers" (a list of
# numbers) or "*" (any number of what follows).
FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[str, ...], int]] = {
    "floor": (floor, ("number", "number"), 1),
    "ceil": (ceil, ("number", "number"), 1),
    "round": (round_half_even, ("number", "number"), 1),
    "round_half_up": (round_half_up, ("number", "number"), 1),
    "abs": (lambda value: number(abs(value)), ("number",), 0),
    "sqrt": (sqrt, ("number",), 0),
    "log": (log, ("number", "number"), 1),
    "exp": (exp, ("number",), 0),
    "min": (_extreme(min), ("*",), 0),
    "max": (_extreme(max), ("*",), 0),
    "len": (len, ("list",), 0),
    "sum": (_total, ("numbers",), 0),
    "enumerate": (lambda values: tuple(enumerate(values)), ("list",), 0),
    "zip": (_zip, ("*list",), 0),
    "reverse": (lambda values: values[::-1], ("list",), 0),
    "runs": (_runs, ("list",), 0),
    "sides": (_sides, ("any",), 0),
}


_FITS: dict[str, Callable[[Any], bool]] = {
    "number": is_number,
    "list": lambda value: isinstance(value, tuple),
    "numbers": lambda value: isinstance(value, tuple) and all(map(is_number, value)),
    "any": lambda value: True,
}


def call(name: str, arguments: list[Any]) -> Any:
    """Apply a predeclared function to checked arguments."""
    function, kinds, optional = FUNCTIONS[name]
    if kinds[0].startswith("*"):
        kinds = (kinds[0][1:] or "any",) * len(arguments)
        if not arguments:
            raise ValueProblem(f"{name} needs an argument")
    elif not len(kinds) - optional <= len(arguments) <= len(kinds):
        wanted = str(len(kinds)) if not optional else f"{len(kinds) - optional} or {len(kinds)}"
        raise ValueProblem(f"{name} takes {wanted} arguments, found {len(arguments)}", code="E0303")
    for kind, argument in zip(kinds, arguments, strict=False):
        if not _FITS[kind](argument):
            article = {"number": "a number", "list": "a list", "numbers": "a list of numbers"}[kind]
            raise ValueProblem(f"{name} needs {article}, found {describe(argument)}", code="E0503")
    return function(*arguments)


def describe(value: Any) -> str:
    """A value with its kind, for "found ..."."""
    if isinstance(value, bool):
        return f"the boolean {show(value)}"
    if is_number(value):
        return f"the number {show(value)}"
    if isinstance(value, str):
        return f"the text {show(value)}"
    if isinstance(value, tuple):
        return f"a list of {len(value)}" if len(value) != 1 else "a list of 1"
    return str(value)
