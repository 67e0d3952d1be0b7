"""Costs of hand-built graphs against published counts, and against slower ways of counting."""

from __future__ import annotations

import pytest

from effspec.cost import BYTES, Cost
from effspec.ir.graph import Value, leaves
from tests.graphs import Net

# pycls (facebookresearch/pycls, dev/model_complexity.json at 5719de6): params, flops, acts.  Its flops count the 1,000
# biases of the classifier too.
PYCLS = {
    50: ("R-50-1x64d_step_1gpu", 25_557_032, 4_089_185_256, 11_315_688),
    101: ("R-101-1x64d_step_1gpu", 44_549_160, 7_801_406_440, 16_433_640),
}
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def resnet(depth):
    """A bottleneck ResNet: He et al. 2015, with the stride on the 3 x 3 convolution."""
    net = Net(image=(3, 224, 224))

    def conv_norm(x, path, out, k=1, s=1, act=True):
        x = net("conv", x, path=f"{path}.conv", out=out, k=k, s=s, bias=False)
        x = net("batch_norm", x, path=f"{path}.norm")
        return net("relu", x, path=f"{path}.act") if act else x

    x = conv_norm(net.inputs["image"], "stem", 64, 7, 2)
    x = net("max_pool", x, path="stem.pool", k=3, s=2)
    for stage, count in enumerate(BLOCKS[depth]):
        width = 64 * 2**stage
        for block in range(count):
            path, s = f"stage{stage + 1}.{block}", 2 if stage and not block else 1
            rest = x if block else conv_norm(x, f"{path}.downsample", 4 * width, 1, s, act=False)
            x = conv_norm(x, f"{path}.a", width)
            x = conv_norm(x, f"{path}.b", width, 3, s)
            x = conv_norm(x, f"{path}.c", 4 * width, act=False)
            x = net("relu", net("add", x, rest, path=f"{path}.add"), path=f"{path}.act")
    x = net("flatten", net("global_avg_pool", x, path="head.pool"), path="head.flatten")
    return net.out(net("linear", x, path="head.classifier", out=1000))


@pytest.mark.parametrize("depth", BLOCKS)
def test_a_resnet_costs_what_pycls_counts(depth):
    cost = Cost(resnet(depth))
    _, params, flops, acts = PYCLS[depth]
    assert (cost.params, cost.training_params, cost.macs, cost.acts) == (params, params, flops - 1000, acts)
    assert cost.depth == depth
    assert cost.count("add") == sum(BLOCKS[depth])
    # Two running statistics for each scale and shift: all parameters less weights and the classifier, for ResNet.
    norms = [row for row in cost.nodes if row.node.op == "batch_norm"]
    assert cost.buffers == sum(row.params for row in norms)
    assert cost.weights == 4 * (cost.params + cost.buffers)


def alive(graph):
    """The greatest sum of bytes at one step, found anew for each step from who made and who reads each tensor."""
    last = {}
    for node in graph:
        for value in node.inputs:
            last[value] = node.id
    for output in graph.outputs:
        last.update(dict.fromkeys(leaves(output.value), 10**9))

    def here(value, step):
        node = graph[value.node]
        start = -1 if node.op == "input" else node.id
        return node.op != "parameter" and start <= step <= last.get(value, node.id)

    values = [Value(node.id, k) for node in graph for k in range(len(node.types))]
    return max(sum(BYTES * graph.type(v).numel for v in values if here(v, node.id)) for node in graph)


def test_the_peak_of_a_resnet():
    graph = resnet(50)
    cost = Cost(graph)
    assert cost.peak == alive(graph)
    # By hand: both operands of an addition in stage1 and its sum; two results of the stem are less.
    assert cost.peak == 4 * 3 * 256 * 56 * 56 > 4 * 2 * 64 * 112 * 112


def test_the_peak_of_a_chain_with_a_residual():
    net = Net(image=(2, 4, 4))
    x = net.inputs["image"]  # 32 elements
    a = net("conv", x, out=4)  # 64
    b = net("relu", a)
    c = net("dropout", b, rate=0)  # b itself
    d = net("split", net("add", a, c), parts=2)  # 64, then twice 32
    graph = net.out(d[1])
    live = {row.node.op: row.live for row in Cost(graph).nodes}
    assert live == {
        "input": 4 * 32,
        "conv": 4 * (32 + 64),
        "relu": 4 * (64 + 64),
        "dropout": 4 * (64 + 64),
        "add": 4 * (64 + 64 + 64),
        "split": 4 * (64 + 32 + 32),
    }
    assert Cost(graph).peak == 4 * 192


def test_an_image_that_is_read_late_stays():
    net = Net(image=(2, 4, 4))
    x = net.inputs["image"]
    scale = net.parameter("scale", 2, 1, 1)
    y = net("mul", net("relu", net("relu", x)), scale)
    graph = net.out(net("concat", y, x))
    assert Cost(graph).peak == alive(graph) == 4 * (32 + 32 + 64)


def test_groups_cover_the_whole_once():
    cost = Cost(resnet(50))
    groups = cost.by_prefix()
    assert [group.name for group in groups] == ["image", "stem", "stage1", "stage2", "stage3", "stage4", "head"]
    for what in ("params", "buffers", "macs", "acts"):
        assert sum(getattr(group, what) for group in groups) == getattr(cost, what)
    assert max(group.peak for group in groups) == cost.peak
    assert [str(group.types[0]) for group in groups[1:]] == [
        "64 x 56 x 56",
        "256 x 56 x 56",
        "512 x 28 x 28",
        "1024 x 14 x 14",
        "2048 x 7 x 7",
        "1000",
    ]
    stages = {group.name: group for group in cost.by_prefix(2)}
    # He et al.: a bottleneck of 256, 64, 64, 256 with its norms.
    assert stages["stage1.1"].params == 256 * 64 + 64 * 64 * 9 + 64 * 256 + 2 * (64 + 64 + 256)


def test_shared_tensors_count_once_and_their_work_twice():
    net = Net(image=(2, 4, 4))
    x = net("conv", net.inputs["image"], path="head.0", weights="head", out=2, k=3)
    x = net("conv", x, path="head.1", weights="head", out=2, k=3)
    cost = Cost(net.out(x))
    assert (cost.params, cost.macs, cost.count("conv"), cost.depth) == (38, 2 * 36 * 16, 2, 2)


def test_what_exists_in_training_only_counts_there_only():
    net = Net(image=(2, 4, 4))
    x = net("conv", net.inputs["image"], path="body", out=2)
    aux = net("conv", x, path="aux", out=3, training=True)
    graph = net.out(x)
    graph.outputs.append(type(graph.outputs[0])("aux", aux, training=True))
    cost = Cost(graph)
    assert (cost.params, cost.training_params, cost.macs, cost.count("conv")) == (6, 15, 4 * 16, 1)


def test_depth_follows_the_longest_path():
    net = Net(image=(2, 4, 4))
    x = net.inputs["image"]
    long = net("conv", net("relu", net("conv", x, out=2)), out=2)
    y = net("add", long, net("conv", x, out=2))
    y = net("conv_transpose", y, out=2, k=2, s=2)
    assert Cost(net.out(net("linear", net("flatten", y), out=5))).depth == 4
