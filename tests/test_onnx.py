"""The ONNX backend: every operator against PyTorch, in ONNX Runtime and in float64; names, opsets, files, refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy
import onnx
import onnxruntime
import pytest
import torch
from effspec.backends.onnx.check import WrongModel, check_model
from effspec.backends.onnx.emit import files
from effspec.backends.onnx.plan import Settings, plan
from effspec.backends.onnx.rules import ROWS
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from effspec.backend import Unit, choose, find
from effspec.diagnostics import EffspecError, Source, Span
from effspec.ir.graph import Graph, Output, Value
from effspec.ops import OPS
from tests.graphs import Net, Random, efficientnet, images, torch_outputs

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


def _binary(op: str, *shapes, positive: bool = False, **given):
    def make() -> Graph:
        net = Net(**{f"in{i}": shape for i, shape in enumerate(shapes) if shape[0] != "p"})
        values = [
            net.parameter(f"p{i}", *shape[1:]) if shape[0] == "p" else net.inputs[f"in{i}"]
            for i, shape in enumerate(shapes)
        ]
        values = [net("softplus", value) for value in values] if positive else values
        return net.out(net(op, *values, **given))

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
    return net.out(
        net("add", *(net("div", net("mul", x, p), total) for x, p in zip(net.inputs.values(), parts, strict=True)))
    )


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


PLAIN = ["relu", "relu6", "silu", "mish", "sigmoid", "hard_sigmoid", "hard_swish", "tanh", "softplus", "gelu"]

OPERATORS = [
    *(
        image_case("conv", out=8, k=k, s=s, pad=pad)
        for k, s, pad in (
            (1, 1, "half"),
            (3, 1, "half"),
            (3, 2, "half"),
            (3, 2, "same"),
            (5, 2, "same"),
            (2, 2, "same"),
            ((3, 5), (1, 2), "same"),
            ((1, 7), 1, "half"),
            (3, 2, ((0, 1), (2, 0))),
            (7, 4, 3),
        )
    ),
    image_case("conv", out=6, k=3, groups=6, pad="same", s=2),
    image_case("conv", out=4, k=3, groups=2, dil=2, bias=False),
    image_case("conv", out=4, k=3, s=2, pad="same", on=(3, 8, 8)),
    image_case("conv", out=4, k=1, s=2, pad="same", on=(3, 8, 7)),
    _binary("dynamic_conv", (4, 7, 6), (3, 4, 1, 1)),
    _binary("dynamic_conv", (4, 7, 6), (6, 2, 3, 3), k=3, s=2, groups=2),
    _binary("dynamic_conv", (4, 7, 8), (4, 1, 5, 3), k=(5, 3), s=(2, 1), dil=(1, 2), pad="same", groups=4),
    _binary("dynamic_conv", (4, 7, 6), (8, 4, 2, 2), k=2, pad=((0, 1), (2, 0))),
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
    *(image_case(op) for op in PLAIN),
    image_case("gelu", approximate=True),
    image_case("leaky_relu", slope=Fraction(1, 5)),
    image_case("elu"),
    image_case("elu", alpha=third),
    *(image_case("softmax", axis=axis) for axis in (0, 2)),
    image_case("clip", low=-third, high=Fraction(7, 10)),
    *(
        scalar_case(op, scalar, left)
        for op in ("add", "sub", "mul", "div")
        for scalar in (2, third)
        for left in (False, True)
    ),
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
    *(
        image_case("max_pool", k=k, s=s, pad=pad, ceil=ceil)
        for k, s, pad, ceil in (
            (3, 2, "half", False),
            (3, 2, "same", False),
            (2, 2, 0, True),
            (3, 2, 1, True),
            (3, 3, 0, True),
            (2, 3, 1, True),
        )
    ),
    image_case("max_pool", k=2, s=2, pad="same", dil=2),
    image_case("max_pool", k=3, s=2, pad=0, dil=2, ceil=True, on=(2, 12, 10)),
    *(
        image_case("avg_pool", k=k, s=s, pad=pad, ceil=ceil, count_pad=count)
        for k, s, pad, ceil in (
            (3, 2, "half", False),
            (2, 2, 0, True),
            (3, 2, 1, True),
            (3, 3, 1, True),
            (4, 3, 2, True),
        )
        for count in (False, True)
    ),
    *(image_case("avg_pool", k=3, s=2, pad="same", count_pad=count, on=(4, 8, 10)) for count in (False, True)),
    image_case("global_avg_pool"),
    image_case("global_max_pool"),
    *(image_case("adaptive_avg_pool", size=size) for size in (1, (3, 11), 5, (2, 13), (1, 4))),
    *(
        image_case(op, axes=axes)
        for op in ("reduce_mean", "reduce_sum", "reduce_max")
        for axes in ((1, 2), (0,), (-1,))
    ),
    _binary("concat", (3, 4, 5), (2, 4, 5), (1, 4, 5)),
    image_case("slice", axis=1, start=2, stop=-1),
    image_case("reshape", shape=(3, 2, 99)),
    image_case("reshape", shape=(594,)),
    image_case("flatten"),
    image_case("permute", order=(1, 2, 0)),
    image_case("zero_pad", pad=((0, 1), (2, 3))),
    *(
        image_case("resize", **arguments)
        for arguments in (
            {"scale": 2},
            {"size": (9, 22)},
            {"size": (20, 5)},
            {"size": (3, 4)},
            {"size": (1, 1)},
        )
    ),
    image_case("resize", scale=third, on=(2, 9, 12)),
    *(
        image_case("resize", mode="bilinear", align_corners=corners, **arguments)
        for arguments in (
            {"scale": 2},
            {"size": (20, 5)},
            {"size": (9, 1)},
            {"size": (1, 1)},
            {"size": (18, 11)},
        )
        for corners in (False, True)
    ),
    image_case("resize", mode="bilinear", scale=Fraction(1, 2), on=(2, 8, 10)),
    *(
        pytest.param(make, id=make.__name__)
        for make in (
            _shared,
            _weight_through_layer,
            _fast_sum,
            _parameters_only,
            _both_sides,
        )
    ),
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


def _small(pad="half", size=(3, 15, 17)) -> Net:
    net = Net(image=size)
    x = net("conv", net.inputs["image"], out=8, k=3, s=2, pad=pad, bias=False, path="stem.conv")
    net.last = net("silu", net("batch_norm", x, path="stem.norm"), path="stem.act")
    return net


def test_efficientnet_has_as_few_nodes_as_it_can():
    graph = efficientnet()
    assert sum(int(numpy.prod(p.shape)) for p in graph.parameters()) == 5_288_548
    weights = Zeros()
    for fold, nodes in (("batch_norm", 239), ("none", 288)):
        model = load(ONNX.emit(Unit(graph, "B0"), weights, choose(ONNX, {"fold": fold}), "b0.onnx"))
        check_model(model)
        assert len(model.graph.node) == nodes
    kinds = {p.path for p in graph.parameters(buffers=True)}
    assert {tensor.name for tensor in model.graph.initializer} == kinds
    assert {"/stem/conv", "/stage3/1/dw/conv", "/stage3/1/se/gate"} <= {node.name for node in model.graph.node}


class Zeros:
    """Weights without a cost."""

    def tensor(self, parameter):
        return numpy.zeros(parameter.shape, numpy.float32)


def load(files) -> onnx.ModelProto:
    return onnx.load_from_string(files[0].read())


def test_efficientnet_runs_at_an_odd_size():
    graph = efficientnet(width=0.25, depth=0.5, size=61, classes=10, pad="same")
    inputs = images(graph)
    wanted = torch_outputs(graph, Random().tensor, inputs)
    for fold in ("none", "batch_norm", "linear"):
        assert distance(reference(emitted(graph, fold=fold, dtype="float64"), inputs), wanted) < 1e-9
        for optimise in (False, True):
            assert distance(ort(emitted(graph, fold=fold), inputs, optimise), wanted) < 2e-5


def test_the_bytes_are_what_protobuf_would_write_and_always_the_same():
    net = _small()
    graph = net.out(net.last)
    data = emitted(graph)
    assert onnx.load_from_string(data).SerializeToString(deterministic=True) == data
    assert emitted(graph) == data
    chunks = list(ONNX.emit(Unit(graph, "Net"), Random(), choose(ONNX, {}), "x.onnx")[0].chunks())
    assert b"".join(chunks) == data


def test_metadata_says_what_the_model_is_and_nothing_else():
    net = _small()
    unit = Unit(
        net.out(net.last),
        "EfficientNet",
        variant="b2",
        spec="b0.eff",
        scale="phi = 2",
        params=9_109_994,
        macs=1_000,
        hashes={"function": "abc", "artefact": "def"},
        metadata={"effspec.input.mean": "0.485, 0.456, 0.406"},
    )
    model = load(ONNX.emit(unit, Random(), choose(ONNX, {}), "b2.onnx"))
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "effspec.spec": "b0.eff",
        "effspec.model": "EfficientNet",
        "effspec.variant": "b2",
        "effspec.scale": "phi = 2",
        "effspec.params": "9109994",
        "effspec.macs": "1000",
        "effspec.hash": "abc",
        "effspec.input.mean": "0.485, 0.456, 0.406",
    }
    assert model.graph.name == "b2" and model.producer_name == "effspec"
    assert not (model.producer_version or model.doc_string or model.domain or model.graph.doc_string)


def test_opset_and_ir_version_are_pinned_together():
    net = _small()
    graph = net.out(net.last)
    for opset, version in {13: 7, 15: 8, 18: 8, 19: 9, 22: 10}.items():
        model = onnx.load_from_string(emitted(graph, opset=opset))
        assert (model.opset_import[0].version, model.ir_version) == (opset, version)
        # What onnx itself holds to be the oldest IR version of the opset.
        assert version == onnx.helper.find_min_ir_version_for([model.opset_import[0]], ignore_unknown=False)
    for opset in (12, 23, True):
        with pytest.raises(EffspecError, match="from 13 to 22"):
            choose(ONNX, {"opset": opset})


def test_an_opset_that_cannot_is_refused_with_the_one_that_can():
    net = Net(image=(2, 9, 9))
    graph = net.out(net("resize", net.inputs["image"], size=(20, 5), mode="bilinear", path="up"))
    options = choose(ONNX, {"opset": 17})
    (problem,) = ONNX.check(Unit(graph, "Net"), options)
    assert problem.code == "E0704" and "`up`" in problem.message and "opset 18" in str(problem.help)
    with pytest.raises(EffspecError, match="opset 18"):
        ONNX.emit(Unit(graph, "Net"), Random(), options, "x.onnx")
    assert not ONNX.check(Unit(graph, "Net"), choose(ONNX, {}))


def test_batch_is_free_or_fixed():
    net = _small()
    graph = net.out(net("linear", net("flatten", net("global_avg_pool", net.last)), out=3))
    for batch in (1, 5):
        inputs = images(graph, batch)
        assert distance(ort(emitted(graph), inputs), torch_outputs(graph, Random().tensor, inputs)) < 1e-5
    model = onnx.load_from_string(emitted(graph, batch=4))
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [4, 3, 15, 17]
    with pytest.raises(EffspecError):
        choose(ONNX, {"batch": -1})


def test_height_and_width_are_free_on_request():
    def make(size: tuple[int, int]) -> Graph:
        net = _small(size=(3, *size))
        y = net("resize", net("max_pool", net.last, k=2, s=2, pad=0), scale=2)
        y = net("concat", y, net("conv", y, out=3))
        y = net("mul", y, net("sigmoid", net("global_avg_pool", y)))
        y = net("permute", net("linear", net("permute", y, order=(1, 2, 0)), out=4), order=(2, 0, 1))
        return net.out(net("linear", net("flatten", net("global_avg_pool", y)), out=3), map=y)

    model = onnx.load_from_string(data := emitted(make((15, 17)), dynamic_size=True))
    check_model(model)
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in shape] == ["batch", 3, "height", "width"]
    for size in ((15, 17), (40, 22)):
        graph = make(size)
        inputs = images(graph)
        assert distance(ort(data, inputs), torch_outputs(graph, Random().tensor, inputs)) < 1e-5


@pytest.mark.parametrize(
    ("op", "arguments", "message"),
    [
        ("conv", {"out": 3, "k": 3, "s": 2, "pad": "same"}, "pads"),
        ("max_pool", {"k": 3, "s": 2, "pad": 1, "ceil": True}, "rounding up"),
        ("reshape", {"shape": (3, 120)}, "reshape"),
        ("flatten", {}, "flatten"),
        ("resize", {"size": (20, 10)}, "scale"),
        ("linear", {"out": 3}, "last axis"),
        ("adaptive_avg_pool", {"size": 2}, "windows"),
        ("layer_norm", {"axes": (0, 1, 2)}, "layer_norm"),
        ("group_norm", {"groups": 1}, "group_norm"),
        ("split", {"parts": 2, "axis": 2}, "split"),
        ("slice", {"axis": 1, "start": 0, "stop": 3}, "slice"),
    ],
)
def test_what_depends_on_the_size_refuses_a_free_one_and_says_where(op, arguments, message):
    net = Net(image=(3, 12, 10))
    net(op, net.inputs["image"], path="here", **arguments)
    source = Source("model.eff", "one\ntwo\n")
    graph = Graph("net")
    for node in net.graph:
        graph.add(replace(node, span=Span(source, 4, 7)) if node.path == "here" else node)
    last = max(node.id for node in graph)
    graph.outputs.append(Output("output", Value(last)))
    assert not ONNX.check(Unit(graph, "Net"), choose(ONNX, {}))
    (problem,) = ONNX.check(Unit(graph, "Net"), choose(ONNX, {"dynamic_size": True}))
    assert message in problem.message and problem.primary is not None and problem.primary.span.place == "model.eff:2"


def test_same_pads_with_stride_one_do_not_depend_on_the_size():
    net = Net(image=(3, 12, 10))
    graph = net.out(net("conv", net.inputs["image"], out=3, k=4, pad="same"))
    data = emitted(graph, dynamic_size=True)
    other = {"image": numpy.ones((1, 3, 7, 5), numpy.float32)}
    assert ort(data, other)[0].shape == (1, 3, 7, 5)


def test_names_that_onnx_would_confuse_are_refused():
    net = Net(image=(3, 4, 4))
    graph = net.out(gamma=net("mul", net.inputs["image"], net.parameter("gamma", 3, 1, 1)))
    assert "`gamma`" in ONNX.check(Unit(graph, "Net"), choose(ONNX, {}))[0].message


def test_large_models_keep_their_weights_beside_them(tmp_path):
    net = _small()
    graph = net.out(net("linear", net("flatten", net.last), out=3, path="head"))
    made = files(plan(Unit(graph, "Net"), Settings()), Random(), "model.onnx", limit=1000)
    assert [file.name for file in made] == ["model.onnx", "model.onnx.data"]
    for file in made:
        with (tmp_path / file.name).open("wb") as out:
            out.writelines(file.chunks())
    light = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    assert light.SerializeToString(deterministic=True) == made[0].read()
    check_model(light, infer=False)
    outside = [tensor.name for tensor in light.graph.initializer if tensor.external_data]
    # 8 * 3 * 9 * 4 bytes are few enough to stay inside.
    assert outside == ["head.weight"]
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    whole = onnx.load(tmp_path / "model.onnx")
    inside = onnx.load_from_string(emitted(graph))
    for one, two in zip(whole.graph.initializer, inside.graph.initializer, strict=True):
        assert (one.name, one.raw_data) == (two.name, two.raw_data)
    inputs = images(graph)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert distance(session.run(None, inputs), torch_outputs(graph, Random().tensor, inputs)) < 1e-5


def test_two_gib_is_where_the_second_file_begins():
    """By sizes alone: no number is made until the chunks are read."""

    class Never:
        def tensor(self, parameter):
            raise AssertionError("nothing asked for numbers")

    for width, count in ((23_000, 1), (23_300, 2)):
        net = Net(image=(width, 2, 2))
        graph = net.out(net("conv", net.inputs["image"], out=width, path="wide"))
        size = width * width * 4
        made = ONNX.emit(Unit(graph, "Net"), Never(), choose(ONNX, {}), "wide.onnx")
        assert len(made) == count and (size + 1000 < 2**31) == (count == 1)
    # The bias is large enough to lie outside, too: the model's own file holds no numbers at all.
    tensors = onnx.load_from_string(made[0].read()).graph.initializer
    assert {item.key: item.value for item in tensors[0].external_data}["length"] == str(size)
    assert {item.key: item.value for item in tensors[1].external_data}["offset"] == str(-(-size // 4096) * 4096)
    with pytest.raises(EffspecError, match="second file"):
        ONNX.emit(Unit(graph, "Net"), Never(), choose(ONNX, {}), "../wide.onnx")


def test_a_plan_is_made_once_and_never_for_another_model():
    units = [
        Unit(net.out(net("linear", net.inputs["image"], out=n)), "Net") for n in (2, 3) for net in (Net(image=(4,)),)
    ]
    sizes = []
    for unit, dtype in ((units[0], "float32"), (units[0], "float64"), (units[1], "float64"), (units[0], "float32")):
        options = choose(ONNX, {"dtype": dtype})
        assert not ONNX.check(unit, options)
        sizes.append(len(load(ONNX.emit(unit, Zeros(), options, "x.onnx")).graph.initializer[0].raw_data))
    assert sizes == [32, 64, 96, 32]


def test_weights_of_a_wrong_shape_are_refused():
    class Wrong(Zeros):
        def tensor(self, parameter):
            return numpy.zeros((1, 2), numpy.float32)

    net = _small()
    with pytest.raises(ValueError, match=r"stem\.conv\.weight"):
        ONNX.emit(Unit(net.out(net.last), "Net"), Wrong(), choose(ONNX, {"fold": "none"}), "x.onnx")[0].read()


def _mutations():
    def duplicate_node(m):
        m.graph.node[1].name = m.graph.node[0].name

    def unsafe_name(m):
        m.graph.node[0].name = "../../y\n"

    def wrong_value(m):
        m.graph.value_info[0].type.tensor_type.shape.dim[2].dim_value += 1

    def wrong_output(m):
        m.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1

    def shifted_size(m):
        next(a for a in m.graph.node[0].attribute if a.name == "pads").ints[0] += 2

    def two_makers(m):
        m.graph.node[1].output[0] = m.graph.node[0].output[0]

    def order(m):
        first = onnx.NodeProto()
        first.CopyFrom(m.graph.node[0])
        m.graph.node.append(first)
        del m.graph.node[0]

    def unused(m):
        m.graph.initializer.add().CopyFrom(m.graph.initializer[0])
        m.graph.initializer[-1].name = "spare"

    def short(m):
        m.graph.initializer[0].raw_data = m.graph.initializer[0].raw_data[:-4]

    def outside(m):
        tensor = m.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "../weights"), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
            tensor.external_data.add(key=key, value=value)

    def opset(m):
        m.opset_import[0].version = 20

    def domain(m):
        m.graph.node[0].domain = "com.example"

    def missing(m):
        m.graph.output[0].name = "nowhere"

    return [
        duplicate_node,
        unsafe_name,
        wrong_value,
        wrong_output,
        shifted_size,
        two_makers,
        order,
        unused,
        short,
        outside,
        opset,
        domain,
        missing,
    ]


@pytest.mark.parametrize("mutate", _mutations(), ids=lambda f: f.__name__)
def test_the_check_sees_a_wrong_model(mutate):
    net = _small()
    model = onnx.load_from_string(emitted(net.out(net("conv", net.last, out=4))))
    check_model(model)
    mutate(model)
    with pytest.raises(WrongModel):
        check_model(model)


@pytest.mark.parametrize("mutate", ["epsilon", "pads", "gelu", "slope"])
def test_the_judge_sees_a_small_mistake(mutate):
    """What shapes cannot show: the pad on the other side, another epsilon, the other GELU, another slope."""

    def make(wrong: bool) -> Graph:
        net = Net(image=(3, 8, 8))
        pad = ((1, 0), (0, 1)) if wrong and mutate == "pads" else ((0, 1), (0, 1))
        x = net("conv", net.inputs["image"], out=4, k=3, s=2, pad=pad, path="conv")
        x = net("batch_norm", x, eps=Fraction(1, 1000 if wrong and mutate == "epsilon" else 500), path="norm")
        x = net("gelu", x, approximate=wrong and mutate == "gelu")
        return net.out(net("leaky_relu", x, slope=Fraction(1, 99 if wrong and mutate == "slope" else 100)))

    right, wrong = make(False), make(True)
    inputs = images(right)
    wanted = torch_outputs(right, Random().tensor, inputs)
    assert distance(reference(emitted(right, dtype="float64"), inputs), wanted) < 1e-9
    assert distance(reference(emitted(wrong, dtype="float64"), inputs), wanted) > 1e-6


def test_nearest_keeps_to_whole_numbers_at_every_size():
    for size in (5, 6, 7, 9, 12):
        for out in range(1, 30):
            net = Net(image=(1, size, size))
            graph = net.out(net("resize", net.inputs["image"], size=(out, size)))
            pixels = {"image": numpy.arange(size * size, dtype=numpy.float32).reshape(1, 1, size, size)}
            (found,) = ort(emitted(graph), pixels)
            assert found[0, 0, :, 0].tolist() == [size * (i * size // out) for i in range(out)]


def test_an_unknown_target_or_option_is_an_error_that_suggests():
    with pytest.raises(EffspecError, match="did you mean `onnx`"):
        find("onx")
    with pytest.raises(EffspecError, match="did you mean `opset`"):
        choose(ONNX, {"opst": 18})
    with pytest.raises(EffspecError, match="batch_norm, none, linear"):
        choose(ONNX, {"fold": "all"})


def test_finding_targets_loads_no_backend():
    code = (
        "import sys; import effspec.backend as b; print(b.names(), [m for m in ('onnx', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['ir', 'onnx', 'torch'] []"
