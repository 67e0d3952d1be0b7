"""Every row of the operator table against PyTorch: shapes, tensors, multiply-adds; and what a row refuses."""

from __future__ import annotations

import importlib
import math
from fractions import Fraction

import numpy
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effspec.ir.graph import Initializer, Node
from effspec.ir.types import TensorType
from effspec.ops import OPS
from effspec.ops.base import OpError
from effspec.ops.bind import bind, infer
from effspec.ops.meaning import MEANING, Step, meaning
from effspec.params import INITIALIZERS, ROOT_INIT, distribution, fans, initializer

torch.set_num_threads(1)
BATCH = 2
CONTEXT = {"default.pad": "half", "default.init": ROOT_INIT}


def with_context(op, given):
    """The given arguments and the root's contextual defaults."""
    return {a.name: CONTEXT[str(a.default)] for a in OPS[op].arguments if str(a.default) in CONTEXT} | given


def batched(*shape):
    return TensorType(shape)


def unbatched(*shape):
    return TensorType(shape, batched=False)


def random_tensor(t):
    return torch.rand((BATCH, *t.shape) if t.batched else t.shape)


class Case:
    """An operator on tensors of `types`, and what does the same in torch: `run`, with the tensors of `module`."""

    def __init__(self, op, types, run, module=None, attributes=None, **given):
        self.op, self.types, self.run, self.module, self.given = op, types, run, module, given
        self.attributes = attributes

    def __repr__(self):
        arguments = [" ".join(map(str, self.types))] + [f"{k}={v}" for k, v in (self.attributes or self.given).items()]
        return f"{self.op}({', '.join(arguments)})"


def layer(op, shape, module, /, **given):
    return Case(op, [batched(*shape)], module, module, **given)


def on(op, shape, run, /, **given):
    return Case(op, [batched(*shape)], run, **given)


def plain(op, run, /, **given):
    """An operator that keeps the shape, on an image, a vector and a tensor without a batch."""
    return [Case(op, [t], run, **given) for t in (batched(3, 5, 4), batched(7), unbatched(2, 3))]


def scalar(op, run):
    return [
        Case(op, [batched(3, 2)], lambda x: run(x, 1.5), attributes={"scalar": Fraction(3, 2), "scalar_left": False}),
        Case(op, [batched(3, 2)], lambda x: run(1.5, x), attributes={"scalar": Fraction(3, 2), "scalar_left": True}),
    ]


def channels_last(module):
    return lambda x: module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def each_conv(*numbers):
    """A convolution of every image with its own weight."""
    return lambda x, w: torch.cat([F.conv2d(x[i : i + 1], w[i], None, *numbers) for i in range(len(x))])


def same(x, k, s, value=0.0):
    """Pads as TensorFlow does for SAME; k and s are pairs."""
    ends = []
    for size, kernel, step in zip(x.shape[:-3:-1], k[::-1], s[::-1], strict=True):
        total = max((math.ceil(size / step) - 1) * step + kernel - size, 0)
        ends += [total // 2, total - total // 2]
    return F.pad(x, ends, value=value)


norm_c, norm_all = nn.LayerNorm(6), nn.LayerNorm((6, 4, 5))
conv_same = nn.Conv2d(4, 6, (3, 5), (2, 3))
WEIGHT = unbatched(6, 2, 3, 3)

CASES = [
    layer("conv", (3, 9, 11), nn.Conv2d(3, 8, 3, 2, 1), out=8, k=3, s=2),
    layer("conv", (4, 7, 6), nn.Conv2d(4, 6, (3, 5), (1, 2), (2, 0), bias=False), out=6, k=(3, 5), s=(1, 2), pad=(2, 0), bias=False),  # noqa: E501
    layer("conv", (8, 13, 13), nn.Conv2d(8, 16, 3, 1, (4, 2), dilation=(4, 2), groups=4), out=16, k=3, dil=(4, 2), groups=4),  # noqa: E501
    layer("conv", (6, 5, 5), nn.Conv2d(6, 6, 5, 2, 2, groups=6), out=6, k=5, s=2, groups=6),
    Case("conv", [batched(4, 10, 11)], lambda x: conv_same(same(x, (3, 5), (2, 3))), conv_same, out=6, k=(3, 5), s=(2, 3), pad="same"),  # noqa: E501
    Case("conv", [batched(4, 7, 7), WEIGHT], lambda x, w: F.conv2d(x, w, None, 1, 1, groups=2), out=6, k=3, groups=2, bias=False),  # noqa: E501
    Case("dynamic_conv", [batched(4, 7, 9), batched(6, 2, 3, 3)], each_conv(2, 1, 1, 2), k=3, s=2, groups=2),
    Case("dynamic_conv", [batched(4, 7, 9), batched(4, 1, 3, 5)], each_conv((1, 2), (2, 0), (2, 1), 4), k=(3, 5), s=(1, 2), pad=(2, 0), dil=(2, 1), groups=4),  # noqa: E501
    Case("dynamic_conv", [batched(4, 7, 9), batched(3, 4, 1, 1)], each_conv(1, 0, 1, 1)),
    layer("conv_transpose", (6, 4, 5), nn.ConvTranspose2d(6, 4, 2, 2), out=4, k=2, s=2),
    layer("conv_transpose", (6, 4, 5), nn.ConvTranspose2d(6, 9, 3, (2, 3), 1, (1, 2), groups=3), out=9, k=3, s=(2, 3), pad=1, out_pad=(1, 2), groups=3),  # noqa: E501
    layer("conv_transpose", (6, 4, 5), nn.ConvTranspose2d(6, 4, 3, dilation=2, bias=False), out=4, k=3, dil=2, bias=False),  # noqa: E501
    layer("linear", (12,), nn.Linear(12, 5), out=5),
    layer("linear", (3, 4, 12), nn.Linear(12, 5, bias=False), out=5, bias=False),
    layer("batch_norm", (6, 4, 5), nn.BatchNorm2d(6)),
    layer("batch_norm", (6,), nn.BatchNorm1d(6, affine=False), affine=False),
    Case("layer_norm", [batched(6, 4, 5)], channels_last(norm_c), norm_c),
    Case("layer_norm", [batched(6, 4, 5)], norm_all, norm_all, axes=(0, -1, 1)),
    layer("layer_norm", (6,), nn.LayerNorm(6, elementwise_affine=False), affine=False),
    layer("group_norm", (6, 4, 5), nn.GroupNorm(3, 6), groups=3),
    layer("group_norm", (6, 4, 5), nn.GroupNorm(6, 6, affine=False), groups=6, affine=False),
    Case("input", [], lambda: torch.rand(BATCH, 3, 8, 9), shape=(3, 8, 9)),
    *plain("relu", F.relu), *plain("relu6", F.relu6), *plain("silu", F.silu), *plain("mish", F.mish),
    *plain("sigmoid", torch.sigmoid), *plain("hard_sigmoid", F.hardsigmoid), *plain("hard_swish", F.hardswish),
    *plain("tanh", torch.tanh), *plain("softplus", F.softplus), *plain("gelu", F.gelu),
    *plain("gelu", lambda x: F.gelu(x, approximate="tanh"), approximate=True),
    *plain("leaky_relu", F.leaky_relu), *plain("elu", F.elu), *plain("clip", lambda x: x.clip(0, 1), low=0, high=1),
    *plain("identity", nn.Identity()), *plain("dropout", F.dropout, rate=Fraction(1, 2)),
    on("drop_path", (3, 4), lambda x: x * torch.ones(BATCH, 1, 1), rate=Fraction(1, 5)),
    on("softmax", (3, 4), lambda x: x.softmax(1)), on("softmax", (3, 4), lambda x: x.softmax(-1), axis=-1),
    Case("add", [batched(3, 4, 5)] * 3, lambda x, y, z: x + y + z),
    Case("add", [batched(3, 4, 5), unbatched(3, 1, 1)], torch.add),
    Case("add", [unbatched(5), batched(3, 4, 5)], torch.add),
    Case("add", [unbatched(2, 1), unbatched(3)], torch.add),
    Case("mul", [batched(3, 4, 5), batched(3, 1, 1)], torch.mul),
    Case("mul", [batched(3, 4, 5), unbatched()], torch.mul),
    Case("sub", [batched(3, 1, 5), batched(1, 4, 5)], torch.sub),
    Case("div", [batched(3, 4), batched(3, 1)], torch.div),
    Case("pow", [batched(3, 4), unbatched(4)], torch.pow),
    *scalar("add", lambda a, b: a + b), *scalar("mul", lambda a, b: a * b), *scalar("sub", lambda a, b: a - b),
    *scalar("div", lambda a, b: a / b), *scalar("pow", lambda a, b: a**b),
    Case("matmul", [batched(4, 3, 5), batched(4, 5, 7)], torch.matmul),
    Case("matmul", [batched(4, 3, 5), batched(1, 5, 7)], torch.matmul),
    Case("matmul", [batched(4, 3, 5), unbatched(5, 2)], torch.matmul),
    Case("matmul", [unbatched(3, 5), batched(5, 2)], torch.matmul),
    Case("matmul", [unbatched(3, 5), unbatched(5, 2)], torch.matmul),
    on("max_pool", (3, 9, 10), nn.MaxPool2d(3, 2, 1), k=3, s=2),
    on("max_pool", (3, 9, 10), nn.MaxPool2d(3, 2, ceil_mode=True), k=3, s=2, pad=0, ceil=True),
    on("max_pool", (3, 9, 10), nn.MaxPool2d((3, 2), (1, 2), (1, 0), (2, 1)), k=(3, 2), s=(1, 2), pad=(1, 0), dil=(2, 1)),  # noqa: E501
    on("max_pool", (3, 9, 10), lambda x: F.max_pool2d(same(x, (3, 3), (2, 2), -math.inf), 3, 2), k=3, s=2, pad="same"),
    on("avg_pool", (3, 9, 10), nn.AvgPool2d(3, 1, 1), k=3, s=1, count_pad=True),
    on("avg_pool", (3, 9, 10), nn.AvgPool2d(2, 2, ceil_mode=True), k=2, s=2, pad=0, ceil=True),
    on("avg_pool", (3, 9, 10), nn.AvgPool2d(3, 2, 1, ceil_mode=True), k=3, s=2, ceil=True, count_pad=True),
    on("global_avg_pool", (3, 5, 7), nn.AdaptiveAvgPool2d(1)),
    on("global_max_pool", (3, 5, 7), nn.AdaptiveMaxPool2d(1)),
    on("adaptive_avg_pool", (3, 5, 7), nn.AdaptiveAvgPool2d((2, 3)), size=(2, 3)),
    on("adaptive_avg_pool", (3, 5, 7), nn.AdaptiveAvgPool2d(9), size=9),
    on("reduce_mean", (3, 5, 7), lambda x: x.mean((2, 3), keepdim=True), axes=(1, 2)),
    on("reduce_sum", (3, 5, 7), lambda x: x.sum(1, keepdim=True), axes=(0,)),
    Case("reduce_max", [unbatched(4, 2, 3, 3)], lambda x: x.amax((1, 2, 3), keepdim=True), axes=(-1, 1, 2)),
    Case("concat", [batched(3, 4, 5), batched(2, 4, 5)], lambda *xs: torch.cat(xs, 1)),
    Case("concat", [batched(3, 4), batched(3, 1), batched(3, 2)], lambda *xs: torch.cat(xs, -1), axis=-1),
    Case("concat", [unbatched(3), unbatched(1)], lambda *xs: torch.cat(xs)),
    on("split", (6, 4), lambda x: x.chunk(3, 1), parts=3),
    on("split", (6, 4), lambda x: x.split([1, 3], -1), parts=(1, 3), axis=-1),
    on("slice", (6, 4), lambda x: x[:, 1:-2], axis=0, start=1, stop=-2),
    Case("slice", [unbatched(6, 4)], lambda x: x[:, 2:4], axis=-1, start=2, stop=4),
    on("reshape", (6, 4, 5), lambda x: x.reshape(BATCH, 2, 3, 4, 5), shape=(2, 3, 4, 5)),
    Case("reshape", [unbatched(6)], lambda x: x.reshape(6, 1, 1), shape=(6, 1, 1)),
    Case("reshape", [batched(1, 1)], lambda x: x.reshape(BATCH), shape=()),
    on("permute", (6, 4, 5), lambda x: x.permute(0, 2, 3, 1), order=(1, 2, 0)),
    Case("permute", [unbatched(6, 4, 5)], lambda x: x.permute(2, 0, 1), order=(-1, 0, 1)),
    on("flatten", (6, 4, 5), nn.Flatten()),
    Case("flatten", [unbatched(6, 4)], lambda x: x.flatten()),
    Case("flatten", [batched()], lambda x: x.reshape(BATCH, 1)),
    on("zero_pad", (3, 4, 5), nn.ZeroPad2d((3, 4, 1, 2)), pad=((1, 2), (3, 4))),
    on("zero_pad", (3, 4, 5), nn.ZeroPad2d((2, 2, 1, 1)), pad=(1, 2)),
    on("resize", (3, 4, 5), lambda x: F.interpolate(x, scale_factor=2), scale=2),
    on("resize", (3, 4, 6), lambda x: F.interpolate(x, scale_factor=0.5), scale=Fraction(1, 2)),
    on("resize", (3, 4, 5), lambda x: F.interpolate(x, (7, 3), mode="bilinear"), size=(7, 3), mode="bilinear"),
    on("resize", (3, 4, 5), lambda x: F.interpolate(x, (7, 3), mode="bilinear", align_corners=True), size=(7, 3), mode="bilinear", align_corners=True),  # noqa: E501
]  # fmt: skip

# A parameter is not a function of tensors; its shape and its tensor are what is written.
ELSEWHERE = {"parameter"}


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_shapes_tensors_and_macs_are_those_of_torch(case):
    row = OPS[case.op]
    attributes = case.attributes
    if attributes is None:
        # The weight of a convolution arrives beside its arguments, after they are bound.
        attributes = bind(row, with_context(case.op, case.given), case.types[: 1 if row.arity == "one" else None])
    results = infer(row, case.types, attributes)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        expected = case.run(*map(random_tensor, case.types))
    expected = (expected,) if isinstance(expected, torch.Tensor) else tuple(expected)
    assert [((BATCH,) if t.batched else ()) + t.shape for t in results] == [tuple(t.shape) for t in expected]
    tensors = row.tensors(case.types, attributes)
    module = case.module or nn.Identity()
    assert {n: t.shape for n, t in tensors.items() if not t.buffer} == {
        n: tuple(t.shape) for n, t in module.named_parameters()
    }
    assert {n: t.shape for n, t in tensors.items() if t.buffer} == {
        n: tuple(t.shape) for n, t in module.named_buffers() if n != "num_batches_tracked"
    }
    images = BATCH if results[0].batched else 1
    assert 2 * images * row.macs(case.types, attributes, results) == counter.get_total_flops()
    assert set(attributes) >= set(row.attribute_names), "an attribute that the row names is missing"
    assert set(attributes) <= {*row.attribute_names, *row.optional}, "an attribute that the row does not name"


@pytest.mark.parametrize(
    "case", [case for case in CASES if OPS[case.op].group not in ("source", "stochastic")], ids=repr
)
@pytest.mark.parametrize("backwards", [False, True])
def test_meaning_is_torchs(case, backwards):
    """numpy's row computes what torch does, in float64; in float32 its result is float32."""
    row, source = OPS[case.op], torch.Generator().manual_seed(0)
    attributes = case.attributes
    if attributes is None:
        attributes = bind(row, with_context(case.op, case.given), case.types[: 1 if row.arity == "one" else None])
    module = (case.module or nn.Identity()).eval().double()
    if "eps" in attributes:
        module.eps = float(attributes["eps"])
    try:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if name != "num_batches_tracked":
                tensor.data = 0.5 + torch.rand(tensor.shape, generator=source, dtype=torch.float64)
        shapes = [(BATCH, *t.shape) if t.batched else t.shape for t in case.types]
        inputs = [torch.rand(shape, generator=source, dtype=torch.float64) * 8 - 4 for shape in shapes]
        inputs = [x.abs() for x in inputs] if case.op == "pow" else inputs
        with torch.no_grad():
            expected = case.run(*inputs)
        results, state = infer(row, case.types, attributes), module.state_dict()
        owned = {name: state[name].numpy() for name in row.tensors(case.types, attributes)}
    finally:
        module.float().train()
    node = Node(0, case.op, case.op, (), attributes, results)
    for dtype, tolerance in ((numpy.float64, 1e-13), (numpy.float32, 1e-5)):
        tensors = {name: array.astype(dtype) for name, array in owned.items()}
        arrays = [x.numpy().astype(dtype) for x in inputs]
        found = meaning(Step(node, arrays, tensors, int(case.types[0].batched), backwards))
        for array, tensor in zip(found, [expected] if isinstance(expected, torch.Tensor) else expected, strict=True):
            assert array.dtype == dtype
            assert array.shape == tuple(tensor.shape)
            assert numpy.abs(array - tensor.numpy()).max() <= tolerance * max(1, tensor.abs().max())


def test_every_operator_has_a_meaning():
    assert set(MEANING) == set(OPS) - {"input"}


def test_every_row_has_a_case():
    assert set(OPS) - {case.op for case in CASES} - ELSEWHERE == set()


def test_a_parameter_is_its_shape_without_a_batch():
    attributes = bind(OPS["parameter"], {"shape": (3, 1, 1), "init": Fraction(1, 10)}, [])
    assert infer(OPS["parameter"], [], attributes) == (unbatched(3, 1, 1),)
    tensor = OPS["parameter"].tensors([], attributes)["value"]
    assert (tensor.shape, tensor.init) == ((3, 1, 1), Initializer("constant", {"value": Fraction(1, 10)}))
    assert infer(OPS["parameter"], [], {"shape": (), "init": ROOT_INIT}) == (unbatched(),)


@pytest.mark.parametrize("target", ["onnx", "torch"])
def test_every_operator_has_a_row_in_the_backend(target):
    rows = importlib.import_module(f"effspec.backends.{target}.rules").ROWS
    wanted = {name for name, row in OPS.items() if row.group != "source"}
    assert wanted - set(rows) == set()
    assert set(rows) - set(OPS) == set()


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


def shape_or_none(run):
    """The shape that torch gives, or None where it refuses or gives no pixel."""
    try:
        shape = tuple(run().shape[1:])
    except RuntimeError:
        return None
    return shape if min(shape) > 0 else None


def ours_or_none(op, types, **given):
    row = OPS[op]
    try:
        return infer(row, types, bind(row, with_context(op, given), types))[0].shape
    except OpError:
        return None


@settings(max_examples=300, deadline=None)
@given(sizes, pairs, pairs, pads, pairs)
def test_convolutions_fit_where_torch_says_so(size, k, s, pad, dil):
    x = torch.empty(1, 2, *size)
    weight = torch.empty(3, 2, *k)
    ours = ours_or_none("conv", [batched(2, *size)], out=3, k=k, s=s, pad=pad, dil=dil)
    assert ours == shape_or_none(lambda: F.conv2d(x, weight, None, s, pad, dil))


@settings(max_examples=300, deadline=None)
@given(sizes, pairs, pairs, pads, pairs, pads)
def test_transposed_convolutions_fit_where_torch_says_so(size, k, s, pad, dil, extra):
    x = torch.empty(1, 2, *size)
    weight = torch.empty(2, 3, *k)
    ours = ours_or_none("conv_transpose", [batched(2, *size)], out=3, k=k, s=s, pad=pad, dil=dil, out_pad=extra)
    assert ours == shape_or_none(lambda: F.conv_transpose2d(x, weight, None, s, pad, extra, 1, dil))


@settings(max_examples=300, deadline=None)
@given(sizes, pairs, pairs, pads, pairs, st.booleans())
def test_max_pools_fit_where_torch_says_so(size, k, s, pad, dil, ceil):
    x = torch.empty(1, 2, *size)
    ours = ours_or_none("max_pool", [batched(2, *size)], k=k, s=s, pad=pad, dil=dil, ceil=ceil)
    expected = shape_or_none(lambda: F.max_pool2d(x, k, s, pad, dil, ceil))
    # With ceil, torch takes a window that does not fit once; effspec refuses it.
    fits = all(n + 2 * p >= d * (j - 1) + 1 for n, p, d, j in zip(size, pad, dil, k, strict=True))
    assert ours == (expected if fits else None)


@settings(max_examples=300, deadline=None)
@given(sizes, pairs, pairs, pads, st.booleans(), st.booleans())
def test_average_pools_fit_where_torch_says_so(size, k, s, pad, ceil, count):
    x = torch.empty(1, 2, *size)
    ours = ours_or_none("avg_pool", [batched(2, *size)], k=k, s=s, pad=pad, ceil=ceil, count_pad=count)
    expected = shape_or_none(lambda: F.avg_pool2d(x, k, s, pad, ceil, count))
    fits = all(n + 2 * p >= j for n, p, j in zip(size, pad, k, strict=True))
    assert ours == (expected if fits else None)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (1, 3), (4, 2, 3), (4, 1, 1)]), min_size=2, max_size=3)
)
def test_parameters_broadcast_as_in_torch(shapes):
    ours = ours_or_none("add", [unbatched(*shape) for shape in shapes])
    try:
        expected = tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        expected = None
    assert ours == expected


# TensorFlow's pads, from tf.nn: (size, kernel, stride) -> (before, after).
@pytest.mark.parametrize(
    ("size", "k", "s", "ends"),
    [(224, 3, 2, (0, 1)), (224, 5, 2, (1, 2)), (224, 7, 2, (2, 3)), (225, 3, 2, (1, 1)), (56, 3, 1, (1, 1))],
)
def test_same_pads_as_tensorflow(size, k, s, ends):
    types = [batched(3, size, size)]
    attributes = bind(OPS["conv"], with_context("conv", {"out": 4, "k": k, "s": s, "pad": "same"}), types)
    assert attributes["padding"] == (ends, ends)


def test_a_counted_loop_gives_the_multiply_adds_of_a_convolution():
    """Counts each multiplication of a grouped, strided, padded convolution; products with padding count."""
    types = [batched(4, 5, 6)]
    given = {"out": 6, "k": (3, 2), "s": (2, 1), "pad": (1, 0), "groups": 2}
    attributes = bind(OPS["conv"], with_context("conv", given), types)
    results = infer(OPS["conv"], types, attributes)
    loop = sum(
        1
        for out in range(6)
        for top in range(0, 5 + 2 - 3 + 1, 2)
        for left in range(6 - 2 + 1)
        for channel in range(4)
        if channel // 2 == out // 3
        for _ in range(3 * 2)
    )
    assert OPS["conv"].macs(types, attributes, results) == loop


IMAGE = [batched(6, 8, 8)]
VECTOR = [batched(6)]
REFUSED = [
    ("conv", IMAGE, {}, "out", "E0408", "needs its argument `out`"),
    ("conv", IMAGE, {"out": 0}, "out", "E0408", "is 0, expected an integer from 1"),
    ("conv", IMAGE, {"out": True}, "out", "E0408", "is true"),
    ("conv", IMAGE, {"out": 2**31 + 1}, "out", "E0408", "2147483649"),
    ("conv", IMAGE, {"out": Fraction(9, 2)}, "out", "E0408", "is 4.5"),
    ("conv", IMAGE, {"out": 8, "k": (3, 3, 3)}, "k", "E0408", "is [3, 3, 3], expected a size or [height, width]"),
    ("conv", IMAGE, {"out": 8, "pad": -1}, "pad", "E0408", "is -1"),
    ("conv", IMAGE, {"out": 8, "pad": "valid"}, "pad", "E0408", 'is "valid"'),
    ("conv", IMAGE, {"out": 8, "pad": ((0, 1), (0, 1), (0, 1))}, "pad", "E0408", "[[0, 1], [0, 1], [0, 1]]"),
    ("conv", IMAGE, {"out": 8, "bias": 1}, "bias", "E0408", "is 1, expected true or false"),
    ("conv", IMAGE, {"out": 8, "kernel": 3}, "kernel", "E0408", "no argument `kernel`"),
    ("conv", IMAGE, {"out": 8, "init": "he"}, "init", "E0408", 'is "he"'),
    ("conv", IMAGE, {"out": 8, "k": 2}, "k", "E0411", "odd kernel, found 2 x 2"),
    ("conv", IMAGE, {"out": 8, "k": 11, "pad": 0}, "k", "E0412", "spans 11, the padded image 8"),
    ("conv", IMAGE, {"out": 8, "groups": 4}, "groups", "E0413", "4 groups do not divide 6"),
    ("conv", IMAGE, {"out": 8, "groups": 3}, "out", "E0413", "3 groups do not divide 8"),
    ("conv", VECTOR, {"out": 8}, None, "E0410", "needs an image [channels, height, width], found shape (6,)"),
    ("conv", [unbatched(6, 8, 8)], {"out": 8}, None, "E0410", "computed from parameters alone"),
    ("conv", [*IMAGE, *IMAGE, *IMAGE], {"out": 8}, None, "E0409", "conv takes one tensor, found 3 tensors"),
    ("conv_transpose", IMAGE, {"out": 8, "k": 2, "out_pad": 1}, "out_pad", "E0410", "out_pad 1"),
    ("linear", [batched()], {"out": 8}, None, "E0410", "found a scalar"),
    ("layer_norm", IMAGE, {"axes": (0, 3)}, "axes", "E0410", "no axis 3 in a tensor of shape (6, 8, 8)"),
    ("layer_norm", IMAGE, {"axes": (0, -3)}, "axes", "E0410", "names an axis twice"),
    ("relu", IMAGE * 2, {}, None, "E0409", "relu takes one tensor, found 2 tensors"),
    ("add", [], {}, None, "E0409", "add takes a list of tensors, found none"),
    ("dynamic_conv", IMAGE, {}, None, "E0409", "a list of two tensors, found one tensor"),
    ("dynamic_conv", [batched(4, 7, 7), unbatched(6, 4, 1, 1)], {}, None, "E0410", "computed from parameters alone"),
    ("dynamic_conv", [batched(4, 7, 7), batched(6, 4)], {}, "k", "E0410", "(out, channels / groups, 1, 1), found (6, 4)"),  # noqa: E501
    ("dynamic_conv", [batched(4, 7, 7), batched(6, 4, 3, 3)], {"k": 3, "groups": 2}, "groups", "E0413", "a weight (6, 4, 3, 3) in 2 groups does not fit 4 channels"),  # noqa: E501
    ("dynamic_conv", [batched(4, 7, 7), batched(5, 2, 3, 3)], {"k": 3, "groups": 2}, "groups", "E0413", "a weight (5, 2, 3, 3) in 2 groups"),  # noqa: E501
    ("matmul", IMAGE, {}, None, "E0409", "a list of two tensors, found one tensor"),
    ("add", [batched(6, 8, 8), batched(4, 8, 8)], {}, None, "E0410", "found (6, 8, 8) and (4, 8, 8)"),
    ("mul", [batched(6, 8, 8), batched(6)], {}, None, "E0410", "(6,) has fewer axes and comes with a batch"),
    ("matmul", [batched(3, 4), batched(3, 4)], {}, None, "E0410", "found (3, 4) and (3, 4)"),
    ("matmul", [batched(2, 3, 4), batched(4, 5)], {}, None, "E0410", "comes with a batch"),
    ("clip", IMAGE, {"low": 1, "high": 0}, "low", "E0410", "low end 1 above its high end 0"),
    ("clip", IMAGE, {"low": 1, "high": 10**400}, "high", "E0408", "expected a number that float32 can hold"),
    ("dropout", IMAGE, {"rate": 1}, "rate", "E0410", "found 1"),
    ("drop_path", IMAGE, {"rate": Fraction(-1, 2)}, "rate", "E0410", "found -0.5"),
    ("drop_path", [unbatched(3)], {"rate": 0}, None, "E0410", "parameters alone"),
    ("softmax", VECTOR, {"axis": 1}, "axis", "E0410", "no axis 1"),
    ("max_pool", IMAGE, {"k": 3}, "s", "E0408", "needs its argument `s`"),
    ("max_pool", IMAGE, {"k": 3, "s": 1, "pad": 2}, "pad", "E0411", "pads 2 around a kernel of 3"),
    ("avg_pool", IMAGE, {"k": 3, "s": 1, "pad": ((0, 2), (0, 0))}, "pad", "E0411", "pads 2 around a kernel of 3"),
    ("global_avg_pool", VECTOR, {}, None, "E0410", "found shape (6,)"),
    ("reduce_sum", IMAGE, {"axes": ()}, "axes", "E0410", "at least one axis"),
    ("reduce_sum", IMAGE, {"axes": 1}, "axes", "E0408", "is 1, expected a list of integers"),
    ("concat", [batched(6, 8, 8), batched(6, 4, 4)], {}, None, "E0410", "found (6, 8, 8) and (6, 4, 4)"),
    ("concat", [batched(6), unbatched(6)], {}, None, "E0410", "parameters alone"),
    ("split", IMAGE, {"parts": 4}, "parts", "E0410", "axis 0 of size 6 into 4 equal parts"),
    ("split", IMAGE, {"parts": (2, 3)}, "parts", "E0410", "[2, 3] of split sum to 5, axis 0 has 6"),
    ("split", IMAGE, {"parts": ()}, "parts", "E0408", "is [], expected a size or a list of sizes"),
    ("slice", IMAGE, {"axis": 0, "start": 2, "stop": 7}, "stop", "E0410", "at 7, axis 0 has 6"),
    ("slice", IMAGE, {"axis": 0, "start": 3, "stop": 3}, "stop", "E0410", "from 3 to 3"),
    ("reshape", IMAGE, {"shape": (6, 8)}, "shape", "E0410", "(6, 8, 8) has 384, (6, 8) has 48"),
    ("permute", IMAGE, {"order": (0, 1)}, "order", "E0410", "orders 2 axes"),
    ("permute", IMAGE, {"order": (0, 1, 1)}, "order", "E0410", "names an axis twice"),
    ("zero_pad", IMAGE, {"pad": "half"}, "pad", "E0410", "has no kernel"),
    ("resize", IMAGE, {}, None, "E0410", "found neither"),
    ("resize", IMAGE, {"size": 4, "scale": 2}, "scale", "E0410", "found both"),
    ("resize", IMAGE, {"scale": Fraction(1, 3)}, "scale", "E0410", "resize by 1/3 makes 8/3 x 8/3 of 8 x 8"),
    ("resize", IMAGE, {"scale": -1}, "scale", "E0410", "resize by -1"),
    ("resize", IMAGE, {"scale": 2, "mode": "bicubic"}, "mode", "E0408", 'is "bicubic", expected "nearest" or'),
    ("resize", IMAGE, {"scale": 2, "align_corners": True}, "align_corners", "E0410", "means nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "types", "given", "argument", "code", "text"), REFUSED)
def test_what_a_row_refuses(op, types, given, argument, code, text):
    row = OPS[op]
    with pytest.raises(OpError) as caught:
        infer(row, types, bind(row, with_context(op, given), types))
    assert (caught.value.argument, caught.value.code) == (argument, code)
    assert text in caught.value.message


def test_a_scalar_operand_is_refused_where_it_makes_no_sense():
    for op, number, text in (("div", 0, "divided by 0"), ("add", 10**400, "largest of float32")):
        with pytest.raises(OpError, match=text):
            infer(OPS[op], IMAGE, {"scalar": number, "scalar_left": False})
    assert infer(OPS["div"], IMAGE, {"scalar": 0, "scalar_left": True}) == tuple(IMAGE)


def test_a_weight_layer_that_changes_the_shape_is_refused():
    attributes = bind(OPS["conv"], with_context("conv", {"out": 4, "k": 3}), IMAGE)
    for weight in (unbatched(4, 6, 3, 1), batched(4, 6, 3, 3)):
        with pytest.raises(OpError, match=r"of a weight of shape \(4, 6, 3, 3\)"):
            infer(OPS["conv"], [*IMAGE, weight], attributes)


@pytest.mark.parametrize(
    ("pad", "padding", "mode"),
    [
        (2, ((2, 2), (2, 2)), "explicit"),
        ((1, 2), ((1, 1), (2, 2)), "explicit"),
        (((0, 1), (2, 3)), ((0, 1), (2, 3)), "explicit"),
        ("half", ((1, 1), (1, 1)), "half"),
        ("same", ((0, 1), (0, 1)), "same"),
    ],
)
def test_pads_become_numbers(pad, padding, mode):
    given = {"out": Fraction(4), "k": 3, "s": (2, 2), "pad": pad}
    attributes = bind(OPS["conv"], with_context("conv", given), IMAGE)
    assert (attributes["padding"], attributes["pad_mode"]) == (padding, mode)
    assert (attributes["kernel_size"], attributes["stride"], attributes["dilation"]) == ((3, 3), (2, 2), (1, 1))
    assert attributes["out_channels"] == 4 and isinstance(attributes["out_channels"], int)


@pytest.mark.parametrize("shape", [(8, 6, 3, 3), (12, 1, 5, 5), (10, 7)])
def test_fans_and_laws_as_torch_counts_them(shape):
    weight = torch.empty(shape)
    assert fans(shape) == nn.init._calculate_fan_in_and_fan_out(weight)
    for name, init in (("kaiming", nn.init.kaiming_uniform_), ("xavier", nn.init.xavier_uniform_)):
        torch.manual_seed(0)
        bound = distribution(initializer(f"{name}_uniform", {}), shape).high
        values = init(
            torch.empty(shape, dtype=torch.float64), **({"nonlinearity": "relu"} if name == "kaiming" else {})
        )
        assert 0.9 * bound < values.abs().max() <= bound
        torch.manual_seed(0)
        law = distribution(initializer(f"{name}_normal", {}), (400, *shape[1:]))
        init = getattr(nn.init, f"{name}_normal_")
        values = init(torch.empty((400, *shape[1:])), **({"nonlinearity": "relu"} if name == "kaiming" else {}))
        assert values.std().item() == pytest.approx(law.std, rel=0.05)


def test_the_fan_out_of_a_grouped_convolution_is_timms():
    """The law of EfficientNet's depthwise convolutions, against timm's own initialiser."""
    init_weight = importlib.import_module("timm.models._efficientnet_builder")._init_weight_goog
    conv = nn.Conv2d(96, 96, 5, groups=96, bias=False)
    torch.manual_seed(0)
    init_weight(conv)
    attributes = bind(OPS["conv"], with_context("conv", {"out": 96, "k": 5, "groups": 96}), [batched(96, 8, 8)])
    tensor = OPS["conv"].tensors([batched(96, 8, 8)], attributes)["weight"]
    law = distribution(tensor.init, tensor.shape)
    assert law.std == pytest.approx(math.sqrt(2 / 25))
    assert conv.weight.std().item() == pytest.approx(law.std, rel=0.05)


def test_laws_of_the_plain_initialisers():
    assert distribution(initializer("constant", {"value": Fraction(1, 4)}), (3,)) == ("constant", 0.25)
    assert distribution(initializer("normal", {"std": 2, "mean": 1}), (3,)) == ("normal", 1, 2, -math.inf, math.inf)
    assert distribution(initializer("truncated_normal", {"std": 2}), ()) == ("normal", 0, 2, -4, 4)
    assert distribution(initializer("uniform", {"low": -1, "high": 2}), (3,)) == ("uniform", -1, 2)
    assert set(INITIALIZERS) >= {ROOT_INIT.kind}
    for kind, arguments in (
        ("normal", {"std": 0}),
        ("uniform", {"low": 1, "high": 0}),
        ("xavier_normal", {"mode": "fan_in"}),
        ("kaiming_normal", {"mode": "fan_avg"}),
        ("constant", {}),
    ):
        with pytest.raises(OpError):
            initializer(kind, arguments)
    with pytest.raises(OpError, match="no fan in and fan out"):
        distribution(ROOT_INIT, (3,))
