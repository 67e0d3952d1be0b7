"""Operators as expressions: how each is written in forward."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import NamedTuple

from effspec.backends.torch import build
from effspec.backends.torch.build import attribute, call, is_literal, parse, shifted, tupled
from effspec.backends.torch.operators import Attributes, Need, activation_keywords, keywords_of

FUNCTIONS: dict[str, str] = {
    "relu": "F.relu",
    "relu6": "F.relu6",
    "silu": "F.silu",
    "mish": "F.mish",
    "sigmoid": "torch.sigmoid",
    "hard_sigmoid": "F.hardsigmoid",
    "hard_swish": "F.hardswish",
    "tanh": "torch.tanh",
    "softplus": "F.softplus",
    "gelu": "F.gelu",
    "leaky_relu": "F.leaky_relu",
    "elu": "F.elu",
    "softmax": "F.softmax",
}


class Use(NamedTuple):
    """What an operator is written from: its tensor or list of `inputs` tensors; `batched` is 1 with a batch axis."""

    source: ast.expr
    attributes: Attributes
    inputs: int
    batched: int
    need: Need

    def elements(self) -> list[ast.expr]:
        """The tensors of the list."""
        if isinstance(self.source, ast.List):
            return self.source.elts
        return [ast.Subscript(self.source, ast.Constant(i), ast.Load()) for i in range(self.inputs)]


def functional(op: str, use: Use) -> ast.expr:
    """The expression of an operator in forward."""
    if op in FUNCTIONS:
        return call(FUNCTIONS[op], use.source, **activation_keywords(op, use.attributes))
    return FUNCTIONAL[op](use)


def _method(tree: ast.expr, word: str, *args: ast.expr, **keywords: ast.expr) -> ast.expr:
    return call(attribute(tree, word), *args, **keywords)


def _torch_pads(tree: ast.expr) -> ast.expr:
    """[[top, bottom], [left, right]] as F.pad takes it: the last axis first."""
    vertical, horizontal = build.elements(tree)
    return ast.Tuple([*build.elements(horizontal), *build.elements(vertical)], ast.Load())


def _window(use: Use) -> list[ast.expr]:
    """Positional kernel, stride and padding, without what torch assumes."""
    kernel, stride, padding = (use.attributes[word] for word in ("kernel_size", "stride", "padding"))
    if not is_literal(padding, 0):
        return [kernel, stride, padding]
    return [kernel] if build.dump(kernel) == build.dump(stride) else [kernel, stride]


def _max_pool(use: Use) -> ast.expr:
    a, source = use.attributes, use.source
    keywords = keywords_of([("dilation", a.get("dilation"), 1), ("ceil_mode", a.get("ceil"), False)])
    lowest = parse("-torch.inf")
    if "same" in a:
        source = call(use.need("pad_same"), source, a["kernel_size"], a["stride"], value=lowest)
    elif "explicit" in a:
        source = call("F.pad", source, _torch_pads(a["explicit"]), value=lowest)
    else:
        return call("F.max_pool2d", source, *_window(use), **keywords)
    return call("F.max_pool2d", source, a["kernel_size"], a["stride"], **keywords)


def _avg_pool(use: Use) -> ast.expr:
    a, source = use.attributes, use.source
    keywords = keywords_of([("ceil_mode", a.get("ceil"), False)])
    if "same" in a:
        return call(use.need("avg_pool_same"), source, a["kernel_size"], a["stride"])
    if "explicit" in a:
        source = call("F.pad", source, _torch_pads(a["explicit"]))
        return call("F.avg_pool2d", source, a["kernel_size"], a["stride"], **keywords)
    if not is_literal(a["padding"], 0):
        keywords |= keywords_of([("count_include_pad", a["count_pad"], True)])
    return call("F.avg_pool2d", source, *_window(use), **keywords)


def _dynamic_conv(use: Use) -> ast.expr:
    a, (source, weight) = use.attributes, use.elements()
    if "same" in a:
        source = call(use.need("pad_same"), source, a["kernel_size"], a["stride"])
    elif "explicit" in a:
        source = call("F.pad", source, _torch_pads(a["explicit"]))
    words = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
    keywords = keywords_of([(word, a.get(word), usual) for word, usual in words])
    return call(use.need("dynamic_conv"), source, weight, **{word: tupled(tree) for word, tree in keywords.items()})


def _global(word: str) -> Callable[[Use], ast.expr]:
    def rule(use: Use) -> ast.expr:
        axes = ast.Tuple([ast.Constant(1 + use.batched), ast.Constant(2 + use.batched)], ast.Load())
        return _method(use.source, word, axes, keepdim=ast.Constant(True))

    return rule


def _reduce(word: str) -> Callable[[Use], ast.expr]:
    def rule(use: Use) -> ast.expr:
        axes = [shifted(axis, use.batched) for axis in build.elements(use.attributes["axes"])]
        one_or_more = axes[0] if len(axes) == 1 else ast.Tuple(axes, ast.Load())
        return _method(use.source, word, one_or_more, keepdim=ast.Constant(True))

    return rule


def _concat(use: Use) -> ast.expr:
    return call("torch.cat", use.source, dim=shifted(use.attributes["axis"], use.batched))


def _add(use: Use) -> ast.expr:
    if isinstance(use.source, ast.List) and use.source.elts:
        return _folded(ast.Add, use.elements())
    if isinstance(use.source, ast.ListComp):
        return call("sum", ast.GeneratorExp(use.source.elt, use.source.generators))
    return call("sum", use.source)


def _mul(use: Use) -> ast.expr:
    return _folded(ast.Mult, use.elements())


def _matmul(use: Use) -> ast.expr:
    return _folded(ast.MatMult, use.elements())


def _folded(operator: type[ast.operator], elements: list[ast.expr]) -> ast.expr:
    tree, *others = elements
    for element in others:
        tree = ast.BinOp(tree, operator(), element)
    return tree


def _split(use: Use) -> ast.expr:
    axis = shifted(use.attributes["axis"], use.batched)
    if "chunks" in use.attributes:
        return _method(use.source, "chunk", use.attributes["chunks"], dim=axis)
    return _method(use.source, "split", use.attributes["sizes"], **keywords_of([("dim", axis, 0)]))


def _slice(use: Use) -> ast.expr:
    start, stop = use.attributes["start"], use.attributes["stop"]
    length: ast.expr = build.binary("-", stop, start)
    if not build.free_names(length):
        length = build.constant(build.run(build.code(length), {}))
    return _method(use.source, "narrow", shifted(use.attributes["axis"], use.batched), start, length)


def _reshape(use: Use) -> ast.expr:
    shape, source = use.attributes["shape"], use.source
    match shape:
        case ast.Attribute(value=ast.Name(id="self")):  # sizes that `__init__` has put together
            elements: list[ast.expr] = [ast.Starred(shape, ast.Load())]
        case ast.Attribute():  # another tensor's shape
            return _method(source, "reshape", shape)
        case _:
            elements = build.elements(shape)
    if not use.batched and sum(not is_literal(e, 1) for e in elements) == 1:
        elements = [e if is_literal(e, 1) else build.constant(-1) for e in elements]
    if use.batched:
        # What is not a variable is not written, and computed, a second time for its size.
        named = isinstance(source, ast.Name)
        batch = ast.Subscript(attribute(source, "shape"), ast.Constant(0), ast.Load()) if named else build.constant(-1)
        elements = [batch, *elements]
    return _method(source, "reshape", *elements)


def _permute(use: Use) -> ast.expr:
    order = [shifted(axis, use.batched) for axis in build.elements(use.attributes["order"])]
    return _method(use.source, "permute", *([ast.Constant(0)] if use.batched else []), *order)


def _flatten(use: Use) -> ast.expr:
    match use.source:
        case ast.Call(func=ast.Attribute(attr="mean" | "amax") as function, args=[axes]) if (
            ast.unparse(axes) == "(2, 3)"
        ):
            return call(function, axes)  # a mean without keepdim is flat already
    return _method(use.source, "flatten", ast.Constant(use.batched))


def _zero_pad(use: Use) -> ast.expr:
    return call("F.pad", use.source, _torch_pads(next(iter(use.attributes.values()))))


def _resize(use: Use) -> ast.expr:
    a, mode = use.attributes, use.attributes["mode"]
    keywords = keywords_of([("scale_factor", a.get("scale"), None)]) or {"size": a["size"]}
    keywords = {word: tupled(tree) for word, tree in keywords.items()} | {"mode": mode}
    if not is_literal(mode, "nearest"):
        keywords |= keywords_of([("align_corners", a.get("align_corners"), None)])
    return call("F.interpolate", use.source, **keywords)


def _clip(use: Use) -> ast.expr:
    return _method(use.source, "clamp", use.attributes["low"], use.attributes["high"])


def _adaptive(use: Use) -> ast.expr:
    return call("F.adaptive_avg_pool2d", use.source, tupled(use.attributes["output_size"]))


FUNCTIONAL: dict[str, Callable[[Use], ast.expr]] = {
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global("mean"),
    "global_max_pool": _global("amax"),
    "adaptive_avg_pool": _adaptive,
    "reduce_mean": _reduce("mean"),
    "reduce_sum": _reduce("sum"),
    "reduce_max": _reduce("amax"),
    "concat": _concat,
    "add": _add,
    "mul": _mul,
    "matmul": _matmul,
    "dynamic_conv": _dynamic_conv,
    "split": _split,
    "slice": _slice,
    "reshape": _reshape,
    "permute": _permute,
    "flatten": _flatten,
    "zero_pad": _zero_pad,
    "resize": _resize,
    "clip": _clip,
}
