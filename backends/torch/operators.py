"""How each operator is written in PyTorch: as a module in `__init__`, and as an expression in forward."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.build import attribute, call, is_literal, name, parse
from effspec.ir.graph import Initializer
from effspec.layers import Application

Attributes = Mapping[str, ast.expr]

NEED_CHANNELS = frozenset({"conv", "conv_transpose", "linear", "batch_norm", "layer_norm", "group_norm"})
ALWAYS_MODULES = NEED_CHANNELS | {"dropout", "drop_path"}
WINDOWS = frozenset({"max_pool", "avg_pool"})

ACTIVATIONS: dict[str, str] = {
    "relu": "nn.ReLU",
    "relu6": "nn.ReLU6",
    "silu": "nn.SiLU",
    "mish": "nn.Mish",
    "sigmoid": "nn.Sigmoid",
    "hard_sigmoid": "nn.Hardsigmoid",
    "hard_swish": "nn.Hardswish",
    "tanh": "nn.Tanh",
    "softplus": "nn.Softplus",
    "gelu": "nn.GELU",
    "leaky_relu": "nn.LeakyReLU",
    "elu": "nn.ELU",
    "softmax": "nn.Softmax",
}
_FUNCTIONS: dict[str, str] = {
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


def _keywords(pairs: list[tuple[str, ast.expr | None, Any]]) -> dict[str, ast.expr]:
    """The keywords whose value is not torch's default."""
    return {word: tree for word, tree, default in pairs if tree is not None and not is_literal(tree, default)}


def _activation_keywords(op: str, attributes: Attributes) -> dict[str, ast.expr]:
    if op == "gelu":
        given = attributes.get("approximate")
        return {"approximate": ast.Constant("tanh")} if isinstance(given, ast.Constant) and given.value is True else {}
    if op == "leaky_relu":
        return _keywords([("negative_slope", attributes.get("slope"), 0.01)])
    if op == "elu":
        return _keywords([("alpha", attributes.get("alpha"), 1)])
    if op == "softmax":
        axis = attributes["axis"]
        assert isinstance(axis, ast.Constant)
        return {"dim": ast.Constant(axis.value + 1)}
    return {}


def module(op: str, attributes: Attributes, channels: ast.expr | None, planner: Any, weight: Any, rank: int) -> ast.expr:
    """The constructor call of an operator's module."""
    if op in ACTIVATIONS:
        return call(ACTIVATIONS[op], **_activation_keywords(op, attributes))
    if op == "dropout":
        return call("nn.Dropout", attributes["rate"])
    if op == "drop_path":
        return call(planner.need("DropPath"), attributes["rate"])
    assert channels is not None
    return _MODULES[op](attributes, channels, planner, weight, rank)


def _conv(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    function: ast.expr = parse("nn.Conv2d")
    keywords = _keywords(
        [
            ("stride", attributes["stride"], 1),
            ("padding", attributes.get("padding"), 0),
            ("dilation", attributes["dilation"], 1),
            ("groups", attributes["groups"], 1),
            ("bias", attributes["bias"], True),
        ]
    )
    if weight is not None:
        function = name(weight.name)
        taken = {argument.name for argument in weight.arguments}
        keywords = {word: tree for word, tree in keywords.items() if word in taken}
    elif "same" in attributes:
        function = name(planner.need("SameConv2d"))
    elif "explicit" in attributes:
        function = name(planner.need("PaddedConv2d"))
        keywords["pads"] = attributes["explicit"]
    return call(function, channels, attributes["out_channels"], attributes["kernel_size"], **keywords)


def _conv_transpose(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    keywords = _keywords(
        [
            ("stride", attributes["stride"], 1),
            ("padding", attributes.get("padding"), 0),
            ("output_padding", attributes["out_pad"], 0),
            ("groups", attributes["groups"], 1),
            ("bias", attributes["bias"], True),
            ("dilation", attributes["dilation"], 1),
        ]
    )
    return call("nn.ConvTranspose2d", channels, attributes["out_channels"], attributes["kernel_size"], **keywords)


def _linear(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    return call("nn.Linear", channels, attributes["out_features"], **_keywords([("bias", attributes["bias"], True)]))


def _batch_norm(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    pairs = [
        ("eps", attributes["eps"], 1e-5),
        ("momentum", attributes["momentum"], 0.1),
        ("affine", attributes["affine"], True),
    ]
    return call("nn.BatchNorm2d" if rank == 3 else "nn.BatchNorm1d", channels, **_keywords(pairs))


def _layer_norm(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    pairs = [("eps", attributes["eps"], 1e-5), ("elementwise_affine", attributes["affine"], True)]
    axes = attributes["axes"]
    elements = [e.value for e in getattr(axes, "elts", []) if isinstance(e, ast.Constant)]
    if elements == [0] and rank == 3:
        return call(planner.need("LayerNorm2d"), channels, **_keywords(pairs))
    return call("nn.LayerNorm", channels, **_keywords(pairs))


def _group_norm(attributes: Attributes, channels: ast.expr, planner: Any, weight: Any, rank: int) -> ast.expr:
    pairs = [("eps", attributes["eps"], 1e-5), ("affine", attributes["affine"], True)]
    return call("nn.GroupNorm", attributes["groups"], channels, **_keywords(pairs))


_MODULES: dict[str, Callable[..., ast.expr]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


# Forward -------------------------------------------------------------------------------------------------------------


def functional(
    op: str,
    source: ast.expr,
    is_list: bool,
    attributes: Mapping[str, ast.expr],
    application: Application,
    types: list[Any],
    planner: Any,
) -> ast.expr:
    """The expression of an operator in forward; `source` is its tensor, or a list of them."""
    if op in _FUNCTIONS:
        return call(_FUNCTIONS[op], source, **_activation_keywords(op, attributes))
    batched = int(types[0].batched)
    return _FUNCTIONAL[op](source, attributes, types, planner, batched, application)


def _axes(tree: ast.expr, shift: int) -> ast.expr:
    """Axes with the batch counted: an int for one, a tuple for several."""
    elements = getattr(tree, "elts", None)
    values = [e.value for e in elements] if elements is not None else [tree.value]  # type: ignore[attr-defined]
    shifted = [ast.Constant(v + shift) for v in values]
    return shifted[0] if len(shifted) == 1 else ast.Tuple(list(shifted), ast.Load())


def _axis(tree: ast.expr, shift: int) -> ast.expr:
    if isinstance(tree, ast.Constant):
        return ast.Constant(tree.value + shift)
    return ast.BinOp(tree, ast.Add(), ast.Constant(shift)) if shift else tree


def _method(tree: ast.expr, word: str, *args: ast.expr, **keywords: ast.expr) -> ast.expr:
    return call(attribute(tree, word), *args, **keywords)


def _max_pool(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    keywords = _keywords([("dilation", a.get("dilation"), 1), ("ceil_mode", a.get("ceil"), False)])
    kernel, stride = a["kernel_size"], a["stride"]
    if "same" in a:
        source = call(planner.need("pad_same"), source, kernel, stride, value=parse("-torch.inf"))
        return call("F.max_pool2d", source, kernel, stride, **keywords)
    if "explicit" in a:
        source = call("F.pad", source, _torch_pads(a["explicit"]), value=parse("-torch.inf"))
        return call("F.max_pool2d", source, kernel, stride, **keywords)
    return call("F.max_pool2d", source, *_window(kernel, stride, a["padding"]), **keywords)


def _window(kernel: ast.expr, stride: ast.expr, padding: ast.expr) -> list[ast.expr]:
    """Positional kernel, stride and padding, without what torch assumes."""
    if not is_literal(padding, 0):
        return [kernel, stride, padding]
    return [kernel] if build.dump(kernel) == build.dump(stride) else [kernel, stride]


def _torch_pads(tree: ast.expr) -> ast.expr:
    """[[top, bottom], [left, right]] as F.pad takes it."""
    rows = [[e for e in row.elts] for row in tree.elts]  # type: ignore[attr-defined]
    return ast.Tuple([*rows[1], *rows[0]], ast.Load())


def _avg_pool(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    kernel, stride = a["kernel_size"], a["stride"]
    keywords = _keywords([("ceil_mode", a.get("ceil"), False)])
    padding = a.get("padding")
    if "same" in a:
        return call(planner.need("avg_pool_same"), source, kernel, stride)
    if "explicit" in a:
        source = call("F.pad", source, _torch_pads(a["explicit"]))
        return call("F.avg_pool2d", source, kernel, stride, **keywords)
    assert padding is not None
    if not is_literal(padding, 0):
        keywords |= _keywords([("count_include_pad", a["count_pad"], True)])
    return call("F.avg_pool2d", source, *_window(kernel, stride, padding), **keywords)


def _global(word: str) -> Callable[..., ast.expr]:
    def rule(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
        axes = ast.Tuple([ast.Constant(1 + batched), ast.Constant(2 + batched)], ast.Load())
        return _method(source, word, axes, keepdim=ast.Constant(True))

    return rule


def _reduce(word: str) -> Callable[..., ast.expr]:
    def rule(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
        return _method(source, word, _axes(a["axes"], batched), keepdim=ast.Constant(True))

    return rule


def _concat(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    return call("torch.cat", source, dim=_axis(a["axis"], batched))


def _sum(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    if isinstance(source, ast.List) and len(source.elts) == 1:
        return source.elts[0]
    if isinstance(source, ast.List) and source.elts:
        tree = source.elts[0]
        for element in source.elts[1:]:
            tree = ast.BinOp(tree, ast.Add(), element)
        return tree
    if isinstance(source, ast.ListComp):
        return call("sum", ast.GeneratorExp(source.elt, source.generators))
    return call("sum", source)


def _mul(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    elements: list[ast.expr]
    if isinstance(source, ast.List):
        elements = list(source.elts)
    else:
        count = len(app.input)
        elements = [ast.Subscript(source, ast.Constant(i), ast.Load()) for i in range(count)]
    tree = elements[0]
    for element in elements[1:]:
        tree = ast.BinOp(tree, ast.Mult(), element)
    return tree


def _matmul(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    sides = source.elts if isinstance(source, ast.List) else [ast.Subscript(source, ast.Constant(i), ast.Load()) for i in (0, 1)]
    return ast.BinOp(sides[0], ast.MatMult(), sides[1])


def _split(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    sizes = a["sizes"]
    elements = getattr(sizes, "elts", None)
    values = [e.value for e in elements if isinstance(e, ast.Constant)] if elements is not None else []
    if values and len(set(values)) == 1:
        return _method(source, "chunk", ast.Constant(len(values)), dim=_axis(a["axis"], batched))
    return _method(source, "split", sizes, dim=_axis(a["axis"], batched))


def _slice(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    start, stop = a["start"], a["stop"]
    length = ast.BinOp(stop, ast.Sub(), start)
    if isinstance(start, ast.Constant) and isinstance(stop, ast.Constant):
        length = ast.Constant(stop.value - start.value)  # type: ignore[assignment]
    return _method(source, "narrow", _axis(a["axis"], batched), start, length)


def _reshape(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    shape = a["shape"]
    if isinstance(shape, ast.Attribute):  # another tensor's shape
        return _method(source, "reshape", shape)
    elements = list(getattr(shape, "elts", []))
    if not batched and sum(not is_literal(e, 1) for e in elements) == 1:
        elements = [e if is_literal(e, 1) else build.constant(-1) for e in elements]
    if batched:
        elements = [ast.Subscript(attribute(source, "shape"), ast.Constant(0), ast.Load()), *elements]
    return _method(source, "reshape", *elements)


def _permute(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    order = [e.value + batched for e in a["order"].elts]  # type: ignore[attr-defined]
    return _method(source, "permute", *[ast.Constant(v) for v in ([0] if batched else []) + order])


def _flatten(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    if isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute) and source.func.attr in ("mean", "amax"):
        axes = source.args[0] if source.args else None
        if isinstance(axes, ast.Tuple) and [getattr(e, "value", None) for e in axes.elts] == [2, 3]:
            return call(source.func, axes)  # a mean without keepdim is flat already
    return _method(source, "flatten", ast.Constant(batched))


def _zero_pad(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    return call("F.pad", source, _torch_pads(next(iter(a.values()))))


def _resize(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    mode = a["mode"]
    keywords: dict[str, ast.expr] = {}
    scale = a.get("scale")
    if scale is not None and not is_literal(scale, None) and not (isinstance(scale, ast.Constant) and scale.value is None):
        keywords["scale_factor"] = scale if not isinstance(scale, ast.List) else ast.Tuple(scale.elts, ast.Load())
    else:
        size = a["size"]
        keywords["size"] = ast.Tuple(size.elts, ast.Load()) if isinstance(size, ast.List) else size
    keywords["mode"] = mode
    if isinstance(mode, ast.Constant) and mode.value != "nearest":
        keywords |= _keywords([("align_corners", a.get("align_corners"), None)])
    return call("F.interpolate", source, **keywords)


def _clip(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    return _method(source, "clamp", a["low"], a["high"])


def _adaptive(source: ast.expr, a: Attributes, types: Any, planner: Any, batched: int, app: Application) -> ast.expr:
    size = a["output_size"]
    return call("F.adaptive_avg_pool2d", source, ast.Tuple(size.elts, ast.Load()) if isinstance(size, ast.List) else size)


_FUNCTIONAL: dict[str, Callable[..., ast.expr]] = {
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global("mean"),
    "global_max_pool": _global("amax"),
    "adaptive_avg_pool": _adaptive,
    "reduce_mean": _reduce("mean"),
    "reduce_sum": _reduce("sum"),
    "reduce_max": _reduce("amax"),
    "concat": _concat,
    "add": _sum,
    "mul": _mul,
    "matmul": _matmul,
    "split": _split,
    "slice": _slice,
    "reshape": _reshape,
    "permute": _permute,
    "flatten": _flatten,
    "zero_pad": _zero_pad,
    "resize": _resize,
    "clip": _clip,
}


def parameter(sizes: list[ast.expr], init: Any) -> ast.expr:
    """`nn.Parameter(...)` of a `param`, at its starting value where that is a constant."""
    if isinstance(init, Initializer) and init.kind == "constant":
        init = init.args["value"]
    shape = sizes if len(sizes) > 0 else [ast.Tuple([], ast.Load())]
    if isinstance(init, Initializer):
        return call("nn.Parameter", call("torch.empty", *shape))
    if init == 0:
        return call("nn.Parameter", call("torch.zeros", *shape))
    if init == 1:
        return call("nn.Parameter", call("torch.ones", *shape))
    size = ast.Tuple(sizes, ast.Load())
    return call("nn.Parameter", call("torch.full", size, build.literal(init)))
