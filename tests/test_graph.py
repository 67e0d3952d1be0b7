"""Graphs: their invariants, their text form and their three hashes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from effspec.backends.ir import BACKEND

from effspec import identity
from effspec.backend import Unit
from effspec.ir.graph import Graph, Initializer, Node, Output, Parameter, Value, leaves
from effspec.ir.text import attribute_text, graph_text
from effspec.ir.types import TensorType
from effspec.ir.verify import InternalError, verify
from tests.graphs import Net


def example(**changes):
    """Two branches, a sum, a number, a parameter, a split and shared tensors; each argument changes one thing."""
    given = {
        "out": 4,
        "pad": "half",
        "rate": Fraction(1, 5),
        "eps": Fraction(1, 1000),
        "scalar": 2,
        "first": "left",
        "branches": ("left", "right"),
        "shared": "head",
        "swap": False,
        "size": 8,
        "gamma": "gamma",
    } | changes
    net = Net(image=(3, given["size"], given["size"]))
    x = net("conv", net.inputs["image"], path="stem", out=given["out"], k=3, pad=given["pad"])
    made = {}
    left, right = given["branches"]
    for name in sorted(given["branches"], key=lambda name: name != given["first"]):
        y = net("batch_norm", x, path=f"{name}.norm", eps=given["eps"]) if name == left else net("relu", x, path=name)
        made[name] = y
    x = net("add", made[left], made[right], path="add")
    x = net("drop_path", net("mul", x, path="twice", scalar=given["scalar"]), path="drop", rate=given["rate"])
    x = net("mul", x, net.parameter(given["gamma"], 4, 1, 1), path="scaled")
    a, b = net("split", x, path="split", parts=2)
    if given["swap"]:
        a, b = b, a
    outs = [
        net("conv", value, path=f"head.{i}", weights=given["shared"] if i else "head", out=2)
        for i, value in enumerate((a, b))
    ]
    return net.out((outs[0], outs[1]))


def test_a_good_graph_passes():
    verify(example(), after="elaboration")


def change(op, /, **fields):
    """A graph in which the last node of an operator has other fields."""

    def make():
        graph, out = example(), Graph("net")
        target = max(node.id for node in graph if node.op == op)
        for node in graph:
            out.add(replace(node, **fields) if node.id == target else node)
        out.outputs = list(graph.outputs)
        return out

    return make


def attributes(op, /, **changes):
    node = [node for node in example() if node.op == op][-1]
    return {name: value for name, value in (node.attributes | changes).items() if value is not ...}


def outputs(*found):
    def make():
        graph = example()
        graph.outputs = list(found)
        return graph

    return make


BIAS = Parameter("head.bias", (3,), Initializer("constant", {"value": 0}))
CONV = [node for node in example() if node.op == "conv"][-1]
BROKEN = {
    "path": (change("relu", path="stem"), "relu at stem", "node 1 has the same path"),
    "operator": (change("relu", op="swish"), "swish at right", "no such row"),
    "missing": (change("batch_norm", attributes=attributes("batch_norm", eps=...)), "left.norm", "['eps']"),
    "unknown": (change("relu", attributes={"slope": 1}), "relu at right", "['slope'] are missing or unknown"),
    "scalar": (change("mul", attributes={"scalar": 1}), "scaled", "only ['scalar'] is there"),
    "arity": (change("relu", inputs=(Value(1), Value(0))), "right", "takes one tensor, found 2 tensors"),
    "type": (change("relu", types=(TensorType((4, 8, 9)),)), "right", "types are 4 x 8 x 9, the row infers 4 x 8 x 8"),
    "batch": (change("parameter", types=(TensorType((4, 1, 1)),)), "gamma", "the row infers [4 x 1 x 1]"),
    "tensors": (change("conv", parameters={}), "head.1", "its tensors are {}"),
    "shared": (
        change(
            "conv",
            attributes=attributes("conv", out_channels=3),
            types=(TensorType((3, 8, 8)),),
            parameters=CONV.parameters
            | {"weight": replace(CONV.parameters["weight"], shape=(3, 2, 1, 1)), "bias": BIAS},
        ),
        "head.1",
        "head.weight is a weight of shape (3, 2, 1, 1) here and a weight of shape (2, 2, 1, 1) elsewhere",
    ),
    "result": (change("conv", inputs=(Value(9, 2),)), "head.1", "result 2 of split, which has 2"),
    "training": (change("relu", training=True), "add at add", "exists at inference and reads right"),
    "no output": (outputs(), "outputs", "found []"),
    "twice": (outputs(Output("a", Value(0)), Output("a", Value(1))), "outputs", "found ['a', 'a']"),
    "nowhere": (outputs(Output("a", (Value(0), Value(99)))), "output a", "reads node 99"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_graph_names_pass_and_node(case):
    make, where, message = BROKEN[case]
    with pytest.raises(InternalError) as caught:
        verify(make(), after="fold_something")
    assert caught.value.after == "fold_something"
    assert where in caught.value.where
    assert message in caught.value.message
    assert str(caught.value).startswith("after fold_something, ")


def test_numbers_have_to_ascend():
    graph = Graph("net")
    for number in (1, 0):
        graph.add(Node(number, "input", f"image{number}", (), {"shape": (3,)}, (TensorType((3,)),)))
    graph.outputs = [Output("output", Value(1))]
    with pytest.raises(InternalError, match="does not ascend"):
        verify(graph, after="elaboration")


TEXT = """\
graph net
%0 = input(shape=(3, 8, 8)) : 3 x 8 x 8  # image
%1 = conv(%0, @stem.weight, @stem.bias, out_channels=4, kernel_size=(3, 3), stride=(1, 1), \
padding=((1, 1), (1, 1)), pad_mode="half", dilation=(1, 1), groups=1, bias=true) : 4 x 8 x 8  # stem
%2 = batch_norm(%1, @left.norm.weight, @left.norm.bias, @left.norm.running_mean, @left.norm.running_var, \
eps=0.001, momentum=0.1, affine=true) : 4 x 8 x 8  # left.norm
%3 = relu(%1) : 4 x 8 x 8  # right
%4 = add(%2, %3) : 4 x 8 x 8  # add
%5 = mul(%4, scalar=2, scalar_left=false) : 4 x 8 x 8  # twice
%6 = drop_path(%5, rate=0.2) : 4 x 8 x 8  # drop
%7 = parameter(@gamma, shape=(4, 1, 1)) : [4 x 1 x 1]  # gamma
%8 = mul(%6, %7) : 4 x 8 x 8  # scaled
%9 = split(%8, sizes=(2, 2), axis=0) : 2 x 8 x 8, 2 x 8 x 8  # split
%10 = conv(%9.0, @head.weight, @head.bias, out_channels=2, kernel_size=(1, 1), stride=(1, 1), \
padding=((0, 0), (0, 0)), pad_mode="half", dilation=(1, 1), groups=1, bias=true) : 2 x 8 x 8  # head.0
%11 = conv(%9.1, @head.weight, @head.bias, out_channels=2, kernel_size=(1, 1), stride=(1, 1), \
padding=((0, 0), (0, 0)), pad_mode="half", dilation=(1, 1), groups=1, bias=true) : 2 x 8 x 8  # head.1

output output = [%10, %11]

weight @stem.weight : 4 x 3 x 3 x 3 = constant(value=1)
weight @stem.bias : 4 = constant(value=0)
weight @left.norm.weight : 4 = constant(value=1)
weight @left.norm.bias : 4 = constant(value=0)
buffer @left.norm.running_mean : 4 = constant(value=0)
buffer @left.norm.running_var : 4 = constant(value=1)
weight @gamma : 4 x 1 x 1 = constant(value=1)
weight @head.weight : 2 x 2 x 1 x 1 = constant(value=1)
weight @head.bias : 2 = constant(value=0)
"""


def test_the_text_form():
    graph = example()
    assert graph_text(graph) == TEXT
    (file,) = BACKEND.emit(Unit(graph, "Net"), None, {}, "net.ir.txt")
    assert (file.name, file.read().decode()) == ("net.ir.txt", TEXT)


def test_dropping_a_node_leaves_no_holes_in_the_text():
    graph = example()
    drop = next(node for node in graph if node.op == "drop_path")
    text = graph_text(graph.rewrite({drop.id: drop.inputs[0]}))
    assert "%8 = split(%7, " in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(1, 1000), "0.001"),
        (Fraction(-5, 4), "-1.25"),
        (Fraction(6, 3), "2"),
        (Fraction(1, 3), "1/3"),
        (True, "true"),
        (None, "none"),
        ("half", '"half"'),
        ((3,), "(3,)"),
        ((), "()"),
        (Initializer("normal", {"std": Fraction(1, 50), "mean": 0}), "normal(std=0.02, mean=0)"),
    ],
)
def test_numbers_print_exactly(value, text):
    assert attribute_text(value) == text


SAME_FUNCTION = {
    "a tensor's name": {"gamma": "scale"},
    "names of branches": {"branches": ("a", "b"), "first": "a"},
    "order of independent statements": {"first": "right"},
    "a pad written as a number": {"pad": 1},
    "the same number": {"scalar": Fraction(2)},
}
OTHER_FUNCTION = {
    "an attribute": {"eps": Fraction(1, 10_000)},
    "a rate": {"rate": Fraction(1, 10)},
    "a pad": {"pad": ((2, 0), (1, 1))},
    "a scalar": {"scalar": 3},
    "the input size": {"size": 9},
    "wiring": {"swap": True},
    "sharing": {"shared": "other"},
}


@pytest.mark.parametrize("what", SAME_FUNCTION)
def test_what_the_function_does_not_depend_on(what):
    assert identity.function(example(**SAME_FUNCTION[what])) == identity.function(example())


@pytest.mark.parametrize("what", OTHER_FUNCTION)
def test_what_the_function_depends_on(what):
    graph = example(**OTHER_FUNCTION[what])
    verify(graph, after="elaboration")
    assert identity.function(graph) != identity.function(example())


def test_what_nothing_reads_is_not_part_of_the_function():
    graph, more = example(), example()
    more.add(replace(more[3], id=more.next_id(), path="unread"))
    assert identity.function(more) == identity.function(graph)


def test_which_checkpoints_fit():
    weights = identity.weights(example())
    for same in ({"rate": 0}, {"first": "right"}, {"size": 9}, {"swap": True}):
        assert identity.weights(example(**same)) == weights
    for other in ({"gamma": "scale"}, {"shared": "other"}, {"branches": ("a", "b"), "first": "a"}):
        assert identity.weights(example(**other)) != weights


def test_initialisers_belong_to_the_artefact():
    graph, other = example(), Graph("net")
    for node in graph:
        tensors = {name: replace(p, init=Initializer("constant", {"value": 5})) for name, p in node.parameters.items()}
        other.add(replace(node, parameters=tensors))
    other.outputs = list(graph.outputs)
    ours, theirs = identity.hashes(graph), identity.hashes(other)
    assert (ours["function"], ours["weights"]) == (theirs["function"], theirs["weights"])
    assert ours["artefact"] != theirs["artefact"]


def test_the_artefact_depends_on_target_options_and_metadata():
    graph = example()
    digests = {
        identity.hashes(graph, target=target, options=options, metadata=metadata)["artefact"]
        for target in ("torch", "onnx")
        for options in ({}, {"opset": 18}, {"opset": "18"})
        for metadata in (None, {"mean": "[0, 0, 0]"})
    }
    assert len(digests) == 12
    assert {len(digest) for digest in digests} == {64}
    assert len(identity.short(digests.pop())) == 12


def test_a_deep_chain_is_no_problem():
    net = Net(image=(1, 1, 1))
    x = net.inputs["image"]
    for _ in range(3000):
        x = net("relu", x)
    graph = net.out(x)
    verify(graph, after="elaboration")
    assert len(identity.function(graph)) == 64
    assert leaves(graph.outputs[0].value) == (x,)
