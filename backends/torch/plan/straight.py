"""The whole model as one class, written operator by operator from the graph: the last resort, always right."""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import attribute, call, literal, name, own
from effspec.backends.torch.functionals import FUNCTIONAL, FUNCTIONS, Use, functional
from effspec.backends.torch.plan.applications import compact, symmetric_pad
from effspec.backends.torch.plan.body import Class
from effspec.backends.torch.plan.columns import Untranslatable
from effspec.backends.torch.plan.initial import initialise
from effspec.backends.torch.plan.naming import HELPERS, need

from effspec.ir.graph import Graph, Node, Tree, Value, leaves
from effspec.names import TORCH_ATTRIBUTES

_INFIX: dict[str, type[ast.operator]] = {
    "add": ast.Add,
    "sub": ast.Sub,
    "mul": ast.Mult,
    "div": ast.Div,
    "pow": ast.Pow,
    "matmul": ast.MatMult,
}
_LONGEST = 100
"""Characters of a local variable's name."""


@dataclass(eq=False)
class _Place:
    """A word of the state dict's paths: the module or tensor that is made there, and what lies below it."""

    made: ast.expr | None = None
    below: dict[str, _Place] = field(default_factory=dict)

    @property
    def is_numbered(self) -> bool:
        """Whether it is a container that counts its children, rather than naming them."""
        return self.made is None and bool(self.below) and all(word.isdigit() for word in self.below)

    @property
    def is_list(self) -> bool:
        return self.is_numbered and {int(word) for word in self.below} == set(range(len(self.below)))

    def tree(self) -> ast.expr:
        """The constructor of what is here."""
        if self.made is not None:
            return self.made
        if self.is_list:
            elements = [self.below[str(place)].tree() for place in range(len(self.below))]
            return call("nn.ModuleList", ast.List(elements, ast.Load()))
        if self.is_numbered:
            keys: list[ast.expr | None] = [ast.Constant(word) for word in self.below]
            return call("nn.ModuleDict", ast.Dict(keys, [place.tree() for place in self.below.values()]))
        return call("nn.Module")

    def child(self, reference: ast.expr, word: str) -> ast.expr:
        """What lies here under a word, of which the expression `reference` is this place."""
        if not self.is_numbered:
            return attribute(reference, word)
        return ast.Subscript(reference, ast.Constant(int(word) if self.is_list else word), ast.Load())


class Straight:
    """Plans the one class of a graph; `classes` and `helpers` are as those of a `Plan` of blocks."""

    fact = "Written operator by operator: the blocks of the spec could not be translated to classes."

    def __init__(self, graph: Graph, class_name: str) -> None:
        self.graph = graph
        self.class_name = class_name
        self.classes: list[Class] = []
        self.helpers: dict[str, str] = {}
        self._nodes = [node for node in graph if node.op != "parameter"]
        self._raw = {node.id: path for node in self._nodes if (path := self._raw_weight(node))}
        self._root = _Place()
        self._words = {p.path.partition(".")[0] for p in graph.parameters(training=True, buffers=True)}
        self._alone: dict[int, tuple[str, ast.expr]] = {}
        self._names: dict[int, str] = {}

    def run(self) -> None:
        """Plan the class."""
        for node in self.graph:
            self._make(node)
        self._name()
        init = self._statements(self._root, name("self"))
        init += [build.assign("self." + word, tree) for word, tree in self._alone.values()]
        init += initialise(self.graph)
        inputs = [(self._names[node.id], "torch.Tensor") for node in self.graph.inputs]
        result, returns = self._result()
        forward = [*self._forward(), ast.Return(result)]
        base = [build.parse("nn.Module")]
        self.classes.append(Class(self.class_name, base, None, [], init, forward, inputs, returns, [], None))

    def need(self, helper: str) -> str:
        """The name of a helper, which the file will then hold."""
        return need(self.helpers, helper, {self.class_name})

    # Modules and tensors

    def _owner(self, node: Node) -> str | None:
        """The path of a node's module, which nodes made by `each` share; None if it has none with tensors."""
        if node.id in self._raw:
            return self._raw[node.id].removesuffix(".weight")
        for word, parameter in node.parameters.items():
            return parameter.path.removesuffix(f".{word}")
        return None

    def _raw_weight(self, node: Node) -> str | None:
        """The path of a convolution's weight before it passes through a layer."""
        if node.op != "conv" or len(node.inputs) != 2:
            return None
        stack, seen = [self.graph[node.inputs[1].node]], set()
        while stack:
            source = stack.pop()
            if source.op == "parameter" and source.path.endswith(".weight") and len(source.types[0].shape) == 4:
                return source.parameters["value"].path
            seen.add(source.id)
            stack += [self.graph[value.node] for value in source.inputs if value.node not in seen]
        return None

    def _make(self, node: Node) -> None:
        """The module or tensor that an operator needs."""
        if node.op == "parameter":
            (parameter,) = node.parameters.values()
            if parameter.path not in self._raw.values():
                sizes: list[ast.expr] = [ast.Constant(size) for size in parameter.shape]
                self._put(parameter.path, operators.parameter(sizes, parameter.init))
            return
        if node.op not in operators.ALWAYS_MODULES:
            return
        shape = self.graph.type(node.inputs[0]).shape
        attributes = _attributes(node)
        channels = literal(_channels(node, shape)) if node.op in operators.NEED_CHANNELS else None
        if node.id in self._raw:
            # Its module holds the weight, and forward calls the function: the pad is that of the call.
            attributes = {word: tree for word, tree in attributes.items() if word not in ("same", "explicit")}
        tree = operators.module(node.op, attributes, channels, self.need, None, len(shape))
        owner = self._owner(node)
        if owner is not None:
            self._put(owner, tree)
        else:
            taken = {*TORCH_ATTRIBUTES, *self._words, *(word for word, _ in self._alone.values())}
            self._alone[node.id] = _unique(node.path, taken), tree

    def _put(self, path: str, tree: ast.expr) -> None:
        place = self._root
        for word in path.split("."):
            place = place.below.setdefault(word, _Place())
        place.made = place.made or tree

    def _statements(self, place: _Place, reference: ast.expr) -> list[ast.stmt]:
        """What `__init__` does below a place, of which the expression `reference` is the module."""
        made: list[ast.stmt] = []
        for word, below in place.below.items():
            child = place.child(reference, word)
            if not place.is_numbered:
                made.append(build.assign(ast.unparse(child), below.tree()))
            made += self._statements(below, child)
        return made

    def _reference(self, path: str) -> ast.expr:
        """A module or tensor by its path in the state dict."""
        tree: ast.expr = name("self")
        place = self._root
        for word in path.split("."):
            tree = place.child(tree, word)
            place = place.below.get(word, _Place())
        return tree

    # Forward

    def _name(self) -> None:
        """Name the results: `x` where only the next operator reads it, else by the path."""
        taken = {"self", "torch", "nn", "F", "x", self.class_name, *keyword.kwlist, *dir(builtins), *HELPERS}
        order = {node.id: place for place, node in enumerate(self._nodes)}
        results = {leaf.node for output in self.graph.outputs for leaf in leaves(output.value)}
        for node in self._nodes:
            users = self.graph.users(node.id)
            if len(node.types) == len(users) == 1 and node.id not in results:
                next_one = order[users[0].id] == order[node.id] + 1
                if next_one and users[0].training == node.training:
                    self._names[node.id] = "x"
                    continue
            self._names[node.id] = _unique(node.path, taken)
            taken.add(self._names[node.id])

    def _value(self, value: Value) -> ast.expr:
        """A result of an operator, as what follows reads it."""
        node = self.graph[value.node]
        if node.op == "parameter":
            return self._reference(node.parameters["value"].path)
        tree = name(self._names[node.id])
        return ast.Subscript(tree, ast.Constant(value.output), ast.Load()) if node.op == "split" else tree

    def _forward(self) -> list[ast.stmt]:
        made: list[ast.stmt] = []
        training: ast.If | None = None
        for node in self._nodes:
            if node.op == "input":
                continue
            statement = build.assign(self._names[node.id], self._expression(node))
            if not node.training:
                training = None
                made.append(statement)
            elif training is not None:
                training.body.append(statement)
            else:
                training = ast.If(own("training"), [statement], [])
                made.append(training)
        return made

    def _expression(self, node: Node) -> ast.expr:
        inputs, attributes = [self._value(value) for value in node.inputs], _attributes(node)
        source = self.graph.type(node.inputs[0])
        if "scalar" in node.attributes:
            number = literal(node.attributes["scalar"])
            sides = (number, inputs[0]) if node.attributes["scalar_left"] else (inputs[0], number)
            return ast.BinOp(sides[0], _INFIX[node.op](), sides[1])
        if node.op == "identity":
            return inputs[0]
        if node.op == "conv" and len(inputs) == 2:
            return self._conv(node, inputs, attributes)
        if node.op in operators.ALWAYS_MODULES:
            owner = self._owner(node)
            return call(own(self._alone[node.id][0]) if owner is None else self._reference(owner), inputs[0])
        if node.op in FUNCTIONS or node.op in FUNCTIONAL:
            one = len(inputs) == 1 and node.op not in ("concat", "add", "mul")
            given = inputs[0] if one else ast.List(inputs, ast.Load())
            use = Use(given, attributes, len(inputs), int(source.batched), self.need)
            return functional(node.op, use)
        if node.op in _INFIX:
            return ast.BinOp(inputs[0], _INFIX[node.op](), inputs[1])
        raise Untranslatable(node.op)

    def _conv(self, node: Node, inputs: list[ast.expr], attributes: dict[str, ast.expr]) -> ast.expr:
        """A convolution whose weight has passed through a layer."""
        source, weight = inputs
        if "same" in attributes:
            source = call(self.need("pad_same"), source, attributes["kernel_size"], attributes["stride"])
        elif "explicit" in attributes:
            vertical, horizontal = build.elements(attributes["explicit"])
            pads = ast.Tuple([*build.elements(horizontal), *build.elements(vertical)], ast.Load())
            source = call("F.pad", source, pads)
        bias = [self._reference(node.parameters["bias"].path)] if "bias" in node.parameters else []
        words = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
        keywords = operators.keywords_of([(word, attributes.get(word), usual) for word, usual in words])
        tupled = {word: build.tupled(tree) for word, tree in keywords.items()}
        return call("F.conv2d", source, weight, *bias, **tupled)

    def _result(self) -> tuple[ast.expr, str]:
        """What forward returns, and its annotation."""
        normal = [output.value for output in self.graph.outputs if not output.training]
        extra = [output.value for output in self.graph.outputs if output.training]
        kinds = [_annotation(tree) for tree in normal]
        trees, kind = list(map(self._tree, normal)), kinds[0] if len(kinds) == 1 else f"tuple[{', '.join(kinds)}]"
        result = trees[0] if len(trees) == 1 else ast.Tuple(trees, ast.Load())
        if not extra:
            return result, kind
        everything = ast.Tuple([*trees, *map(self._tree, extra)], ast.Load())
        both = ", ".join([*kinds, *map(_annotation, extra)])
        return ast.IfExp(own("training"), everything, result), f"{kind} | tuple[{both}]"

    def _tree(self, tree: Tree) -> ast.expr:
        return self._value(tree) if isinstance(tree, Value) else ast.List(list(map(self._tree, tree)), ast.Load())


def _unique(path: str, taken: Collection[str]) -> str:
    """A Python name for a path, which is none of these."""
    word = path.replace(".", "_")[-_LONGEST:].lstrip("_")
    word = f"v{word}" if not word or word[0].isdigit() else word
    found, count = word, 1
    while found in taken:
        count += 1
        found = f"{word}_{count}"
    return found


def _annotation(tree: Tree) -> str:
    if isinstance(tree, Value):
        return "torch.Tensor"
    return f"list[{_annotation(tree[0]) if tree else 'torch.Tensor'}]"


def _channels(node: Node, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """The first argument of a module: the size of the axis, or axes, that it works on."""
    if node.op == "layer_norm":
        axes: Any = node.attributes["axes"]
        sizes = tuple(shape[axis] for axis in axes)
        return sizes[0] if len(sizes) == 1 else sizes
    return shape[-1 if node.op == "linear" else 0]


def _attributes(node: Node) -> dict[str, ast.expr]:
    """The attributes of an operator as torch writes them; the pad as `Modules.window` gives it."""
    found: dict[str, Any] = {word: compact(word, value) for word, value in node.attributes.items() if word != "init"}
    if node.op == "resize" and found["scale"] is not None:
        del found["size"]
    if node.op == "split" and len(set(found["sizes"])) == 1:
        found["chunks"] = len(found.pop("sizes"))
    if "pad_mode" not in found:
        return {word: literal(value) for word, value in found.items()}
    mode, padding = found.pop("pad_mode"), found.pop("padding")
    kernel: Any = node.attributes["kernel_size"]
    still = node.attributes["stride"] == (1, 1) and all(k % 2 == 1 for k in kernel)
    symmetric = symmetric_pad(padding)
    if mode == "same" and not still and kernel != (1, 1):
        found["same"] = True
    elif mode == "same" and kernel == (1, 1):
        found["padding"] = 0
    elif symmetric is None:
        found["explicit"] = padding
    else:
        found["padding"] = symmetric
    return {word: literal(value) for word, value in found.items()}
