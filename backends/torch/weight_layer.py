"""A convolution whose weight passes through a layer: a subclass of `nn.Conv2d` with the layer's parameters beside the weight."""

from __future__ import annotations

import ast
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.body import Class, Text
from effspec.backends.torch.build import call, name, own
from effspec.backends.torch.scope import Argument
from effspec.layers import Tensor

_OPTIONAL = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True}


def plan_weight_class(plan: Any, body: Any, block: str) -> Class:
    """The class for these instances of a weight's layer; its forward ends in the convolution."""
    scope = body.scope
    convs = [user for i in body.instances for user in plan.elaborated.graph.users(i.output.value.node) if user.op == "conv"]
    arguments = [
        Argument("in", "in_channels", {i: _shape(i)[1] for i in body.instances}),
        Argument("out", "out_channels", {i: _shape(i)[0] for i in body.instances}),
        Argument("k", "kernel_size", {i: _shape(i)[2] for i in body.instances}),
    ]
    scope.arguments = {a.key: a for a in arguments}
    same = any(c.attributes["pad_mode"] == "same" for c in convs)
    optional = []
    for word, default in _OPTIONAL.items():
        values = [_value(c, word) for c in convs]
        if word == "padding" and same:
            continue
        if any(value != default for value in values):
            annotation = "bool" if isinstance(default, bool) else "int"
            optional.append(Argument(word, word, {}, default, annotation))
    keywords = {a.name: name(a.name) for a in optional}
    scope.weight_shape = {0: name("out_channels"), 1: build.parse("self.weight.shape[1]"), 2: build.parse("self.weight.shape[2]")}
    body.translate_from(Text(own("weight"), None), "weight")
    source: ast.expr = name("x")
    if same:
        source = call(plan.need("pad_same"), source, build.parse("self.kernel_size[0]"), build.parse("self.stride[0]"))
    body.emit(ast.Return(call(own("_conv_forward"), source, body.current.tree, own("bias"))))
    start = ast.Expr(
        call("super().__init__", name("in_channels"), name("out_channels"), name("kernel_size"), **keywords)
    )
    place = body.node.span.place.rsplit("/", 1)[-1]
    return Class(
        block + "Conv2d",
        [build.parse("nn.Conv2d")],
        f"A convolution whose weight passes through `{block}` ({place}) before use.",
        [*arguments, *optional],
        [start, *scope.init],
        body.statements,
        [("x", "torch.Tensor")],
        "torch.Tensor",
        list(body.instances),
        "out",
        custom_init=True,
    )


def _shape(instance: Any) -> tuple[int, ...]:
    assert isinstance(instance.input, Tensor)
    return instance.input.type.shape


def _value(node: Any, word: str) -> Any:
    value = node.attributes[word]
    if word == "padding":
        return value[0][0]
    return value[0] if isinstance(value, tuple) else value
