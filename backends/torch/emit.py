"""Prints a planned file through its templates, holds it to the closed list, and proves it against the graph."""

from __future__ import annotations

import ast
from functools import cache
from typing import Any

import jinja2

from effspec.backend import Unit
from effspec.backends.torch import build, guard
from effspec.backends.torch.body import Class
from effspec.backends.torch.features import split_features
from effspec.backends.torch.initial import initialise
from effspec.backends.torch.layout import print_module
from effspec.backends.torch.plan import Plan
from effspec.backends.torch.replay import replay
from effspec.elaborate import Elaborated
from effspec.output import PLACEHOLDER


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("effspec.backends.torch", "templates")
    return jinja2.Environment(
        loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )


def emit(unit: Unit) -> str:
    """The stand-alone PyTorch source of a compiled model."""
    elaborated = unit.elaborated
    assert isinstance(elaborated, Elaborated)
    plan = Plan(elaborated)
    file = plan.file()
    model = file.classes[-1]
    model.init += initialise(elaborated.graph)
    split_features(model)
    definitions: list[ast.stmt] = [_class(cls) for cls in file.classes[:-1]]
    if file.stage is not None:
        definitions.append(file.stage)
    definitions.append(_class(model))
    names = {word: file.helpers.get(word, word) for word in file.helpers}
    helpers = [
        _templates().get_template(f"{word}.py.jinja").render(names=names).rstrip("\n")
        for word in ("DropPath", "pad_same", "avg_pool_same", "SameConv2d", "PaddedConv2d", "LayerNorm2d")
        if word in file.helpers
    ]
    printed = [print_module([ast.fix_missing_locations(d)]).rstrip("\n") for d in definitions]
    parts = helpers + printed
    text = _templates().get_template("module.py.jinja").render(
        title=_title(unit), facts=_facts(unit), imports=_imports(parts), parts=parts
    )
    guard.check_source(text)
    replay(text, model.name, elaborated.graph)
    return text


def _class(cls: Class) -> ast.ClassDef:
    arguments = [ast.arg("self")]
    defaults: list[ast.expr] = []
    for argument in cls.arguments:
        arguments.append(ast.arg(argument.name, build.parse(argument.annotation)))
        if not argument.required:
            defaults.append(build.literal(argument.default))
    start: list[ast.stmt] = [] if cls.custom_init else [ast.Expr(build.parse("super().__init__()"))]
    init = _function("__init__", arguments, defaults, [*start, *cls.init], "None")
    inputs = [ast.arg("self"), *[ast.arg(word, build.parse(kind)) for word, kind in cls.forward_args]]
    body: list[ast.stmt] = [ast.Expr(ast.Constant(cls.doc))] if cls.doc else []
    if len(init.body) > 1 or arguments[1:]:
        body.append(init)
    body += [*cls.methods, _function("forward", inputs, [], cls.forward, cls.returns)]
    return ast.ClassDef(cls.name, cls.bases, [], body, [])


def _function(
    word: str, arguments: list[ast.arg], defaults: list[ast.expr], body: list[ast.stmt], returns: str
) -> ast.FunctionDef:
    signature = ast.arguments([], arguments, None, [], [], None, defaults)
    return ast.FunctionDef(
        name=word, args=signature, body=body, decorator_list=[], returns=build.parse(returns), lineno=0
    )


def _title(unit: Unit) -> str:
    point = f", variant {unit.variant}" if unit.variant else (f", {unit.scale}" if unit.scale else "")
    sizes = ", ".join(" x ".join(map(str, shape)) for shape in unit.input_shapes.values())
    return f"{unit.name}{point}: input {sizes}, {unit.params:,} parameters, {unit.macs / 1e9:.2f} G multiply-adds."


def _facts(unit: Unit) -> list[str]:
    return [
        f"Compiled by effspec from {unit.spec}, function {unit.hashes.get('function', '')[:12]}; {PLACEHOLDER}.",
    ]


def _imports(parts: list[str]) -> list[str]:
    """The imports that the text needs, as ruff sorts them."""
    words: set[str] = set()
    for part in parts:
        words |= build.free_names(ast.parse(part))
    lines = []
    if "OrderedDict" in words:
        lines.append("from collections import OrderedDict")
    abstract = [word for word in ("Callable", "Iterator") if word in words]
    if abstract:
        lines.append(f"from collections.abc import {', '.join(abstract)}")
    if lines:
        lines.append("")
    lines += ["import torch", "from torch import nn"]
    if "F" in words:
        lines.append("from torch.nn import functional as F")
    return lines



