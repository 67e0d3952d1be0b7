"""Graphs made by hand for tests, random weights for them, and their meaning in PyTorch, operator by operator."""

from __future__ import annotations

import zlib
from fractions import Fraction

import numpy
import torch
import torch.nn.functional as F

from effspec.ir.graph import Graph, Initializer, Node, Output, Parameter, Value
from effspec.ir.types import TensorType
from effspec.ops import OPS
from effspec.ops.bind import bind, infer

torch.set_num_threads(1)
INIT = Initializer("constant", {"value": 1})


class Net:
    """A graph under construction: `net("conv", x, out=8, k=3)` adds a node and gives its value or values."""

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.graph = Graph("net")
        self.inputs = {name: self._add("input", name, (), {"shape": shape}) for name, shape in inputs.items()}

    def __call__(self, op, *inputs, path=None, weights=None, scalar=None, left=False, training=False, **arguments):
        """`weights` is the path of the tensors where it is not the node's own (shared weights)."""
        row = OPS[op]
        path = path or f"{op}{self.graph.next_id()}"
        types = [self.graph.type(value) for value in inputs]
        if scalar is not None:
            attributes = {"scalar": scalar, "scalar_left": left}
        else:
            given = {
                a.name: INIT if a.name == "init" else "half"
                for a in row.arguments
                if str(a.default).startswith("default.")
            } | arguments
            attributes = bind(row, given, types)
        return self._add(op, path, inputs, attributes, weights, training)

    def parameter(self, path, *shape):
        return self._add("parameter", path, (), {"shape": shape, "init": INIT})

    def _add(self, op, path, inputs, attributes, weights=None, training=False):
        types = [self.graph.type(value) for value in inputs]
        row = OPS[op]
        tensors = {
            name: Parameter(
                path if op == "parameter" else f"{weights or path}.{name}", tensor.shape, tensor.init, tensor.buffer
            )
            for name, tensor in row.tensors(types, attributes).items()
        }
        results = infer(row, types, attributes)
        node = Node(self.graph.next_id(), op, path, tuple(inputs), attributes, results, tensors, training=training)
        self.graph.add(node)
        values = [Value(node.id, k) for k in range(len(results))]
        return values[0] if op != "split" else values

    def out(self, *values, **named) -> Graph:
        """The finished graph: one output `output`, or named ones."""
        if values:
            self.graph.outputs.append(Output("output", values[0] if len(values) == 1 else tuple(values)))
        self.graph.outputs += [Output(name, value) for name, value in named.items()]
        return self.graph


class Random:
    """Weights that let a test see everything: scales around 1, variances positive, one stream a path."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def tensor(self, parameter: Parameter) -> numpy.ndarray:
        source = numpy.random.default_rng([self.seed, zlib.crc32(parameter.path.encode())])
        values = source.standard_normal(parameter.shape)
        if parameter.path.endswith("running_var"):
            values = 0.5 + source.random(parameter.shape)
        elif parameter.path.endswith("weight") and len(parameter.shape) >= 2:
            values /= numpy.sqrt(numpy.prod(parameter.shape[1:]))
        elif parameter.path.endswith("weight"):
            values = 1 + values / 4
        return values.astype(numpy.float32)


def images(graph: Graph, batch: int = 2, seed: int = 1) -> dict[str, numpy.ndarray]:
    source = numpy.random.default_rng(seed)
    return {
        node.path: source.standard_normal((batch, *node.types[0].shape)).astype(numpy.float32) for node in graph.inputs
    }


def _pad(x, padding, value=0.0):
    (top, bottom), (left, right) = padding
    return F.pad(x, (left, right, top, bottom), value=value)


def _conv(n, x, t):
    a = n.attributes
    weight = x[1] if len(x) == 2 else t["weight"]
    return F.conv2d(_pad(x[0], a["padding"]), weight, t.get("bias"), a["stride"], 0, a["dilation"], a["groups"])


def _conv_transpose(n, x, t):
    a = n.attributes
    (top, bottom), (left, right) = a["padding"]
    full = F.conv_transpose2d(x[0], t["weight"], t.get("bias"), a["stride"], 0, 0, a["groups"], a["dilation"])
    # What output padding adds lies beyond the last stride: outside of every window, only the bias is there.
    down, right_more = a["out_pad"]
    bias = t["bias"].reshape(-1, 1, 1) if "bias" in t else 0
    wide = F.pad(full - bias, (0, right_more, 0, down)) + bias
    return wide[:, :, top : wide.shape[2] - bottom, left : wide.shape[3] - right]


def _batch_norm(n, x, t):
    return F.batch_norm(
        x[0], t["running_mean"], t["running_var"], t.get("weight"), t.get("bias"), eps=float(n.attributes["eps"])
    )


def _one_batch(rule):
    """PyTorch's norms want a batch: parameters get one of size 1."""
    return lambda n, x, t: rule(n, x, t) if n.first else rule(n, [x[0][None]], t)[0]


@_one_batch
def _layer_norm(n, x, t):
    axes = [axis + 1 for axis in n.attributes["axes"]]
    others = [axis for axis in range(x[0].dim()) if axis not in axes]
    order = others + axes
    moved = x[0].permute(order)
    shape = moved.shape[len(others) :]
    y = F.layer_norm(moved, shape, t.get("weight"), t.get("bias"), float(n.attributes["eps"]))
    return y.permute([order.index(axis) for axis in range(x[0].dim())])


def _max_pool(n, x, t):
    a = n.attributes
    # Explicit minus infinity, then PyTorch's own rounding up.
    y = _pad(x[0], a["padding"], float("-inf"))
    return _ceil_cut(n, F.max_pool2d(y, a["kernel_size"], a["stride"], 0, a["dilation"], a["ceil"]))


def _ceil_cut(n, y):
    return y[:, :, : n.types[0].shape[1], : n.types[0].shape[2]]


def _dynamic_conv(n, x, t):
    """Image by image."""
    a = n.attributes
    numbers = None, a["stride"], 0, a["dilation"], a["groups"]
    pairs = zip(_pad(x[0], a["padding"]), x[1], strict=True)
    return torch.stack([F.conv2d(image, weight, *numbers) for image, weight in pairs])


def _avg_pool(n, x, t):
    a = n.attributes
    (top, bottom), (left, right) = a["padding"]
    if (top, left) == (bottom, right):
        return F.avg_pool2d(x[0], a["kernel_size"], a["stride"], (top, left), a["ceil"], a["count_pad"])
    # Uneven pads: sum and count apart.
    assert not a["ceil"]
    kernel = torch.ones(1, 1, *a["kernel_size"], dtype=x[0].dtype)
    ones = torch.ones_like(x[0][:1, :1])
    count = F.conv2d(_pad(ones, a["padding"], 1.0 if a["count_pad"] else 0.0), kernel, stride=a["stride"])
    channels = x[0].shape[1]
    total = F.conv2d(_pad(x[0], a["padding"]), kernel.expand(channels, 1, -1, -1), stride=a["stride"], groups=channels)
    return total / count


def _binary(function):
    def rule(n, x, t):
        if "scalar" in n.attributes:
            number = torch.tensor(float(n.attributes["scalar"]), dtype=x[0].dtype)
            return function(number, x[0]) if n.attributes["scalar_left"] else function(x[0], number)
        total = x[0]
        for other in x[1:]:
            total = function(total, other)
        return total

    return rule


def _resize(n, x, t):
    a = n.attributes
    corners = {} if a["mode"] == "nearest" else {"align_corners": a["align_corners"]}
    return F.interpolate(x[0], a["size"], mode=a["mode"], **corners)


def _first(n, graph):
    return int(graph.type(n.inputs[0]).batched)


TORCH = {
    "conv": _conv,
    "dynamic_conv": _dynamic_conv,
    "conv_transpose": _conv_transpose,
    "linear": lambda n, x, t: F.linear(x[0], t["weight"], t.get("bias")),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _one_batch(
        lambda n, x, t: F.group_norm(
            x[0], n.attributes["groups"], t.get("weight"), t.get("bias"), float(n.attributes["eps"])
        )
    ),
    "parameter": lambda n, x, t: t["value"],
    "relu": lambda n, x, t: F.relu(x[0]),
    "relu6": lambda n, x, t: F.relu6(x[0]),
    "silu": lambda n, x, t: F.silu(x[0]),
    "mish": lambda n, x, t: F.mish(x[0]),
    "sigmoid": lambda n, x, t: torch.sigmoid(x[0]),
    "hard_sigmoid": lambda n, x, t: F.hardsigmoid(x[0]),
    "hard_swish": lambda n, x, t: F.hardswish(x[0]),
    "tanh": lambda n, x, t: torch.tanh(x[0]),
    "softplus": lambda n, x, t: torch.logaddexp(x[0], torch.zeros_like(x[0])),
    "gelu": lambda n, x, t: F.gelu(x[0], approximate="tanh" if n.attributes["approximate"] else "none"),
    "leaky_relu": lambda n, x, t: F.leaky_relu(x[0], float(n.attributes["slope"])),
    "elu": lambda n, x, t: F.elu(x[0], float(n.attributes["alpha"])),
    "softmax": lambda n, x, t: torch.softmax(x[0], n.attributes["axis"] + n.first),
    "clip": lambda n, x, t: torch.clamp(x[0], float(n.attributes["low"]), float(n.attributes["high"])),
    "add": _binary(torch.add),
    "sub": _binary(torch.sub),
    "mul": _binary(torch.mul),
    "div": _binary(torch.div),
    "pow": _binary(torch.pow),
    "matmul": lambda n, x, t: torch.matmul(x[0], x[1]),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda n, x, t: F.adaptive_avg_pool2d(x[0], 1),
    "global_max_pool": lambda n, x, t: F.adaptive_max_pool2d(x[0], 1),
    "adaptive_avg_pool": lambda n, x, t: F.adaptive_avg_pool2d(x[0], n.attributes["output_size"]),
    "reduce_mean": lambda n, x, t: x[0].mean([a + n.first for a in n.attributes["axes"]], keepdim=True),
    "reduce_sum": lambda n, x, t: x[0].sum([a + n.first for a in n.attributes["axes"]], keepdim=True),
    "reduce_max": lambda n, x, t: x[0].amax([a + n.first for a in n.attributes["axes"]], keepdim=True),
    "concat": lambda n, x, t: torch.cat(x, n.attributes["axis"] + n.first),
    "split": lambda n, x, t: torch.split(x[0], list(n.attributes["sizes"]), n.attributes["axis"] + n.first),
    "slice": lambda n, x, t: x[0].narrow(
        n.attributes["axis"] + n.first, n.attributes["start"], n.attributes["stop"] - n.attributes["start"]
    ),
    "reshape": lambda n, x, t: x[0].reshape(*x[0].shape[: n.first], *n.attributes["shape"]),
    "flatten": lambda n, x, t: x[0].flatten(n.first),
    "permute": lambda n, x, t: x[0].permute(*range(n.first), *(a + n.first for a in n.attributes["order"])),
    "zero_pad": lambda n, x, t: _pad(x[0], n.attributes["pad"]),
    "resize": _resize,
    "identity": lambda n, x, t: x[0],
    "dropout": lambda n, x, t: x[0],
    "drop_path": lambda n, x, t: x[0],
}


class _View:
    """A node as the table sees it: `first` is the axis of the tensor's axis 0."""

    def __init__(self, node: Node, graph: Graph) -> None:
        self.attributes, self.types = node.attributes, node.types
        self.first = int(graph.type(node.inputs[0]).batched) if node.inputs else 0


def torch_outputs(graph: Graph, numbers, inputs: dict[str, numpy.ndarray]) -> list[numpy.ndarray]:
    """The outputs in order, in float64; `numbers` maps a parameter to an array."""
    from effspec.ir.graph import leaves

    results: dict[Value, torch.Tensor] = {}
    for node in graph:
        if node.op == "input":
            found = torch.from_numpy(inputs[node.path]).double()
        else:
            tensors = {
                name: torch.from_numpy(numpy.array(numbers(parameter))).double()
                for name, parameter in node.parameters.items()
            }
            found = TORCH[node.op](_View(node, graph), [results[value] for value in node.inputs], tensors)
        for k, tensor in enumerate(found if isinstance(found, list | tuple) else [found]):
            results[Value(node.id, k)] = tensor
            kind = node.types[k]
            assert tuple(tensor.shape[int(kind.batched) :]) == kind.shape, (node, tuple(tensor.shape))
    return [results[leaf].numpy() for output in graph.outputs for leaf in leaves(output.value)]


def half(numerator: int, denominator: int = 2) -> Fraction:
    return Fraction(numerator, denominator)


def batched(*shape: int) -> TensorType:
    return TensorType(shape)


def efficientnet(
    width: float = 1.0, depth: float = 1.0, size: int = 224, classes: int = 1000, pad: str = "half"
) -> Graph:
    """EfficientNet (Tan and Le 2019, table 1) with the paper's rounding."""
    import math

    def channels(c: float) -> int:
        c *= width
        near = max(8, int(c + 4) // 8 * 8)
        return near + 8 if near < 0.9 * c else near

    net = Net(image=(3, size, size))

    def norm_act(path, x, act=True):
        x = net("batch_norm", x, path=f"{path}.norm")
        return net("silu", x, path=f"{path}.act") if act else x

    x = net("conv", net.inputs["image"], out=channels(32), k=3, s=2, pad=pad, bias=False, path="stem.conv")
    x = norm_act("stem", x)
    rows = [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
    ]
    for stage, (expand, k, stride, out, repeats) in enumerate([*rows, (6, 3, 1, 320, 1)], 1):
        for i in range(math.ceil(repeats * depth)):
            path, before = f"stage{stage}.{i}", x
            incoming = net.graph.type(x).shape[0]
            mid, s = incoming * expand, stride if i == 0 else 1
            if expand != 1:
                x = net("conv", x, out=mid, bias=False, path=f"{path}.expand.conv")
                x = norm_act(f"{path}.expand", x)
            x = net("conv", x, out=mid, k=k, s=s, pad=pad, groups=mid, bias=False, path=f"{path}.dw.conv")
            x = norm_act(f"{path}.dw", x)
            w = net("global_avg_pool", x, path=f"{path}.se.pool")
            w = net("conv", w, out=max(1, incoming // 4), path=f"{path}.se.reduce")
            w = net("conv", net("silu", w, path=f"{path}.se.act"), out=mid, path=f"{path}.se.expand")
            x = net("mul", x, net("sigmoid", w, path=f"{path}.se.gate"), path=f"{path}.se.mul")
            x = net("conv", x, out=channels(out), bias=False, path=f"{path}.project.conv")
            x = norm_act(f"{path}.project", x, act=False)
            if s == 1 and incoming == channels(out):
                x = net("drop_path", x, rate=Fraction(1, 10), path=f"{path}.drop_path")
                x = net("add", x, before, path=f"{path}.add")
    x = norm_act("head", net("conv", x, out=channels(1280), bias=False, path="head.conv"))
    x = net("flatten", net("global_avg_pool", x, path="pool"), path="flatten")
    x = net("dropout", x, rate=Fraction(1, 5), path="dropout")
    return net.out(net("linear", x, out=classes, path="classifier"))
