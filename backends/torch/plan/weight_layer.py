"""A convolution whose weight passes through a layer: a `nn.Conv2d` with the layer's parameters beside the weight."""

from __future__ import annotations

import ast
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name, own
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.body import Class, Text
from effspec.backends.torch.plan.statements import Translation
from effspec.backends.torch.plan.tidy import needed

from effspec.ir.graph import Graph, Node
from effspec.layers import Instance, Tensor

_OPTIONAL: dict[str, int | bool] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True}


def is_weight_layer(instance: Instance) -> bool:
    """Whether an instance works on a weight."""
    return isinstance(instance.input, Tensor) and not instance.input.type.batched


def weight_mark(instance: Instance, graph: Graph) -> tuple[Any, ...]:
    """Equal for weights of one shape that convolutions of the same attributes use."""
    convs = [user for user in graph.users(instance.output.value.node) if user.op == "conv"]
    uses = [str(sorted((word, str(value)) for word, value in conv.attributes.items())) for conv in convs]
    return (instance.input.type.shape, *uses)


def plan_weight_class(body: Translation, block: str, graph: Graph) -> Class:
    """The class for these instances of a weight's layer; its forward ends in the convolution."""
    scope = body.scope
    shapes = {instance: instance.input.type.shape for instance in body.instances}
    arguments = [
        Argument("in", "in_channels", {instance: shape[1] for instance, shape in shapes.items()}),
        Argument("out", "out_channels", {instance: shape[0] for instance, shape in shapes.items()}),
        Argument("k", "kernel_size", {instance: shape[2] for instance, shape in shapes.items()}),
    ]
    scope.arguments = {argument.key: argument for argument in arguments}
    convs = [user for i in body.instances for user in graph.users(i.output.value.node) if user.op == "conv"]
    same = any(conv.attributes["pad_mode"] == "same" for conv in convs)
    optional = [
        Argument(word, word, {}, default, type(default).__name__)
        for word, default in _OPTIONAL.items()
        if not (word == "padding" and same) and any(_value(conv, word) != default for conv in convs)
    ]
    scope.weight_width = name("out_channels")
    body.translate_from(Text(own("weight")), "weight")
    source: ast.expr = name("x")
    if same:
        kernel, stride = build.parse("self.kernel_size[0]"), build.parse("self.stride[0]")
        source = call(body.planner.need("pad_same"), source, kernel, stride)
    body.emit(ast.Return(call(own("_conv_forward"), source, body.current.tree, own("bias"))))
    given = [name(argument.name) for argument in arguments]
    start = ast.Expr(call("super().__init__", *given, **{a.name: name(a.name) for a in optional}))
    place = body.node.span.place.rsplit("/", 1)[-1]
    return Class(
        block + "Conv2d",
        [build.parse("nn.Conv2d")],
        f"A convolution whose weight passes through `{block}` ({place}) before use.",
        [*arguments, *optional],
        [start, *scope.init],
        needed(body.statements),
        [("x", "torch.Tensor")],
        "torch.Tensor",
        list(body.instances),
        "out",
        custom_init=True,
    )


def _value(node: Node, word: str) -> Any:
    """An attribute of a convolution, of which the sides are alike."""
    value: Any = node.attributes[word]
    if word == "padding":
        return value[0][0]
    return value[0] if isinstance(value, tuple) else value
