"""Numbers that the spec reads off a tensor, read off the same tensor in forward."""

from __future__ import annotations

import ast

from effspec.backends.torch import build
from effspec.backends.torch.build import attribute
from effspec.backends.torch.plan.columns import Columns, Untranslatable, sample_of
from effspec.backends.torch.plan.repeats import Repeats

from effspec.layers import Tensor
from effspec.syntax import nodes
from effspec.values import is_number

_AXES = {"channels": 0, "height": 1, "width": 2}


class Sizes(Repeats):
    """`Repeats` with numbers in forward."""

    def scalar(self, node: nodes.Expr) -> ast.expr:
        """A number in tensor arithmetic."""
        if not self.scope.literal and reads_tensor(node, self.scope):
            tree = self.size(node)
            if tree is not None:
                return tree
        word = node.id if isinstance(node, nodes.Name) else "scale"
        return self.to_forward(self.scope.express(word, self.scope.column(node), node), word)

    def size(self, node: nodes.Expr, word: str = "size") -> ast.expr | None:
        """A number, read off a tensor where the spec does, else kept as `word`; None where that has no text."""
        match node:
            case nodes.List():
                return self._sizes(node)
            case nodes.Attribute() if isinstance(sample_of(self.scope.column(node.value)), Tensor):
                return self._off_tensor(node)
            case nodes.Index(value=nodes.Attribute() as shape, index=nodes.Number() as index):
                value = sample_of(self.scope.column(shape.value))
                tree = self.size(shape)
                if tree is not None and isinstance(value, Tensor):
                    return ast.Subscript(tree, ast.Constant(int(index.value) + value.type.batched), ast.Load())
            case nodes.Binary():
                left, right = self.size(node.left), self.size(node.right)
                return build.binary(node.op, left, right) if left is not None and right is not None else None
            case nodes.Call(function=nodes.Name(id="sqrt")):
                inner = self.size(node.arguments[0].value)
                return build.root(inner) if inner is not None else None
            case nodes.Name() if node.id in self.lengths:
                return build.name(node.id)
            case nodes.Name() if node.id in self.scope.binders and reads_tensor(node, self.scope):
                (_, bind), *others = self.scope.binders[node.id]
                return None if others or isinstance(bind.value, nodes.For) else self.size(bind.value)
        try:
            tree = self.scope.express(word, self.scope.column(node), node)
        except Untranslatable:
            return None
        return self.to_forward(tree, node.id if isinstance(node, nodes.Name) else word)

    def _sizes(self, node: nodes.List) -> ast.expr | None:
        pair = _size_of(node)
        items = [item for item in map(self.size, node.items) if item is not None]
        if len(items) < len(node.items):
            return None
        if pair is not None:
            last_two = ast.Slice(build.constant(-2), None, None)
            return ast.Subscript(attribute(self.value(pair).tree, "shape"), last_two, ast.Load())
        return ast.Tuple(items, ast.Load())

    def _off_tensor(self, node: nodes.Attribute) -> ast.expr:
        value = sample_of(self.scope.column(node.value))
        shape = attribute(self.value(node.value).tree, "shape")
        if node.name.id == "shape":
            return shape
        if node.name.id not in _AXES:
            return ast.Constant(len(value.type.shape))
        return ast.Subscript(shape, ast.Constant(_AXES[node.name.id] + value.type.batched), ast.Load())


def reads_tensor(node: nodes.Node, columns: Columns) -> bool:
    """Whether an expression reads a shape off a tensor, directly or through a name."""
    for part in nodes.descend(node):
        if isinstance(part, nodes.Name) and part.id in columns.binders:
            value = columns.binders[part.id][0][1].value
            number = is_number(sample_of(columns.values.get(part, {})))
            if value is not node and number and reads_tensor(value, columns):
                return True
        if isinstance(part, nodes.Attribute) and isinstance(sample_of(columns.values.get(part.value, {})), Tensor):
            return True
    return False


def _size_of(node: nodes.List) -> nodes.Expr | None:
    """`[t.height, t.width]` -> t."""
    match node.items:
        case (nodes.Attribute() as first, nodes.Attribute() as second):
            words = (first.name.id, second.name.id)
            if words == ("height", "width") and first.value.span.text == second.value.span.text:
                return first.value
    return None
