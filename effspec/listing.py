"""`effspec list` and `effspec explain NAME`: what files define, with signatures and documentation."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from effspec import library
from effspec.ir.graph import Initializer
from effspec.modules import Module
from effspec.names import OPERATORS
from effspec.ops import OPS
from effspec.ops.base import REQUIRED
from effspec.resolve import load
from effspec.syntax import nodes
from effspec.values import show

STANDARD = "std"
_WIDTH = 80
_UNBROKEN = "\N{NO-BREAK SPACE}"
_KINDS: dict[type[nodes.Node], str] = {
    nodes.Fn: "fn",
    nodes.Block: "block",
    nodes.Scaling: "scaling",
    nodes.Model: "model",
}


@dataclass(frozen=True)
class Defined:
    """What a file defines under a name: its kind (fn, block, scaling, model), how it is called, what is said of it."""

    kind: str
    name: str
    signature: str
    doc: str


def standard_files() -> list[str]:
    """The files of the standard library as they are imported, in alphabetical order."""
    return sorted(set(library.standard().values()))


def names(specs: tuple[str, ...]) -> list[str]:
    """What to list: the shipped specs where nothing is asked for, all of its files for `std`."""
    asked = specs or tuple(library.shipped())
    return [name for spec in asked for name in (standard_files() if spec == STANDARD else [spec])]


def defined(module: Module) -> Iterator[Defined]:
    """What a file itself defines, constants aside."""
    for name in module.exports():
        node = module.definitions[name].node
        if not isinstance(node, nodes.Constant):
            parameters = ", ".join(_parameter(parameter) for parameter in node.parameters)
            yield Defined(
                _KINDS[type(node)], name, f"{name}({parameters})", _doc(node, module, module.bound_at[name].line)
            )


def _parameter(parameter: nodes.Parameter) -> str:
    default = parameter.default
    return parameter.name.id + (f" = {' '.join(default.span.text.split())}" if default is not None else "")


def _doc(node: nodes.Fn | nodes.Block | nodes.Scaling | nodes.Model, module: Module, stated: int) -> str:
    """The documentation string, or the comment right above the line where it is stated."""
    doc = node.body.doc if isinstance(node, nodes.Block | nodes.Model) else node.doc
    if doc is not None:
        return doc
    comment: list[str] = []
    line = stated - 1
    while line > 0 and (text := module.source.line(line).strip()).startswith("#"):
        comment.insert(0, text.lstrip("# "))
        line -= 1
    return " ".join(comment)


def lines(spec: str, module: Module) -> Iterator[str]:
    """A spec's models and variants; of a file without either, what it defines."""
    every = list(defined(module))
    models = [one.name for one in every if one.kind == "model"]
    if models or module.variants or not every:
        yield f"{spec}: {', '.join(models) or 'no model of its own'}"
        yield textwrap.fill(" ".join(module.variants) or "no variants", _WIDTH - 2, initial_indent=" " * 4,
                            subsequent_indent=" " * 4, break_long_words=False)  # fmt: skip
        return
    yield spec
    for one in every:
        yield from _entry(one)


def _entry(one: Defined) -> Iterator[str]:
    # A line ends between two parameters, not inside one.
    whole = f"{one.kind} {one.signature}".replace(" ", _UNBROKEN).replace(f",{_UNBROKEN}", ", ")
    for line in textwrap.wrap(whole, _WIDTH, initial_indent="  ", subsequent_indent=" " * 8, break_long_words=False):
        yield line.replace(_UNBROKEN, " ")
    yield from textwrap.wrap(one.doc, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def known() -> list[str]:
    """The names that can be explained."""
    return [*sorted(OPERATORS), *library.standard()]


def about(name: str) -> list[str] | None:
    """What is to be said of an operator or of a name of the standard library; None for any other name."""
    if name in OPERATORS:
        op = OPS[name]
        parameters = (a.name if a.default is REQUIRED else f"{a.name} = {_default(a.default)}" for a in op.arguments)
        return list(_entry(Defined("operator", name, f"{name}({', '.join(parameters)})", op.doc)))
    place = library.standard().get(name)
    if place is None:
        return None
    [found] = [one for one in defined(load(place)) if one.name == name]
    return [*_entry(found), f'      import {name} from "{place}"']


def _default(value: object) -> str:
    if isinstance(value, Initializer):
        value = value.args["value"]
    if value is None:
        return "none"
    return value if isinstance(value, str) and value.startswith("default.") else show(value)
