"""Initial values in an emitted file: stated once, at the end of the model's `__init__`."""

from __future__ import annotations

import ast
from collections import Counter
from fractions import Fraction
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name, parse
from effspec.ir.graph import Graph, Initializer, Parameter

_MODULES = {"conv": "nn.Conv2d", "conv_transpose": "nn.ConvTranspose2d", "linear": "nn.Linear"}


def initialise(graph: Graph) -> list[ast.stmt]:
    """The last statements of the model's `__init__`: what all weights of a kind start as, then those that start otherwise."""
    laws: dict[str, Counter[Any]] = {}
    owners: dict[str, list[tuple[Any, Parameter]]] = {}
    for node in graph:
        for word, parameter in node.parameters.items():
            if word != "weight" and not (node.op == "parameter"):
                continue
            kind = node.op if node.op in _MODULES else "other"
            if node.op == "parameter" and len(parameter.shape) == 4 and parameter.path.endswith(".weight"):
                kind = "conv"
            mark = _mark(parameter.init)
            laws.setdefault(kind, Counter())[mark] += 1
            owners.setdefault(kind, []).append((mark, parameter))
    branches: list[ast.stmt] = []
    biased: list[str] = []
    special: dict[Any, list[str]] = {}
    for kind, module in _MODULES.items():
        if kind not in laws:
            continue
        common = laws[kind].most_common(1)[0][0]
        branches.append(ast.If(parse(f"isinstance(module, {module})"), _statements(common, kind), []))
        if any("bias" in node.parameters for node in graph if node.op == kind):
            biased.append(module)
        for mark, parameter in owners[kind]:
            if mark != common:
                special.setdefault(mark, []).append(parameter.path)
    for mark, parameter in owners.get("other", []):
        kind_of, args = mark
        if kind_of != "constant" or (dict(args)["value"] != 1 and _is_scale(graph, parameter)):
            special.setdefault(mark, []).append(parameter.path)
    extra: list[ast.stmt] = []
    for mark, paths in special.items():
        listed = ast.Tuple([ast.Constant(p) for p in paths], ast.Load())
        tree = _draw(mark, parse("self.get_parameter(path)"), parse("self.get_parameter(path)"))
        extra.append(ast.For(ast.Name("path", ast.Store()), listed, [ast.Expr(tree)], [], lineno=0))
    if not branches:
        return extra
    for first, second in zip(branches, branches[1:], strict=False):
        assert isinstance(first, ast.If)
        first.orelse = [second]
    body = [branches[0]]
    if biased:
        test = parse(f"isinstance(module, {' | '.join(biased)}) and module.bias is not None")
        body.append(ast.If(test, [ast.Expr(parse("nn.init.zeros_(module.bias)"))], []))
    loop = ast.For(ast.Name("module", ast.Store()), parse("self.modules()"), body, [], lineno=0)
    return [loop, *extra]


def _is_scale(graph: Graph, parameter: Parameter) -> bool:
    """Whether a tensor is the weight of a normalisation (whose module starts at one)."""
    return any(parameter in node.parameters.values() and node.op != "parameter" for node in graph)


def _mark(init: Initializer) -> Any:
    return (init.kind, tuple(sorted((k, v) for k, v in init.args.items() if k != "groups")))


def _statements(mark: Any, kind: str) -> list[ast.stmt]:
    """What one law does to `module.weight`."""
    word, args = mark
    numbers = dict(args)
    weight = parse("module.weight")
    if not word.startswith(("kaiming", "xavier")):
        return [ast.Expr(_draw(mark, weight, weight))]
    fan, statement = _fan(word, numbers, kind)
    gain = Fraction(numbers["gain"])
    squared = gain * gain * (3 if word.endswith("uniform") else 1)
    scale = _root(squared, fan)
    if word.endswith("normal"):
        draw = call("nn.init.normal_", weight, std=scale)
        return [*statement, ast.Expr(draw)]
    return [*statement, ast.Expr(call("nn.init.uniform_", weight, ast.UnaryOp(ast.USub(), scale), scale))]


def _fan(word: str, numbers: dict[str, Any], kind: str) -> tuple[ast.expr, list[ast.stmt]]:
    """The fan as a name, and how it is counted: outputs of an input (by groups), or inputs of an output."""
    if kind == "linear":
        into, out = "module.in_features", "module.out_features"
    elif kind == "conv":
        into = "module.weight[0].numel()"
        out = "module.weight[0, 0].numel() * module.out_channels // module.groups"
    else:
        into, out = "module.weight[0].numel()", "module.weight[:, 0].numel()"
    if word.startswith("xavier"):
        return name("fan"), [build.assign("fan", parse(f"({into} + {out}) / 2"))]
    mode = numbers.get("mode", "fan_in")
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


def _draw(mark: Any, weight: ast.expr, source: ast.expr) -> ast.expr:
    """A law without fans on one tensor."""
    word, args = mark
    numbers = {k: build.literal(v) for k, v in args}
    if word == "constant":
        value = dict(args)["value"]
        if value in (0, 1):
            return call("nn.init.zeros_" if value == 0 else "nn.init.ones_", weight)
        return call("nn.init.constant_", weight, numbers["value"])
    if word == "normal":
        return call("nn.init.normal_", weight, mean=numbers["mean"], std=numbers["std"])
    if word == "uniform":
        return call("nn.init.uniform_", weight, numbers["low"], numbers["high"])
    if word == "truncated_normal":
        values = dict(args)
        reach = values["cut"] * values["std"]
        return call(
            "nn.init.trunc_normal_", weight, mean=numbers["mean"], std=numbers["std"],
            a=build.literal(values["mean"] - reach), b=build.literal(values["mean"] + reach),
        )
    function = {"kaiming_normal": "nn.init.kaiming_normal_", "kaiming_uniform": "nn.init.kaiming_uniform_",
                "xavier_normal": "nn.init.xavier_normal_", "xavier_uniform": "nn.init.xavier_uniform_"}[word]
    keywords = {"mode": numbers["mode"]} if "mode" in numbers else {}
    return call(function, weight, **keywords)
