"""Initial values in an emitted file: stated once, at the end of the model's `__init__`."""

from __future__ import annotations

import ast
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name, parse

from effspec.ir.graph import Graph, Initializer, Node, Parameter


class Law(NamedTuple):
    """How a tensor starts, comparable."""

    kind: str
    arguments: tuple[tuple[str, Any], ...]

    @property
    def numbers(self) -> dict[str, Any]:
        return dict(self.arguments)


_MODULES = {"conv": "nn.Conv2d", "conv_transpose": "nn.ConvTranspose2d", "linear": "nn.Linear"}


def initialise(graph: Graph) -> list[ast.stmt]:
    """The last statements of the model's `__init__`: what all weights of a kind start as, then those that differ."""
    owners: dict[str, list[tuple[Law, Parameter]]] = {}
    for node in graph:
        for word, parameter in node.parameters.items():
            if word == "weight" or node.op == "parameter":
                owners.setdefault(_kind(node, parameter), []).append((_law(parameter.init), parameter))
    special: dict[Law, list[str]] = {}
    branches: list[ast.If] = []
    for kind, module in _MODULES.items():
        if kind in owners:
            common, _ = Counter(law for law, _ in owners[kind]).most_common(1)[0]
            branches.append(ast.If(parse(f"isinstance(module, {module})"), _statements(common, kind), []))
            for law, parameter in owners[kind]:
                if law != common:
                    special.setdefault(law, []).append(parameter.path)
    for law, parameter in owners.get("other", []):
        if law.kind != "constant" or (law.numbers["value"] != 1 and _is_scale(graph, parameter)):
            special.setdefault(law, []).append(parameter.path)
    loop: list[ast.stmt] = []
    if branches:
        for first, second in pairwise(branches):
            first.orelse = [second]
        body = [branches[0], *_biases(graph)]
        loop.append(ast.For(build.store(name("module")), parse("self.modules()"), body, [], lineno=0))
    return loop + [_one_by_one(law, paths) for law, paths in special.items()]


def _kind(node: Node, parameter: Parameter) -> str:
    """The operator whose weight it is; a convolution's weight may be a node of its own."""
    if node.op == "parameter" and len(parameter.shape) == 4 and parameter.path.endswith(".weight"):
        return "conv"
    return node.op if node.op in _MODULES else "other"


def _biases(graph: Graph) -> list[ast.stmt]:
    biased = [module for op, module in _MODULES.items() if any(n.op == op and "bias" in n.parameters for n in graph)]
    if not biased:
        return []
    test = parse(f"isinstance(module, {' | '.join(biased)}) and module.bias is not None")
    return [ast.If(test, [ast.Expr(parse("nn.init.zeros_(module.bias)"))], [])]


def _one_by_one(law: Law, paths: list[str]) -> ast.stmt:
    """A loop over the tensors that start otherwise than their kind."""
    listed = ast.Tuple([ast.Constant(path) for path in paths], ast.Load())
    draw = ast.Expr(_draw(law, parse("self.get_parameter(path)")))
    return ast.For(build.store(name("path")), listed, [draw], [], lineno=0)


def _is_scale(graph: Graph, parameter: Parameter) -> bool:
    """Whether a tensor is the weight of a normalisation (whose module starts at one)."""
    return any(parameter in node.parameters.values() and node.op != "parameter" for node in graph)


def _law(init: Initializer) -> Law:
    return Law(init.kind, tuple(sorted((word, value) for word, value in init.args.items() if word != "groups")))


def _statements(law: Law, kind: str) -> list[ast.stmt]:
    """What one law does to `module.weight`."""
    weight = parse("module.weight")
    if not law.kind.startswith(("kaiming", "xavier")):
        return [ast.Expr(_draw(law, weight))]
    fan, statement = _fan(law, kind)
    gain = Fraction(law.numbers["gain"])
    scale = _root(gain * gain * (3 if law.kind.endswith("uniform") else 1), fan)
    if law.kind.endswith("normal"):
        draw = call("nn.init.normal_", weight, std=scale)
    else:
        draw = call("nn.init.uniform_", weight, ast.UnaryOp(ast.USub(), scale), scale)
    return [*statement, ast.Expr(draw)]


def _fan(law: Law, kind: str) -> tuple[ast.expr, list[ast.stmt]]:
    """The fan as a name, and how it is counted: outputs of an input (by groups), or inputs of an output."""
    if kind == "linear":
        into, out = "module.in_features", "module.out_features"
    elif kind == "conv":
        into = "module.weight[0].numel()"
        out = "module.weight[0, 0].numel() * module.out_channels // module.groups"
    else:
        into, out = "module.weight[0].numel()", "module.weight[:, 0].numel()"
    if law.kind.startswith("xavier"):
        return name("fan"), [build.assign("fan", parse(f"({into} + {out}) / 2"))]
    mode = str(law.numbers.get("mode", "fan_in"))
    text = out if mode == "fan_out" else into
    if kind == "linear":
        return parse(text), []
    return name(mode), [build.assign(mode, parse(text))]


def _root(squared: Fraction, fan: ast.expr) -> ast.expr:
    """sqrt(squared / fan), with the number as it would be written."""
    nearest = round(squared)
    number: Any = nearest if nearest and abs(squared - nearest) < Fraction(1, 10**12) else float(squared)
    if number == 1:
        return ast.BinOp(fan, ast.Pow(), build.constant(-0.5))
    return ast.BinOp(ast.BinOp(build.constant(number), ast.Div(), fan), ast.Pow(), ast.Constant(0.5))


def _draw(law: Law, weight: ast.expr) -> ast.expr:
    """A law on one tensor, whose fans torch counts."""
    values = law.numbers
    numbers = {word: build.literal(value) for word, value in values.items()}
    match law.kind:
        case "constant" if values["value"] in (0, 1):
            return call("nn.init.ones_" if values["value"] else "nn.init.zeros_", weight)
        case "constant":
            return call("nn.init.constant_", weight, numbers["value"])
        case "normal":
            return call("nn.init.normal_", weight, mean=numbers["mean"], std=numbers["std"])
        case "uniform":
            return call("nn.init.uniform_", weight, numbers["low"], numbers["high"])
        case "truncated_normal":
            reach = values["cut"] * values["std"]
            ends = {"a": build.literal(values["mean"] - reach), "b": build.literal(values["mean"] + reach)}
            return call("nn.init.trunc_normal_", weight, mean=numbers["mean"], std=numbers["std"], **ends)
    return call(f"nn.init.{law.kind}_", weight, **{word: numbers[word] for word in ("mode",) if word in numbers})
