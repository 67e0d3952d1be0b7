"""Bakes the arithmetic of `prepare` into a model: its input becomes the picture, with values from 0 to 255.

The model's body gets lines in front, written in the language: one multiplication and one addition for each channel, of
exact numbers.  Every target sees them as it sees any line.  Resizing and cropping are not baked.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeVar

from effspec.diagnostics import Source
from effspec.preparation import LARGEST, Preparation
from effspec.syntax import nodes
from effspec.syntax.parser import parse

N = TypeVar("N", bound=nodes.Node)


def preprocessed(model: nodes.Model, prepared: Mapping[str, Preparation]) -> nodes.Model:
    """The model on pictures; `prepared` says how each of these inputs is prepared."""
    taken = {part.id for part in nodes.descend(model) if isinstance(part, nodes.Name | nodes.Identifier)}
    inputs = [declared.name.id for declared in model.inputs]
    instead, lines = {}, []
    for name, how in prepared.items():
        instead[name] = _free(f"prepared_{name}" if len(prepared) > 1 else "prepared", taken)
        lines.append(f"{instead[name]} = {_value(name, how)}")
    values = [instead.get(name, name) for name in inputs]
    if len(inputs) == 1:
        instead["input"] = values[0]
    if len(lines) == 1 and not any(isinstance(n, nodes.Name) and n.id in instead for n in nodes.descend(model.body)):
        lines = [lines[0].partition(" = ")[2]]  # nothing asks for it by name
    else:
        lines.append(values[0] if len(values) == 1 else f"[{', '.join(values)}]")
    text = "\n".join(["effspec 1", "model M() on input: [1] {", *(f"    {line}" for line in lines), "}", ""])
    [made] = [item for item in parse(Source("--with-preprocessing", text)).items if isinstance(item, nodes.Model)]
    body = _renamed(model.body, instead)
    statements = (*made.body.statements, *body.statements)
    return _replaced(model, body=_replaced(body, statements=statements))


def described(arguments: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """What `prepare` would state of the model that takes the picture."""
    return {**arguments, "mean": (0,) * channels, "std": (1,) * channels, "range": LARGEST}


def _value(name: str, how: Preparation) -> str:
    """The expression of what a picture becomes; one number for all channels where they are equal."""
    pairs = list(zip(how.scale, how.shift, strict=True))
    if len(set(pairs)) == 1:
        return _scaled(name, *pairs[0])
    channels = (f"({name} |> slice(0, {k}, {k + 1}))" for k in range(len(pairs)))
    return f"[{', '.join(_scaled(channel, *pair) for channel, pair in zip(channels, pairs, strict=True))}] |> concat()"


def _scaled(tensor: str, scale: Fraction, shift: Fraction) -> str:
    moved = f" {'-' if shift < 0 else '+'} {_number(abs(shift))}" if shift else ""
    return f"{tensor} * {_number(scale)}{moved}"


def _number(value: Fraction) -> str:
    """The number as the language reads it back: exactly."""
    return f"({value.numerator} / {value.denominator})" if value.denominator > 1 else str(value.numerator)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _renamed(node: N, instead: Mapping[str, str]) -> N:
    """The node with other names read in it; what holds none of them stays the same object."""

    def walk(value: object) -> object:
        if isinstance(value, nodes.Name):
            return _replaced(value, id=instead[value.id]) if value.id in instead else value
        if isinstance(value, nodes.Node):
            return _renamed(value, instead)
        if isinstance(value, tuple):
            made = tuple(map(walk, value))
            return value if all(new is old for new, old in zip(made, value, strict=True)) else made
        return value

    changed = {field: new for field in node.fields if (new := walk(getattr(node, field))) is not getattr(node, field)}
    return _replaced(node, **changed) if changed else node


def _replaced(node: N, **changed: object) -> N:
    kind: Any = type(node)
    made: N = kind(*(changed.get(field, getattr(node, field)) for field in node.fields))
    return made
