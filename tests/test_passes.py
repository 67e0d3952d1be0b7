"""Passes: what they leave, and that the numbers stay the same (float64, PyTorch as the judge)."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy
import pytest
from effspec.backends.onnx.numbers import evaluate

from effspec.ir.graph import Graph, Output
from effspec.ir.verify import verify
from effspec.passes import FOLDS, INFERENCE, LINEAR_FOLD, run
from effspec.passes.derived import Derived, sources
from tests.graphs import Net, Random, efficientnet, images, torch_outputs


def count(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph)


def size(graph: Graph) -> int:
    return sum(int(numpy.prod(parameter.shape)) for parameter in graph.parameters())


def outputs(graph: Graph, weights: Random | None = None) -> list[numpy.ndarray]:
    source = weights or Random()
    return torch_outputs(graph, lambda p: evaluate(p, source, numpy.float64), images(graph))


def same(graph: Graph, folded: Graph, weights: Random | None = None) -> float:
    pairs = zip(outputs(graph, weights), outputs(folded, weights), strict=True)
    return max(float(abs(a - b).max() / abs(a).max()) for a, b in pairs)


def norm(net: Net, x, path: str, eps: Fraction = Fraction(1, 1000), **arguments):
    return net("batch_norm", x, eps=eps, path=path, **arguments)


def test_identities_and_training_outputs_go():
    net = Net(image=(4, 5, 6))
    x = net.inputs["image"]
    y = net("dropout", net("identity", net("drop_path", x, rate=Fraction(1, 2))), rate=Fraction(1, 2))
    y = net("mul", net("add", net("sub", y, scalar=0), scalar=0), scalar=1)
    y = net("pow", net("div", y, scalar=1), scalar=1)
    y = net("reshape", net("permute", net("slice", y, axis=0, start=0, stop=4), order=(0, 1, 2)), shape=(4, 5, 6))
    y = net("resize", net("zero_pad", net("concat", y), pad=0), size=(5, 6))
    y = net("split", net("adaptive_avg_pool", y, size=(5, 6)), parts=1)[0]
    kept = net("sub", net("div", y, scalar=1, left=True), scalar=0, left=True)
    kept = net("permute", net("permute", kept, order=(0, 2, 1)), order=(0, 2, 1))
    aux = net("linear", kept, out=3, path="aux")
    graph = net.out(kept)
    graph.outputs.append(Output("aux", aux, training=True))
    left = run(graph, INFERENCE)
    assert count(left) == {"input": 1, "div": 1, "sub": 1, "permute": 2}
    assert [output.name for output in left.outputs] == ["output"]
    assert same(left, left) == 0


def test_an_identity_that_is_the_output_leaves_its_input():
    net = Net(image=(4, 5, 6))
    left = run(net.out(net("identity", net.inputs["image"])), INFERENCE)
    assert count(left) == {"input": 1}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(
    ("op", "shape", "arguments"),
    [
        ("conv", (4, 7, 8), {"out": 6, "k": 3, "s": 2}),
        ("conv", (6, 7, 8), {"out": 6, "k": 5, "groups": 6, "pad": "same"}),
        ("conv_transpose", (6, 4, 5), {"out": 4, "k": 3, "s": 2, "groups": 2, "out_pad": 1}),
        ("conv_transpose", (3, 4, 5), {"out": 4, "k": 2, "s": 2}),
        ("linear", (5,), {"out": 4}),
    ],
)
def test_batch_norm_folds_into(op, shape, arguments, bias, affine):
    net = Net(image=shape)
    y = net(op, net.inputs["image"], bias=bias, path="layer.conv", **arguments)
    y = norm(net, y, "layer.norm", affine=affine)
    graph = net.out(net("relu", norm(net, y, "second.norm")))
    folded = run(graph, FOLDS["batch_norm"])
    assert count(folded) == {"input": 1, op: 1, "relu": 1}
    assert [p.path for p in folded.parameters()] == ["layer.conv.weight_folded", "layer.conv.bias_folded"]
    assert not any(p.buffer for p in folded.parameters(buffers=True))
    assert same(graph, folded) < 1e-12


def test_batch_norm_stays_where_folding_would_be_wrong():
    net = Net(image=(4, 7, 8))
    x = net.inputs["image"]
    read_twice = net("conv", x, out=4, path="twice")
    exported = net("conv", x, out=4, path="exported")
    between = net("relu", net("conv", x, out=4, path="between"))
    rows = net("linear", x, out=8, path="rows")
    values = [norm(net, v, f"norm{i}") for i, v in enumerate((read_twice, exported, between, rows, x))]
    graph = net.out(net("add", read_twice, *values), exported=exported)
    folded = run(graph, FOLDS["linear"])
    assert count(folded)["batch_norm"] == 5
    assert same(graph, folded) < 1e-12


def test_shared_weights_with_norms_of_their_own_fold_apart():
    net = Net(fine=(4, 8, 8), coarse=(4, 4, 4))
    convs = {k: net("conv", x, out=5, bias=False, path=f"conv.{k}", weights="conv") for k, x in net.inputs.items()}
    graph = net.out(tuple(norm(net, y, f"norm.{k}") for k, y in convs.items()))
    folded = run(graph, FOLDS["batch_norm"])
    assert count(folded) == {"input": 2, "conv": 2}
    assert size(folded) == 2 * (4 * 5 + 5)
    assert same(graph, folded) < 1e-12


def test_shared_weights_with_a_shared_norm_fold_together():
    net = Net(fine=(4, 8, 8), coarse=(4, 4, 4))
    ends = []
    for k, x in net.inputs.items():
        y = net("conv", x, out=5, bias=False, path=f"conv.{k}", weights="conv")
        ends.append(net("batch_norm", y, path=f"norm.{k}", weights="norm"))
    graph = net.out(tuple(ends))
    folded = run(graph, FOLDS["batch_norm"])
    assert size(folded) == 4 * 5 + 5
    assert same(graph, folded) < 1e-12


def test_constants_fold_to_one_parameter_each():
    net = Net(image=(4, 7, 7))
    weight, gain = net.parameter("conv.weight", 6, 4, 3, 3), net.parameter("conv.gain", 6, 1, 1, 1)
    weight = net("mul", net("sub", weight, net("reduce_mean", weight, axes=(1, 2, 3))), gain)
    y = norm(net, net("conv", net.inputs["image"], weight, out=6, k=3, path="conv.conv"), "norm")
    low, high = net("split", net("relu", net.parameter("p", 6, 1, 1)), parts=2)
    y = net("mul", y, net("concat", high, low))
    bare = net("conv", y, net.parameter("last.weight", 2, 6, 1, 1), out=2, path="last.conv")
    graph = net.out(bare, exported=low)
    folded = run(graph, FOLDS["batch_norm"])
    assert count(folded) == {"input": 1, "conv": 2, "parameter": 2, "mul": 1}
    paths = [p.path for p in folded.parameters()]
    assert "conv.conv.weight_folded" in paths and "last.weight" in paths
    assert same(graph, folded) < 1e-12


def repvgg(net: Net, x, path: str, out: int, s: int, k: int = 3, groups: int = 1):
    def conv(name: str, k: int):
        y = net("conv", x, out=out, k=k, s=s, groups=groups, bias=False, path=f"{path}.{name}.conv")
        return norm(net, y, f"{path}.{name}.norm")

    branches = [conv("dense", k), conv("point", 1)]
    if s == 1 and net.graph.type(x).shape[0] == out:
        branches.append(norm(net, x, f"{path}.skip"))
    return net("relu", net("add", *branches, path=f"{path}.add"), path=f"{path}.act")


def test_repvgg_a0_collapses_to_its_published_deploy_form():
    """Ding et al. 2021: RepVGG-A0 has 8.30 M parameters in deploy mode; timm's reparameterised model has 8,309,384."""
    net = Net(image=(3, 224, 224))
    x = repvgg(net, net.inputs["image"], "stem", 48, 2)
    for stage, (depth, width) in enumerate(zip((2, 4, 14, 1), (48, 96, 192, 1280), strict=True)):
        for i in range(depth):
            x = repvgg(net, x, f"stage{stage}.{i}", width, 2 if i == 0 else 1)
    graph = net.out(net("linear", net("flatten", net("global_avg_pool", x)), out=1000))
    folded = run(graph, LINEAR_FOLD)
    assert (size(graph), size(folded)) == (9_108_968, 8_309_384)
    assert count(folded) == {"input": 1, "conv": 22, "relu": 22, "global_avg_pool": 1, "flatten": 1, "linear": 1}


@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize(("out", "groups"), [(6, 1), (6, 6), (6, 2), (12, 2)])
@pytest.mark.parametrize("image", [(6, 8, 8), (6, 9, 7)])
def test_parallel_branches_merge(s, out, groups, image):
    net = Net(image=image)
    graph = net.out(repvgg(net, net.inputs["image"], "block", out, s, groups=groups))
    folded = run(graph, LINEAR_FOLD)
    assert count(folded) == {"input": 1, "conv": 1, "relu": 1}
    assert [p.path for p in folded.parameters()] == ["block.dense.conv.weight_folded", "block.dense.conv.bias_folded"]
    assert same(graph, folded) < 1e-12


MERGES = {
    # branches as arguments of conv, or "x" for the input itself: what is left in the graph
    "residual": ([{"k": 3}, "x"], {"conv": 1}),
    "twice the input": ([{"k": 3}, "x", "x"], {"conv": 1}),
    "asymmetric": ([{"k": 3}, {"k": (1, 3)}, {"k": (3, 1)}], {"conv": 1}),
    "dilated": ([{"k": 3, "dil": 2}, {"k": 1}], {"conv": 1}),
    "dilated inside": ([{"k": 5}, {"k": 3, "dil": 2}, {"k": 3}], {"conv": 1}),
    "off the grid": ([{"k": 3, "dil": 2}, {"k": 3}], {"conv": 2, "add": 1}),
    "dilations": ([{"k": 3, "dil": 2}, {"k": 3, "dil": 3}], {"conv": 2, "add": 1}),
    "groups": ([{"k": 3}, {"k": 3, "groups": 2}], {"conv": 2, "add": 1}),
    "no kernel holds the others": ([{"k": (1, 3)}, {"k": (3, 1)}], {"conv": 2, "add": 1}),
    "even kernel": ([{"k": 2, "pad": ((1, 0), (1, 0))}, {"k": 1}], {"conv": 1}),
    "shifted": ([{"k": 3, "pad": ((2, 0), (0, 2))}, {"k": 1}], {"conv": 1}),
    "shifted out": ([{"k": 3, "pad": ((2, 0), (0, 2))}, {"k": 3}], {"conv": 2, "add": 1}),
    "no bias": ([{"k": 3, "bias": False}, {"k": 1, "bias": False}], {"conv": 1}),
}


@pytest.mark.parametrize("name", MERGES)
def test_merging_keeps_the_numbers(name):
    branches, left = MERGES[name]
    net = Net(image=(4, 7, 8))
    x = net.inputs["image"]
    values = [x if b == "x" else net("conv", x, out=4, path=f"b{i}", **b) for i, b in enumerate(branches)]
    graph = net.out(net("add", *values))
    folded = run(graph, LINEAR_FOLD)
    assert count(folded) == {"input": 1, **left}
    assert same(graph, folded) < 1e-12


def test_sums_merge_in_part_and_in_chains():
    net = Net(image=(4, 7, 8))
    x = net("relu", net.inputs["image"])
    a, b = net("conv", x, out=4, k=3, path="a"), net("conv", x, out=4, path="b")
    other = net("tanh", x)
    graph = net.out(net("add", net("add", a, other), net("add", b, x)))
    folded = run(graph, LINEAR_FOLD)
    assert count(folded)["conv"] == 2 and same(graph, folded) < 1e-12
    net = Net(image=(4, 7, 8))
    x = net.inputs["image"]
    graph = net.out(net("add", net("conv", x, out=4, k=3), net("tanh", x), net("conv", x, out=4)))
    folded = run(graph, LINEAR_FOLD)
    assert count(folded) == {"input": 1, "conv": 1, "tanh": 1, "add": 1} and same(graph, folded) < 1e-12
    net = Net(image=(4, 7, 8))
    x = net.inputs["image"]
    y = net("add", net("add", net("conv", x, out=4, k=3), x), norm(net, net("conv", x, out=4), "n"))
    graph = net.out(y)
    folded = run(graph, LINEAR_FOLD)
    assert count(folded) == {"input": 1, "conv": 1} and same(graph, folded) < 1e-12


def test_a_branch_that_is_read_elsewhere_stays():
    net = Net(image=(4, 7, 8))
    x = net.inputs["image"]
    a, b = net("conv", x, out=4, k=3), net("conv", x, out=4)
    graph = net.out(net("add", a, b), a=a)
    folded = run(graph, LINEAR_FOLD)
    assert count(folded) == count(graph)


@pytest.mark.parametrize("name", FOLDS)
def test_passes_are_idempotent_and_verify(name):
    graph = efficientnet(size=64)
    once = run(graph, FOLDS[name])
    twice = run(once, FOLDS[name])
    verify(twice, after="the second time")
    assert [(n.op, n.path, n.inputs) for n in once] == [(n.op, n.path, n.inputs) for n in twice]
    assert list(once.parameters()) == list(twice.parameters())


def test_derived_tensors_know_what_they_read():
    net = Net(image=(4, 7, 8))
    folded = run(net.out(repvgg(net, net.inputs["image"], "b", 4, 1)), LINEAR_FOLD)
    weight = folded.parameters()[0]
    assert isinstance(weight, Derived)
    read = {parameter.path for parameter in sources(weight)}
    assert {"b.dense.conv.weight", "b.point.norm.running_var", "b.skip.weight"} <= read
    assert read <= {parameter.path for parameter in net.graph.parameters(buffers=True)}


@pytest.mark.parametrize("mutation", ["eps", "mean", "pad"])
def test_the_judge_sees_small_mistakes(mutation):
    """Another epsilon, a mean that is forgotten, a pad on the other side: each has to show."""

    def make(eps=Fraction(1, 1000), pad=((0, 1), (0, 1))) -> Graph:
        net = Net(image=(4, 8, 8))
        y = net("conv", net.inputs["image"], out=6, k=3, s=2, pad=pad, path="conv")
        return net.out(norm(net, y, "norm", eps=eps))

    class NoMean(Random):
        def tensor(self, parameter):
            return super().tensor(parameter) * (not parameter.path.endswith("running_mean"))

    graph, folded = make(), run(make(), FOLDS["batch_norm"])
    assert same(graph, folded) < 1e-12
    changed = {
        "eps": lambda: outputs(run(make(eps=Fraction(1, 100_000)), FOLDS["batch_norm"])),
        "mean": lambda: outputs(folded, NoMean()),
        "pad": lambda: outputs(run(make(pad=((1, 0), (1, 0))), FOLDS["batch_norm"])),
    }[mutation]()
    assert float(abs(changed[0] - outputs(graph)[0]).max()) > 1e-4
