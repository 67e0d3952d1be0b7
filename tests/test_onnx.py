"""The ONNX backend: every operator against PyTorch, in ONNX Runtime and in float64; names, opsets, files and refusals."""

from __future__ import annotations

from fractions import Fraction

import numpy
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from effspec.backend import Unit, choose, find
from effspec.backends.onnx.check import check_model
from effspec.backends.onnx.rules import ROWS
from effspec.diagnostics import EffspecError, Source, Span
from effspec.ir.graph import Graph, Node
from effspec.ops import OPS
from tests.graphs import Net, Random, images, torch_outputs

onnxruntime.set_default_logger_severity(3)
ONNX = find("onnx")
third = Fraction(1, 3)


def emitted(graph: Graph, **options) -> bytes:
    (file,) = ONNX.emit(Unit(graph, "Net"), Random(), choose(ONNX, options), "net.onnx")
    return file.read()


def ort(data: bytes, inputs: dict[str, numpy.ndarray], optimise: bool = False) -> list[numpy.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


class Erf(OpRun):
    """The reference evaluator rounds its Erf to float32, whatever the input is."""

    def _run(self, x):
        return (torch.erf(torch.from_numpy(numpy.asarray(x))).numpy(),)


def reference(data: bytes, inputs: dict[str, numpy.ndarray]) -> list[numpy.ndarray]:
    """The outputs of a float64 model, by ONNX's own evaluator."""
    double = {name: array.astype(numpy.float64) for name, array in inputs.items()}
    return ReferenceEvaluator(onnx.load_from_string(data), new_ops=[Erf]).run(None, double)


def distance(found: list[numpy.ndarray], wanted: list[numpy.ndarray]) -> float:
    """The greatest difference, relative to the greatest value of its tensor."""
    assert [a.shape for a in found] == [b.shape for b in wanted]
    return max(float(abs(a - b).max() / max(abs(b).max(), 1e-30)) for a, b in zip(found, wanted, strict=True))


def image_case(op: str, on=(6, 9, 11), **arguments):
    def make() -> Graph:
        net = Net(image=on)
        return net.out(net(op, net.inputs["image"], **arguments))

    return pytest.param(make, id="-".join([op, *(f"{k}={v}" for k, v in arguments.items()), "x".join(map(str, on))]))


def scalar_case(op: str, scalar, left: bool = False, positive: bool = False):
    def make() -> Graph:
        net = Net(image=(3, 5, 4))
        x = net("softplus", net.inputs["image"]) if positive else net.inputs["image"]
        return net.out(net(op, x, scalar=scalar, left=left))

    return pytest.param(make, id=f"{op}-{scalar}-{left}")


def _binary(op: str, *shapes, positive: bool = False):
    def make() -> Graph:
        net = Net(**{f"in{i}": shape for i, shape in enumerate(shapes) if shape[0] != "p"})
        values = [
            net.parameter(f"p{i}", *shape[1:]) if shape[0] == "p" else net.inputs[f"in{i}"]
            for i, shape in enumerate(shapes)
        ]
        values = [net("softplus", value) for value in values] if positive else values
        return net.out(net(op, *values))

    return pytest.param(make, id=f"{op}-{shapes}")


def _shared() -> Graph:
    """One convolution applied to two levels, each with its own norm; two outputs in a list, one exported again."""
    net = Net(fine=(4, 8, 8), coarse=(4, 4, 4))
    out = []
    for name, x in net.inputs.items():
        y = net("conv", x, out=5, k=3, bias=False, path=f"head.{name}", weights="head.conv")
        out.append(net("batch_norm", y, path=f"norm.{name}"))
    return net.out(tuple(out), again=out[0], direct=net.inputs["fine"])


def _weight_through_layer() -> Graph:
    """A standardised weight with a gain, as NFNet has, followed by a norm."""
    net = Net(image=(4, 7, 7))
    weight, gain = net.parameter("conv.weight", 6, 2, 3, 3), net.parameter("conv.gain", 6, 1, 1, 1)
    centred = net("sub", weight, net("reduce_mean", weight, axes=(1, 2, 3)))
    variance = net("reduce_mean", net("pow", centred, scalar=2), axes=(1, 2, 3))
    root = net("pow", net("add", variance, scalar=Fraction(1, 10**6)), scalar=Fraction(1, 2))
    scaled = net("div", net("mul", net("mul", centred, gain), scalar=Fraction(17, 10)), root)
    y = net("conv", net.inputs["image"], scaled, out=6, k=3, groups=2, path="conv.conv")
    return net.out(net("batch_norm", y, path="norm"))


def _fast_sum() -> Graph:
    """Weighted fusion of three maps: parts of one parameter, divided by their sum."""
    net = Net(a=(3, 4, 4), b=(3, 4, 4), c=(3, 4, 4))
    weight = net("relu", net.parameter("fuse.weight", 3))
    total = net("add", net("reduce_sum", weight, axes=(0,)), scalar=Fraction(1, 10**4))
    parts = net("split", weight, parts=(1, 1, 1))
    return net.out(net("add", *(net("div", net("mul", x, p), total) for x, p in zip(net.inputs.values(), parts))))


def _parameters_only() -> Graph:
    """Operators on parameters, each on a path of its own, brought together at the end."""
    net = Net(image=(4, 3, 3))
    p = net.parameter("p", 4, 3, 3)
    unary = "relu relu6 silu mish sigmoid hard_sigmoid hard_swish tanh softplus identity"
    found = [net(op, p) for op in unary.split()]
    found += [net("gelu", p), net("gelu", p, approximate=True), net("leaky_relu", p, slope=third)]
    found += [net("elu", p, alpha=2), net("softmax", p, axis=1), net("clip", p, low=-third, high=third)]
    found += [net("linear", p, out=3), net("layer_norm", p, axes=(0, 2)), net("group_norm", p, groups=2)]
    found += [net("layer_norm", p, axes=(2,), affine=False), net("group_norm", p, groups=2, affine=False)]
    found += [net("permute", p, order=(0, 2, 1)), net("reduce_max", p, axes=(1,)), net("matmul", p, p)]
    found += [net("reshape", net("flatten", p), shape=(4, 3, 3)), net("div", p, scalar=third, left=True)]
    parts = net("split", p, parts=(1, 2), axis=1)
    found += [net("concat", parts[1], parts[0], axis=1), net("slice", p, axis=0, start=1, stop=2)]
    found += [net("pow", net("softplus", p), scalar=Fraction(-1, 2)), net("pow", net("sigmoid", p), net("sigmoid", p))]
    found += [net("sub", p, scalar=1, left=True), net("mul", p, scalar=third), net("dropout", p, rate=third)]
    return net.out(net("add", net.inputs["image"], *found))


def _both_sides() -> Graph:
    """A parameter that is used as it is, in another shape, and as an output."""
    net = Net(image=(4, 3, 5))
    p = net.parameter("gamma", 4)
    column = net("reshape", p, shape=(4, 1, 1))
    y = net("mul", net.inputs["image"], column)
    y = net("permute", y, order=(1, 2, 0))
    y = net("add", y, p)
    y = net("linear", y, out=7)
    y = net("layer_norm", y, axes=(-1,))
    return net.out(net("linear", y, out=3, bias=False), gamma_out=p)


OPERATORS = [
    *(image_case("conv", out=8, k=k, s=s, pad=pad) for k, s, pad in (
        (1, 1, "half"), (3, 1, "half"), (3, 2, "half"), (3, 2, "same"), (5, 2, "same"), (2, 2, "same"),
        ((3, 5), (1, 2), "same"), ((1, 7), 1, "half"), (3, 2, ((0, 1), (2, 0))), (7, 4, 3),
    )),
    image_case("conv", out=6, k=3, groups=6, pad="same", s=2),
    image_case("conv", out=4, k=3, groups=2, dil=2, bias=False),
    image_case("conv", out=4, k=3, s=2, pad="same", on=(3, 8, 8)),
    image_case("conv", out=4, k=1, s=2, pad="same", on=(3, 8, 7)),
    image_case("conv_transpose", out=4, k=2, s=2),
    image_case("conv_transpose", out=4, k=3, s=2, pad=1, out_pad=1, groups=2),
    image_case("conv_transpose", out=4, k=(3, 4), s=(2, 3), pad=((1, 0), (2, 1)), dil=(2, 1), bias=False),
    image_case("linear", out=7),
    image_case("linear", out=7, bias=False),
    image_case("linear", out=7, on=(5,)),
    image_case("linear", out=7, bias=False, on=(5,)),
    image_case("batch_norm"),
    image_case("batch_norm", eps=Fraction(1, 100), affine=False),
    image_case("batch_norm", on=(5,)),
    *(image_case("layer_norm", axes=axes) for axes in ((0,), (-1,), (0, 1, 2), (1, 2), (0, 2))),
    image_case("layer_norm", affine=False),
    image_case("layer_norm", on=(5,)),
    *(image_case("group_norm", groups=groups) for groups in (1, 2, 6)),
    image_case("group_norm", groups=3, affine=False),
    image_case("group_norm", groups=2, on=(6,)),
    image_case("group_norm", groups=6, on=(6, 4)),
    *(image_case(op) for op in "relu relu6 silu mish sigmoid hard_sigmoid hard_swish tanh softplus gelu".split()),
    image_case("gelu", approximate=True),
    image_case("leaky_relu", slope=Fraction(1, 5)),
    image_case("elu"),
    image_case("elu", alpha=third),
    *(image_case("softmax", axis=axis) for axis in (0, 2)),
    image_case("clip", low=-third, high=Fraction(7, 10)),
    *(scalar_case(op, scalar, left) for op in ("add", "sub", "mul", "div") for scalar in (2, third)
      for left in (False, True)),
    *(scalar_case("pow", scalar, positive=True) for scalar in (2, 3, Fraction(1, 2), Fraction(-1, 2), third)),
    scalar_case("pow", 2, left=True),
    *(_binary(op, (3, 4, 5), (3, 4, 5)) for op in ("add", "sub", "mul", "div")),
    *(_binary(op, (3, 4, 5), (3, 4, 5), (3, 4, 5)) for op in ("add", "mul")),
    _binary("pow", (3, 4, 5), ("p", 3, 1, 1), positive=True),
    _binary("sub", ("p", 5), (3, 4, 5)),
    _binary("mul", (3, 4, 5), (3, 1, 1)),
    _binary("add", (3, 4, 5), ("p",), ("p", 3, 1, 1)),
    _binary("matmul", (3, 4, 5), (3, 5, 2)),
    _binary("matmul", (3, 4, 5), ("p", 5, 2)),
    _binary("matmul", ("p", 6, 4), (4, 5)),
    *(image_case("max_pool", k=k, s=s, pad=pad, ceil=ceil) for k, s, pad, ceil in (
        (3, 2, "half", False), (3, 2, "same", False), (2, 2, 0, True), (3, 2, 1, True), (3, 3, 0, True), (2, 3, 1, True),
    )),
    image_case("max_pool", k=2, s=2, pad="same", dil=2),
    image_case("max_pool", k=3, s=2, pad=0, dil=2, ceil=True, on=(2, 12, 10)),
    *(image_case("avg_pool", k=k, s=s, pad=pad, ceil=ceil, count_pad=count) for k, s, pad, ceil in (
        (3, 2, "half", False), (2, 2, 0, True), (3, 2, 1, True), (3, 3, 1, True), (4, 3, 2, True),
    ) for count in (False, True)),
    *(image_case("avg_pool", k=3, s=2, pad="same", count_pad=count, on=(4, 8, 10)) for count in (False, True)),
    image_case("global_avg_pool"),
    image_case("global_max_pool"),
    *(image_case("adaptive_avg_pool", size=size) for size in (1, (3, 11), 5, (2, 13), (1, 4))),
    *(image_case(op, axes=axes) for op in ("reduce_mean", "reduce_sum", "reduce_max") for axes in ((1, 2), (0,), (-1,))),
    _binary("concat", (3, 4, 5), (2, 4, 5), (1, 4, 5)),
    image_case("slice", axis=1, start=2, stop=-1),
    image_case("reshape", shape=(3, 2, 99)),
    image_case("reshape", shape=(594,)),
    image_case("flatten"),
    image_case("permute", order=(1, 2, 0)),
    image_case("zero_pad", pad=((0, 1), (2, 3))),
    *(image_case("resize", **arguments) for arguments in (
        {"scale": 2}, {"size": (9, 22)}, {"size": (20, 5)}, {"size": (3, 4)}, {"size": (1, 1)},
    )),
    image_case("resize", scale=third, on=(2, 9, 12)),
    *(image_case("resize", mode="bilinear", align_corners=corners, **arguments) for arguments in (
        {"scale": 2}, {"size": (20, 5)}, {"size": (9, 1)}, {"size": (1, 1)}, {"size": (18, 11)},
    ) for corners in (False, True)),
    image_case("resize", mode="bilinear", scale=Fraction(1, 2), on=(2, 8, 10)),
    *(pytest.param(make, id=make.__name__) for make in (
        _shared, _weight_through_layer, _fast_sum, _parameters_only, _both_sides,
    )),
]


def _split() -> Graph:
    net = Net(image=(6, 4, 5))
    a, b, c = net("split", net.inputs["image"], parts=(1, 2, 3))
    d, e = net("split", c, parts=(2, 2), axis=1)
    return net.out((a, (b, d)), last=net("mul", e, e))


OPERATORS.append(pytest.param(_split, id="split"))


@pytest.mark.parametrize("make", OPERATORS)
def test_operator_means_what_torch_means(make):
    graph = make()
    inputs = images(graph)
    wanted = torch_outputs(graph, Random().tensor, inputs)
    for fold in ("none", "batch_norm"):
        data = emitted(graph, fold=fold, dtype="float64")
        check_model(onnx.load_from_string(data))
        # The evaluator cannot do transposed convolutions in groups.
        if not any(node.op == "conv_transpose" and node.attributes["groups"] != 1 for node in graph):
            assert distance(reference(data, inputs), wanted) < 1e-9, fold
    for opset in (13, 17, 18, 21, 22):
        try:
            data = emitted(graph, opset=opset)
        except EffspecError as error:
            assert opset < 18 and "opset 18" in str(error)
            continue
        model = onnx.load_from_string(data)
        check_model(model)
        onnx.checker.check_model(model, full_check=True)
        for optimise in (False, True):
            assert distance(ort(data, inputs, optimise), wanted) < 2e-5, (opset, optimise)
    check_model(onnx.load_from_string(emitted(graph, fold="none")))
    assert distance(ort(emitted(graph, fold="none", batch=2), inputs), wanted) < 2e-5


def test_every_operator_has_a_rule_and_a_test():
    rows = set(OPS) - {"input", "parameter"}
    assert rows == set(ROWS)
    used = {node.op for case in OPERATORS for node in case.values[0]()}
    assert rows <= used | {"drop_path"}
