"""Initial values in an emitted file: stated once, at the end of the model's `__init__`."""

from __future__ import annotations

import ast
from collections import Counter
from fractions import Fraction
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name, parse

from effspec.ir.graph import Graph, Initializer, Node, Parameter
from effspec.params import distribution


class Law(NamedTuple):
    """How a tensor starts, comparable."""

    kind: str
    arguments: tuple[tuple[str, Any], ...]

    @property
    def numbers(self) -> dict[str, Any]:
        return dict(self.arguments)


_LISTED = 3  # so many tensors are named one by one
_ENDS = 4  # so many endings of paths stand in one test
_MODULES = {"conv": "nn.Conv2d", "conv_transpose": "nn.ConvTranspose2d", "linear": "nn.Linear"}
_NORMS = {"batch_norm": "nn.BatchNorm2d"}
_ONE = ("constant", (("value", 1),))  # how torch's norms start


def initialise(graph: Graph) -> list[ast.stmt]:
    """The last statements of the model's `__init__`: what all weights of a kind start as, then those that differ."""
    owners: dict[str, list[tuple[Law, Parameter]]] = {}
    grouped = any("groups" in parameter.init.args for node in graph for parameter in node.parameters.values())
    seen: set[str] = set()
    for node in graph:
        for word, parameter in node.parameters.items():
            if (word == "weight" or node.op == "parameter") and parameter.path not in seen:
                seen.add(parameter.path)
                kind = _kind(node, parameter)
                owners.setdefault(kind, []).append((_law(parameter.init, kind, grouped), parameter))
    special: dict[Law, list[str]] = {}
    apart: list[ast.stmt] = []
    branches: dict[str, tuple[list[str], list[ast.stmt]]] = {}
    for kind, module in (_MODULES | _NORMS).items():
        if kind in owners:
            counts = Counter(law for law, _ in owners[kind])
            # Xavier's is said as well of single tensors, and the others with the sizes of a module.
            common = max(counts, key=lambda law: (not law.kind.startswith("xavier"), counts[law]))
            if kind in _MODULES or common != _ONE:
                body = _statements(common, kind)
                modules, _ = branches.setdefault("".join(map(build.dump, body)), ([], body))
                modules.append(module)
            rare: dict[Law, list[Parameter]] = {}
            for law, parameter in owners[kind]:
                if law != common:
                    rare.setdefault(law, []).append(parameter)
            for law, parameters in rare.items():
                owner = parameters[0].path.removesuffix(".weight")
                parts = _parts(parameters, [parameter for _, parameter in owners[kind]])
                if len(parameters) == 1 and all(word.isidentifier() for word in owner.split(".")):
                    # Its size may be an argument, as the classifier's.
                    apart += [build.substitute(s, {"module": parse(f"self.{owner}")}) for s in _statements(law, kind)]
                    continue
                if parts and len(parameters) > _LISTED:
                    apart.append(_in_parts(parts, module, _statements(law, kind)))
                    continue
                for parameter in parameters:
                    special.setdefault(_on_its_own(law, parameter), []).append(parameter.path)
    for law, parameter in owners.get("other", []):
        if law.kind != "constant" or (law.numbers["value"] != 1 and _is_scale(graph, parameter)):
            special.setdefault(_on_its_own(law, parameter), []).append(parameter.path)
    loop: list[ast.stmt] = []
    if branches:
        body = _by_module(list(branches.values()), [_MODULES[op] for op in _MODULES if _is_biased(op, graph)])
        loop.append(ast.For(build.store(name("module")), parse("self.modules()"), body, [], lineno=0))
    known = [parameter.path for parameter in graph.parameters()]
    return loop + apart + [_one_by_one(law, paths, known) for law, paths in special.items()]


def _kind(node: Node, parameter: Parameter) -> str:
    """The operator whose weight it is; a convolution's weight may be a node of its own."""
    if node.op == "parameter" and len(parameter.shape) == 4 and parameter.path.endswith(".weight"):
        return "conv"
    known = node.op in _MODULES or (node.op in _NORMS and len(node.types[0].shape) == 3)
    return node.op if known else "other"


def _is_biased(op: str, graph: Graph) -> bool:
    return any(node.op == op and "bias" in node.parameters for node in graph)


def _by_module(branches: list[tuple[list[str], list[ast.stmt]]], biased: list[str]) -> list[ast.stmt]:
    """What is done to a module of each kind, and to the bias of those that have one."""
    tests = [ast.If(_is_one_of(modules), body, []) for modules, body in branches]
    for first, second in pairwise(tests):
        first.orelse = [second]
    if not biased:
        return [tests[0]]
    has_bias = parse("module.bias is not None")
    zero: list[ast.stmt] = [ast.Expr(parse("nn.init.zeros_(module.bias)"))]
    if len(branches) == 1 and set(biased) <= set(branches[0][0]):
        tests[0].body.append(ast.If(has_bias, zero, []))
        return [tests[0]]
    return [tests[0], ast.If(ast.BoolOp(ast.And(), [_is_one_of(biased), has_bias]), zero, [])]


def _is_one_of(modules: list[str]) -> ast.expr:
    return parse(f"isinstance(module, {' | '.join(modules)})")


def _parts(some: list[Parameter], every: list[Parameter]) -> list[str]:
    """The parts of the model that hold these tensors and none of the others of their kind; none if they do."""
    parts = dict.fromkeys(parameter.path.partition(".")[0] for parameter in some)
    held = sum(parameter.path.partition(".")[0] in parts for parameter in every)
    return list(parts) if held == len(some) else []


def _in_parts(parts: list[str], module: str, body: list[ast.stmt]) -> ast.stmt:
    """What is done to the modules of one kind in some parts of the model."""
    found: list[ast.stmt] = [ast.If(_is_one_of([module]), body, [])]
    held: list[ast.expr] = [call(f"self.{part}.modules") for part in parts]
    listed = ast.List([ast.Starred(modules, ast.Load()) for modules in held], ast.Load())
    return ast.For(build.store(name("module")), listed if len(held) > 1 else held[0], found, [], lineno=0)


def _one_by_one(law: Law, paths: list[str], known: list[str]) -> ast.stmt:
    """What is done to the tensors that start otherwise than their kind; `known` are the paths of all tensors."""
    if len(paths) == 1 and all(word.isidentifier() for word in paths[0].split(".")):
        return ast.Expr(_draw(law, parse(f"self.{paths[0]}")))
    test = _what_only_they_have(paths, known) if len(paths) > _LISTED else None
    if test is not None:
        target = ast.Tuple([build.store(name("path")), build.store(name("parameter"))], ast.Store())
        body: list[ast.stmt] = [ast.If(test, [ast.Expr(_draw(law, name("parameter")))], [])]
        return ast.For(target, parse("self.named_parameters()"), body, [], lineno=0)
    listed = ast.Tuple([ast.Constant(path) for path in paths], ast.Load())
    draw = ast.Expr(_draw(law, parse("self.get_parameter(path)")))
    return ast.For(build.store(name("path")), listed, [draw], [], lineno=0)


def _what_only_they_have(paths: list[str], known: list[str]) -> ast.expr | None:
    """A test of the beginning and the end of `path` that is true of these paths and of no other."""
    start = _common([path.split(".") for path in paths])
    end = _common([path.split(".")[::-1] for path in paths])[::-1]
    first, last = "".join(f"{word}." for word in start), "".join(f".{word}" for word in end)
    for head, tail in (("", last), (first, last)):
        if tail and [path for path in known if path.startswith(head) and path.endswith(tail)] == paths:
            tests = [f"path.startswith({head!r})"] if head else []
            return parse(" and ".join([*tests, f"path.endswith({tail!r})"]))
    ends = {_shortest_end(path, paths, known) for path in paths}
    few = len(ends) <= min(_ENDS, len(paths) // 2)
    return parse(f"path.endswith({tuple(sorted(ends))!r})") if few else None


def _shortest_end(path: str, paths: list[str], known: list[str]) -> str:
    """The fewest last words of a path that no path but `paths` ends with; at least two."""
    words, own = path.split("."), set(paths)
    for count in range(2, len(words)):
        end = "." + ".".join(words[-count:])
        if all(other in own for other in known if other.endswith(end)):
            return end
    return path


def _common(rows: list[list[str]]) -> list[str]:
    """The words with which all rows begin."""
    return [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*rows, strict=False))]


def _is_scale(graph: Graph, parameter: Parameter) -> bool:
    """Whether a tensor is the weight of a normalisation (whose module starts at one)."""
    return any(parameter in node.parameters.values() and node.op != "parameter" for node in graph)


def _law(init: Initializer, kind: str, grouped: bool) -> Law:
    """The law of a weight; where nothing has groups a fan out is what torch calls so (`fan_out_all`)."""
    values = {word: value for word, value in init.args.items() if word != "groups"}
    if init.kind.startswith("xavier"):
        values["mode"] = "fan_out"
    if values.get("mode") == "fan_out" and (kind == "linear" or not grouped):
        values["mode"] = "fan_out_all"
    return Law(init.kind, tuple(sorted(values.items())))


def _statements(law: Law, kind: str) -> list[ast.stmt]:
    """What one law does to `module.weight`."""
    weight = parse("module.weight")
    if not law.kind.startswith(("kaiming", "xavier")):
        return [ast.Expr(_draw(law, weight))]
    gain = Fraction(law.numbers["gain"])
    if _is_torch_s_own(law) and kind != "conv_transpose":
        return [ast.Expr(_draw(law, weight))]
    fan, statement = _fan(law, kind)
    scale = _root(gain * gain * (3 if law.kind.endswith("uniform") else 1), fan)
    if law.kind.endswith("normal"):
        draw = call("nn.init.normal_", weight, std=scale)
    else:
        draw = call("nn.init.uniform_", weight, ast.UnaryOp(ast.USub(), scale), scale)
    return [*statement, ast.Expr(draw)]


def _is_torch_s_own(law: Law) -> bool:
    """Whether torch's function means this law, with the gain of a relu; torch leaves the groups out of a fan."""
    gain = Fraction(law.numbers["gain"]) if law.kind.startswith("kaiming") else Fraction(0)
    return law.numbers.get("mode") in ("fan_in", "fan_out_all") and abs(gain * gain - 2) < Fraction(1, 10**12)


def _on_its_own(law: Law, parameter: Parameter) -> Law:
    """The law of one tensor, of which the fans are known."""
    alike = law.kind.startswith("xavier") and "groups" not in parameter.init.args
    if not law.kind.startswith(("kaiming", "xavier")) or _is_torch_s_own(law) or alike:
        return law
    known = distribution(parameter.init, parameter.shape)
    return Law(known.kind, tuple((word, number) for word, number in known._asdict().items() if word != "kind"))


def _fan(law: Law, kind: str) -> tuple[ast.expr, list[ast.stmt]]:
    """The fan as a name, and how it is counted: outputs of an input (by groups), or inputs of an output."""
    if kind == "linear":
        into, out = "module.in_features", "module.out_features"
    elif kind == "conv":
        into = "module.weight[0].numel()"
        out = "module.weight[0, 0].numel() * module.out_channels"
        out += " // module.groups" if law.numbers.get("mode") == "fan_out" else ""
    else:
        into, out = "module.weight[0].numel()", "module.weight[:, 0].numel()"
    if law.kind.startswith("xavier"):
        return name("fan"), [build.assign("fan", parse(f"({into} + {out}) / 2"))]
    mode = str(law.numbers.get("mode", "fan_in"))
    text = into if mode == "fan_in" else out
    if kind == "linear":
        return parse(text), []
    fan = mode.removesuffix("_all")
    return name(fan), [build.assign(fan, parse(text))]


def _root(squared: Fraction, fan: ast.expr) -> ast.expr:
    """sqrt(squared / fan), with the number as it would be written."""
    nearest = round(squared)
    number: Any = nearest if nearest and abs(squared - nearest) < Fraction(1, 10**12) else float(squared)
    if number == 1:
        return ast.BinOp(fan, ast.Pow(), build.constant(-0.5))
    return ast.BinOp(ast.BinOp(build.constant(number), ast.Div(), fan), ast.Pow(), ast.Constant(0.5))


def _draw(law: Law, weight: ast.expr) -> ast.expr:
    """A law on one tensor."""
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
    if law.kind.startswith("xavier"):
        gain = {} if values["gain"] == 1 else {"gain": numbers["gain"]}
        return call(f"nn.init.{law.kind}_", weight, **gain)
    mode = {"mode": ast.Constant("fan_out")} if values["mode"] == "fan_out_all" else {}
    return call(f"nn.init.{law.kind}_", weight, **mode, nonlinearity=ast.Constant("relu"))
