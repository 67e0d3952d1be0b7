"""Proves an emitted file against the IR graph, without torch: the code is executed on symbolic tensors.

Done on every compile, in evaluation and in training mode.  It shows that the file, run with its default arguments,
applies the graph's operators with the graph's numbers to the graph's tensors, under the graph's parameter paths.
"""

from __future__ import annotations

import ast
import builtins
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from effspec.backends.torch.proof import guard, laws, shim
from effspec.backends.torch.proof.shim import Module
from effspec.backends.torch.proof.tensors import Session, Tensor
from effspec.backends.torch.proof.values import Value, Values

from effspec.ir.graph import Graph, Node, Output, leaves
from effspec.ir.verify import InternalError

_BUILTINS = {name: getattr(builtins, name) for name in (*(guard.BUILTINS - {"type"}), "__build_class__")}
_NAMES: dict[str, object] = {
    "__builtins__": _BUILTINS,
    "__name__": "emitted",
    "torch": shim.torch,
    "nn": shim.nn,
    "OrderedDict": OrderedDict,
    "partial": partial,
}


class ReplayMismatch(InternalError):
    """The code is not the graph: the place in the graph (or code), what the code does there, what the graph says."""

    def __init__(self, place: str, found: str, expected: str) -> None:
        super().__init__("translating", place, f"the code does {found}, the graph says {expected}")
        self.place, self.found, self.expected = place, found, expected


def replay(
    source: str,
    class_name: str,
    graph: Graph,
    arguments: Mapping[str, object] | None = None,
    *,
    initial: bool = True,
) -> None:
    """Raise ReplayMismatch, with the first operator that differs, unless `class_name` of the text computes the graph.

    The class is constructed with `arguments` (by default none).  Its state dict must have the paths and shapes of all
    parameters and buffers, training's included.  `forward` is given the graph's inputs in their order; it returns the
    outputs, and in training mode after them the training outputs, alone or in (nested) lists and tuples.  With
    `initial` every tensor has to start by the graph's law.  InternalError if the text uses anything that is not on the
    lists of `guard`.
    """
    tree = guard.check_source(source)
    values = Session.values = Values()
    graphs = {training: written(graph, values, training) for training in (False, True)}
    try:
        model = construct(tree, class_name, arguments or {})
        state = model.state()
    except Exception as error:
        raise _failed(error, f"{class_name}()", "a module") from error
    _compare_state({path: parameter.value.shape for path, parameter in state.items()}, graph)
    if initial:
        for path, found, expected in laws.differences(state, graph):
            raise ReplayMismatch(path, f"start it by {found}", expected)
    for training, outputs in graphs.items():
        model.train(training)
        inputs = [Tensor(values.input(node.path, node.types[0].shape)) for node in graph.inputs]
        try:
            result = model(*inputs)
        except Exception as error:
            raise _failed(error, values.place or class_name, "a forward pass") from error
        _compare(_flat(result), outputs, training)


def construct(tree: ast.Module, class_name: str, arguments: Mapping[str, object]) -> Module:
    """The module that a checked text builds, with stand-ins for torch."""
    body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)]
    renamed = any(alias.asname == "F" for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    names = _NAMES | ({"F": shim.F} if renamed else {})
    # With postponed annotations nothing of typing has to stand in.
    flags = annotations.compiler_flag
    code = compile(ast.Module(body, tree.type_ignores), "<emitted>", "exec", flags=flags, dont_inherit=True)
    exec(code, names)
    model = names[class_name](**arguments)  # type: ignore[operator]
    if not isinstance(model, Module):
        raise TypeError(f"{class_name} is no module")
    return model


def _failed(error: Exception, place: str, expected: str) -> ReplayMismatch:
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<emitted>":
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f" in line {line}" if line else ""
    return ReplayMismatch(place, f"raise {type(error).__name__}{where}: {error}", expected)


def _flat(result: object) -> list[Value]:
    if isinstance(result, Tensor):
        return [result.value]
    if isinstance(result, list | tuple):
        return [value for part in result for value in _flat(part)]
    if isinstance(result, dict):
        return [value for part in result.values() for value in _flat(part)]
    raise ReplayMismatch("the outputs", f"return {type(result).__name__}", "tensors")


def _compare_state(state: Mapping[str, tuple[int, ...]], graph: Graph) -> None:
    expected = {p.path: p.shape for p in graph.parameters(training=True, buffers=True)}
    owners = {p.path: node.path for node in graph for p in node.parameters.values()}
    for path, shape in expected.items():
        if path not in state:
            raise ReplayMismatch(owners[path], f"not have the tensor {path}", f"{path} {list(shape)}")
        if state[path] != shape:
            raise ReplayMismatch(owners[path], f"give {path} the shape {list(state[path])}", f"{list(shape)}")
    for path in state:
        if path not in expected:
            raise ReplayMismatch(path, f"have the tensor {path}", "no such tensor")


def _compare(found: list[Value], expected: list[Value], training: bool) -> None:
    mode = "training" if training else "evaluation"
    if len(found) != len(expected):
        text = f"return {len(found)} tensors in {mode} mode"
        raise ReplayMismatch("the outputs", text, str(len(expected)))
    for position, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours is not theirs:
            ours, theirs = difference(ours, theirs)
            place = theirs.place or ours.place or f"output {position}"
            at = f" (at {ours.place})" if ours.place else ""
            raise ReplayMismatch(place, f"{ours}{at} in {mode} mode", str(theirs))


def difference(ours: Value, theirs: Value) -> tuple[Value, Value]:
    """The earliest pair of values that should be one and are not, going back from two that differ."""
    while ours.op == theirs.op and ours.attributes == theirs.attributes and len(ours.operands) == len(theirs.operands):
        left, right = list(ours.operands), list(theirs.operands)
        if ours.op in ("add", "mul"):
            # These are kept in no order: what both have is no difference.
            left, right = [v for v in left if v not in theirs.operands], [v for v in right if v not in ours.operands]
        pairs = [(a, b) for a, b in zip(left, right, strict=False) if a is not b]
        if not pairs or "parameter" in (pairs[0][0].op, pairs[0][1].op):
            break
        ours, theirs = pairs[0]
    return ours, theirs


# The graph, written down with the same rules as the code.


def written(graph: Graph, values: Values, training: bool) -> list[Value]:
    """The graph's outputs as values: those of evaluation, then with `training` those of training."""
    known: dict[tuple[int, int], Value] = {}
    for node in graph:
        if node.training and not training:
            continue
        values.place = node.path
        inputs = [known[value] for value in node.inputs]
        result = _node(node, inputs, values, training)
        for number, value in enumerate(result if isinstance(result, list) else [result]):
            known[node.id, number] = value
    values.place = ""
    outputs: list[Output] = [output for output in graph.outputs if not output.training]
    if training:
        outputs += [output for output in graph.outputs if output.training]
    return [known[leaf] for output in outputs for leaf in leaves(output.value)]


def _node(node: Node, inputs: Sequence[Value], values: Values, training: bool) -> Value | list[Value]:
    if "scalar" in node.attributes:
        a: Any = node.attributes
        return values.scalar(node.op, inputs[0], a["scalar"], a["scalar_left"])
    if node.op in ("dropout", "drop_path") and not training:
        return inputs[0]
    return _RULES[node.op](values, node, list(inputs))


def _tensor(values: Values, node: Node, name: str) -> Value | None:
    parameter = node.parameters.get(name)
    return None if parameter is None else values.parameter(parameter.path, parameter.shape)


def _conv(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    weight = inputs[1] if len(inputs) == 2 else _tensor(values, node, "weight")
    assert weight is not None
    bias = _tensor(values, node, "bias")
    return values.conv(inputs[0], weight, bias, a["stride"], a["padding"], a["dilation"], a["groups"])


def _dynamic_conv(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    return values.conv(inputs[0], inputs[1], None, a["stride"], a["padding"], a["dilation"], a["groups"])


def _conv_transpose(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    weight, bias = _tensor(values, node, "weight"), _tensor(values, node, "bias")
    assert weight is not None
    numbers = (a["stride"], a["padding"], a["out_pad"], a["dilation"], a["groups"])
    return values.conv_transpose(inputs[0], weight, bias, *numbers)


def _linear(values: Values, node: Node, inputs: list[Value]) -> Value:
    weight = _tensor(values, node, "weight")
    assert weight is not None
    return values.linear(inputs[0], weight, _tensor(values, node, "bias"))


def _batch_norm(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    mean, variance = _tensor(values, node, "running_mean"), _tensor(values, node, "running_var")
    assert mean is not None and variance is not None
    weight, bias = _tensor(values, node, "weight"), _tensor(values, node, "bias")
    return values.batch_norm(inputs[0], mean, variance, weight, bias, a["eps"], a["momentum"])


def _layer_norm(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    weight, bias = _tensor(values, node, "weight"), _tensor(values, node, "bias")
    return values.layer_norm(inputs[0], a["axes"], weight, bias, a["eps"])


def _group_norm(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    weight, bias = _tensor(values, node, "weight"), _tensor(values, node, "bias")
    return values.group_norm(inputs[0], a["groups"], weight, bias, a["eps"])


def _max_pool(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    return values.max_pool(inputs[0], a["kernel_size"], a["stride"], a["padding"], a["dilation"], a["ceil"])


def _avg_pool(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    return values.avg_pool(inputs[0], a["kernel_size"], a["stride"], a["padding"], a["ceil"], a["count_pad"])


def _parameter(values: Values, node: Node, inputs: list[Value]) -> Value:
    value = _tensor(values, node, "value")
    assert value is not None
    return value


def _split(values: Values, node: Node, inputs: list[Value]) -> list[Value]:
    a: Any = node.attributes
    out, start = [], 0
    for size in a["sizes"]:
        out.append(values.slice(inputs[0], a["axis"], start, start + size))
        start += size
    return out


def _resize(values: Values, node: Node, inputs: list[Value]) -> Value:
    a: Any = node.attributes
    return values.resize(inputs[0], a["size"], a["mode"], a["align_corners"])


_Rule = Callable[[Values, Node, list[Value]], "Value | list[Value]"]


def _unary(*names: str) -> _Rule:
    def rule(values: Values, node: Node, inputs: list[Value]) -> Value:
        numbers: list[Any] = [node.attributes[name] for name in names]
        return values.unary(node.op, inputs[0], *numbers)

    return rule


def _reduction(op: str, axes: tuple[int, ...] | None = None) -> _Rule:
    def rule(values: Values, node: Node, inputs: list[Value]) -> Value:
        over: Any = axes or node.attributes["axes"]
        return values.reduce(op, inputs[0], over)

    return rule


def _several(values: Values, node: Node, inputs: list[Value]) -> Value:
    out = inputs[0]
    for value in inputs[1:]:
        out = values.binary(node.op, out, value)
    return out


def _plain(write: Callable[[Values, Any, list[Value]], Value]) -> _Rule:
    return lambda values, node, inputs: write(values, node.attributes, inputs)


_RULES: dict[str, _Rule] = {
    "input": lambda values, node, inputs: values.input(node.path, node.types[0].shape),
    "parameter": _parameter,
    "conv": _conv,
    "dynamic_conv": _dynamic_conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    **dict.fromkeys(
        ("relu", "relu6", "silu", "mish", "sigmoid", "hard_sigmoid", "hard_swish", "tanh", "softplus"), _unary()
    ),
    "gelu": _unary("approximate"),
    "leaky_relu": _unary("slope"),
    "elu": _unary("alpha"),
    "clip": _unary("low", "high"),
    "softmax": _plain(lambda values, a, inputs: values.softmax(inputs[0], a["axis"])),
    **dict.fromkeys(("add", "mul", "sub", "div", "pow"), _several),
    "matmul": _plain(lambda values, a, inputs: values.matmul(*inputs)),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _reduction("reduce_mean", (1, 2)),
    "global_max_pool": _reduction("reduce_max", (1, 2)),
    "adaptive_avg_pool": _plain(lambda values, a, inputs: values.adaptive_avg_pool(inputs[0], a["output_size"])),
    **{name: _reduction(name) for name in ("reduce_mean", "reduce_sum", "reduce_max")},
    "concat": _plain(lambda values, a, inputs: values.concat(inputs, a["axis"])),
    "split": _split,
    "slice": _plain(lambda values, a, inputs: values.slice(inputs[0], a["axis"], a["start"], a["stop"])),
    "reshape": _plain(lambda values, a, inputs: values.reshape(inputs[0], a["shape"])),
    "permute": _plain(lambda values, a, inputs: values.permute(inputs[0], a["order"])),
    "flatten": _plain(lambda values, a, inputs: values.reshape(inputs[0], (math.prod(inputs[0].shape),))),
    "zero_pad": _plain(lambda values, a, inputs: values.pad(inputs[0], a["pad"])),
    "resize": _resize,
    "identity": _plain(lambda values, a, inputs: inputs[0]),
    "dropout": _plain(lambda values, a, inputs: values.drop("dropout", inputs[0], a["rate"])),
    "drop_path": _plain(lambda values, a, inputs: values.drop("drop_path", inputs[0], 1 - a["rate"])),
}
