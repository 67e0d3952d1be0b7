"""Prints a planned file through its templates, holds it to the closed list, and proves it against the graph."""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Mapping
from functools import cache

import jinja2
from effspec.backends.torch import build
from effspec.backends.torch.plan.body import Class
from effspec.backends.torch.plan.classes import Plan
from effspec.backends.torch.plan.features import split_features
from effspec.backends.torch.plan.initial import initialise
from effspec.backends.torch.plan.straight import Straight
from effspec.backends.torch.proof.replay import replay
from effspec.backends.torch.text.document import WIDTH
from effspec.backends.torch.text.layout import print_module

from effspec.backend import Remark, Unit
from effspec.elaborate import Elaborated
from effspec.ir.graph import Graph
from effspec.ir.verify import InternalError
from effspec.output import PLACEHOLDER

# Helpers of the file, in their order there; their texts are the templates of these names.
_HELPERS = ("DropPath", "pad_same", "avg_pool_same", "dynamic_conv", "SameConv2d", "PaddedConv2d", "LayerNorm2d")
_UNBROKEN = "\N{NO-BREAK SPACE}"


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("effspec.backends.torch", "templates")
    return jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )


def emit(unit: Unit) -> str:
    """The stand-alone PyTorch source of a compiled model."""
    elaborated = unit.elaborated
    if not isinstance(elaborated, Elaborated):
        raise TypeError("the torch backend writes source from the record of elaboration")
    failed = ""
    for literal in (False, True):
        # What cannot be said well is still said right: a class for each distinct block, with its numbers in it.
        plan = Plan(elaborated, literal=literal)
        try:
            return _proven(unit, elaborated, plan)
        except Exception as error:
            # A mistake of the plan, whatever it is, costs the file its classes, and nobody the file.
            failed = error.where if isinstance(error, InternalError) else plan.place
    text = straight(unit, elaborated.graph)
    told = f"{unit.name} is written operator by operator: its blocks could not be translated to classes"
    warnings.warn(f"{told} (this failed at {failed}; please report the spec)", Remark, stacklevel=2)
    return text


def straight(unit: Unit, graph: Graph) -> str:
    """The text of one class for the whole graph, proven: what is left where the blocks cannot be translated."""
    plan = Straight(graph, unit.name)
    plan.run()
    (model,) = plan.classes
    return _module(unit, graph, model, [_class(model)], plan.helpers, [plan.fact])


def _proven(unit: Unit, elaborated: Elaborated, plan: Plan) -> str:
    """The text of a plan of classes, proven."""
    plan.run()
    *blocks, model = plan.classes
    model.init += initialise(elaborated.graph)
    split_features(model)
    definitions: list[ast.stmt] = [*([plan.stage] if plan.stage is not None else []), _class(model)]
    for cls in reversed(blocks):
        if cls.inline is None or any(cls.name in build.free_names(user) for user in definitions):
            definitions.insert(0, _class(cls))
    definitions = [*plan.functions.used(definitions), *definitions]
    return _module(unit, elaborated.graph, model, definitions, plan.helpers, [])


def _module(
    unit: Unit, graph: Graph, model: Class, definitions: list[ast.stmt], helpers: Mapping[str, str], facts: list[str]
) -> str:
    """The file of these definitions, held to the closed list and replayed against the graph (`replay` does both)."""
    parts = [_render(f"{word}.py.jinja", names=helpers) for word in _HELPERS if word in helpers]
    parts += [print_module([ast.fix_missing_locations(definition)]).rstrip("\n") for definition in definitions]
    facts = [*facts, *_prepared(unit), _fact(unit)]
    text = _render("module.py.jinja", title=_title(unit), facts=facts, imports=_imports(parts), parts=parts) + "\n"
    replay(text, model.name, graph)
    return text


def _render(template: str, **values: object) -> str:
    return _templates().get_template(template).render(**values).rstrip("\n")


def _class(cls: Class) -> ast.ClassDef:
    arguments = [ast.arg("self")]
    defaults: list[ast.expr] = []
    for argument in cls.arguments:
        arguments.append(ast.arg(argument.name, build.parse(argument.annotation)))
        if not argument.required:
            defaults.append(build.literal(argument.default))
    start: list[ast.stmt] = [] if cls.custom_init else [ast.Expr(build.parse("super().__init__()"))]
    init = build.function("__init__", arguments, [*start, *cls.init], "None", defaults=defaults)
    body: list[ast.stmt] = [ast.Expr(ast.Constant(cls.doc))] if cls.doc else []
    if len(init.body) > 1 or arguments[1:]:
        body.append(init)
    body += [*cls.methods, build.function("forward", cls.inputs(), cls.forward, cls.returns)]
    return ast.ClassDef(cls.name, cls.bases, [], body, [])


def _title(unit: Unit) -> str:
    point = f", variant {unit.variant}" if unit.variant else (f", {unit.scale}" if unit.scale else "")
    sizes = ", ".join(" x ".join(map(str, shape)) for shape in unit.input_shapes.values())
    return f"{unit.name}{point}: input {sizes}, {unit.params:,} parameters, {unit.macs / 1e9:.2f} G multiply-adds."


def _prepared(unit: Unit) -> list[str]:
    """How a picture becomes each input, in the words of the spec."""
    inputs: dict[str, list[str]] = {}
    for key, value in unit.metadata.items():
        name, _, argument = key.partition(".")
        inputs.setdefault(name, []).append(f"{argument} {value}".replace(" ", _UNBROKEN))
    lines = [f"Prepare {name}: {', '.join(words)}." for name, words in inputs.items()]
    wrapped = (textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False) for line in lines)
    return ["\n".join(parts).replace(_UNBROKEN, " ") for parts in wrapped]


def _fact(unit: Unit) -> str:
    fact = f"Compiled by effspec from {unit.spec}, function {unit.hashes.get('function', '')[:12]}; {PLACEHOLDER}."
    rule = textwrap.fill(f"Scaled by {unit.scaling}, in place of the model's own rule.", WIDTH) if unit.scaling else ""
    return f"{rule}\n{fact}".lstrip()


def _imports(parts: list[str]) -> list[str]:
    """The imports that the text needs, as ruff sorts them."""
    words = {word for part in parts for word in build.free_names(ast.parse(part))}
    lines = ["from collections import OrderedDict"] if "OrderedDict" in words else []
    abstract = [word for word in ("Callable", "Iterator") if word in words]
    lines += [f"from collections.abc import {', '.join(abstract)}"] if abstract else []
    lines += [*([""] if lines else []), "import torch", "from torch import nn"]
    if "F" in words:
        lines.append("from torch.nn import functional as F")
    return lines
