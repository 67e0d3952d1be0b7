"""Which model parameters stay constructor arguments: those that flow into operators and touch no other shape."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from effspec.backends.torch.operators import ACTIVATIONS

from effspec.elaborate import Elaborated
from effspec.layers import Application, Instance, Layer, Tensor
from effspec.syntax import nodes
from effspec.values import is_number

# Operator arguments that may be chosen when the module is made; a width only where nothing reads the result's width.
_RATES = {("dropout", "rate"), ("drop_path", "rate")}
_WIDTHS = {("linear", "out"), ("conv", "out")}
_WINDOWS = frozenset({"avg_pool", "max_pool", "global_avg_pool", "global_max_pool", "resize"})
_KEEPS_WIDTH = frozenset(ACTIVATIONS) - {"softmax"} | _WINDOWS | {"dropout", "flatten"}


def runtime_parameters(elaborated: Elaborated, live: set[int]) -> dict[str, Any]:
    """The parameters of the compiled model that the emitted class takes, with their compiled values.

    `live` holds the nodes of the graph.
    """
    found = {}
    for parameter in elaborated.model.parameters:
        word = parameter.name.id
        value = elaborated.parameters[word].value
        if is_number(value) and _Flow(elaborated, live).is_free(elaborated.root, word):
            found[word] = value
    return found


def tainted_parameters(root: Instance, names: set[str]) -> set[tuple[Instance, str]]:
    """The block parameters that come from the model's constructor arguments."""
    found = {(root, word) for word in names}

    def visit(instance: Instance) -> None:
        for child in instance.children:
            for word, bound in child.arguments.items():
                if bound.node is None or bound.instance is None:
                    continue
                if any((bound.instance, w) in found for w in _names(bound.node)):
                    found.add((child, word))
            visit(child)

    visit(root)
    return found


@lru_cache(256)
def _names(node: nodes.Node) -> frozenset[str]:
    """What an expression mentions."""
    return frozenset(part.id for part in nodes.descend(node) if isinstance(part, nodes.Name))


@lru_cache(64)
def channels_of(declared: nodes.ModelInput) -> nodes.Expr | None:
    """The first element of an input's shape, where it is written: `[channels, ...]` or `[channels] + ...`."""
    shape = declared.shape
    while isinstance(shape, nodes.Binary) and shape.op == "+":
        shape = shape.left
    return shape.items[0] if isinstance(shape, nodes.List) and shape.items else None


def _parents(node: nodes.Node) -> Mapping[nodes.Node, nodes.Node]:
    """The parent of everything below a node."""
    return {child: part for part in nodes.descend(node) for child in nodes.children(part)}


class _Flow:
    """Follows one parameter from a body to the operators that read it."""

    def __init__(self, elaborated: Elaborated, live: set[int]) -> None:
        self.elaborated = elaborated
        self.live = live
        self.used = False

    def is_free(self, instance: Instance, word: str) -> bool:
        return self._body(instance, word) and self.used

    def _body(self, instance: Instance, word: str) -> bool:
        """Whether every evaluated mention of a name is in a harmless place."""
        parents = _parents(instance.node)
        evaluated = {node for node, _ in instance.values}
        mentions = [node for node in parents if isinstance(node, nodes.Name) and node.id == word]
        return all(self._harmless(m, parents, instance) for m in mentions if m in evaluated)

    def _harmless(self, mention: nodes.Name, parents: Mapping[nodes.Node, nodes.Node], instance: Instance) -> bool:
        node: nodes.Node = mention
        while node in parents:
            node = parents[node]
            if isinstance(node, nodes.Prepare | nodes.Require):
                return True
        node, plain = mention, True
        while node in parents:
            parent = parents[node]
            if isinstance(parent, nodes.Argument):
                return self._argument(parent, parents[parent], instance, plain)
            if isinstance(parent, nodes.DefaultEntry):
                return self._default(parent)
            if isinstance(parent, nodes.ModelInput):
                return plain is False and self._input(parent, mention, instance)
            if isinstance(parent, nodes.Parameter | nodes.Statement):
                return False
            plain = False
            node = parent
        return False

    def _argument(self, argument: nodes.Argument, call: nodes.Node, instance: Instance, plain: bool) -> bool:
        """Whether what an argument is given to may be chosen when the module is made."""
        layers = [v for (n, _), v in instance.values.items() if n is call and isinstance(v, Layer)]
        if not layers:
            return False
        for layer in layers:
            names = [w for w, bound in layer.bound.items() if bound.node is argument]
            if not names:
                return False
            if layer.op is not None:
                place = (layer.op.name, names[0])
                if place in _RATES and plain:
                    self.used = True
                elif place in _WIDTHS:
                    if not self._width(layer, instance):
                        return False
                    self.used = True
                else:
                    return False
                continue
            if not self._children(layer, names[0], instance):
                return False
        return True

    def _width(self, layer: Layer, instance: Instance) -> bool:
        """Whether nothing that depends on the width of this layer's result has weights or a shape of its own."""
        graph = self.elaborated.graph
        for application in _applications(instance, layer):
            for number in application.nodes:
                if number not in self.live:
                    continue
                stack = [number]
                while stack:
                    for user in graph.users(stack.pop()):
                        if user.op not in _KEEPS_WIDTH:
                            return False
                        stack.append(user.id)
        return True

    def _children(self, layer: Layer, word: str, instance: Instance) -> bool:
        applications = _applications(instance, layer)
        return bool(applications) and all(a.child is not None and self._body(a.child, word) for a in applications)

    def _default(self, entry: nodes.DefaultEntry) -> bool:
        """Whether all that reads a contextual default is a drop rate."""
        readers: list[tuple[Instance, str]] = []

        def visit(instance: Instance) -> None:
            for child in instance.children:
                readers.extend((child, w) for w, bound in child.arguments.items() if bound.node is entry)
                visit(child)

        visit(self.elaborated.root)
        for instance, word in readers:
            parents = _parents(instance.node)
            for mention in [p for p in parents if isinstance(p, nodes.Name) and p.id == word]:
                if not any(node is mention for node, _ in instance.values):
                    continue
                argument = parents[mention]
                if not isinstance(argument, nodes.Argument):
                    return False
                call = parents[argument]
                for layer in [v for (n, _), v in instance.values.items() if n is call and isinstance(v, Layer)]:
                    if layer.op is None or (layer.op.name, "rate") not in _RATES:
                        return False
        self.used = self.used or bool(readers)
        return bool(readers)

    def _input(self, declared: nodes.ModelInput, mention: nodes.Name, instance: Instance) -> bool:
        """`on image: [channels, ...]` where only convolutions of one group read the image.

        A model used as a layer says so of an image that it is given as it is.
        """
        if channels_of(declared) is not mention:
            return False
        graph = self.elaborated.graph
        if instance is not self.elaborated.root:
            given = instance.input
            return isinstance(given, Tensor) and given.value.node in {node.id for node in graph.inputs}
        for node in graph.inputs:
            for user in graph.users(node.id):
                if user.op != "conv" or user.attributes["groups"] != 1:
                    return False
        self.used = True
        return True


def _applications(instance: Instance, layer: Layer) -> list[Application]:
    """Where a layer value was applied (`-> C` binds a copy, `each` wraps it)."""
    given = set(layer.bound.values())

    def extends(other: Layer) -> bool:
        alike = other.op is layer.op and other.definition is layer.definition
        return other is layer or (alike and given <= set(other.bound.values()))

    return [application for application in instance.applied.values() if extends(application.layer)]
