"""Modules: the attributes of `__init__`, and the constructor calls of operators."""

from __future__ import annotations

import ast

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import call
from effspec.backends.torch.plan.applications import (
    common_width,
    compact,
    input_type,
    is_activation,
    kind_of,
    layer_name,
    normalised_shape,
    op_of,
    owns_parameters,
    symmetric_pad,
    width_of,
    word_of,
)
from effspec.backends.torch.plan.body import Applications, Later, Text, force
from effspec.backends.torch.plan.calls import Calls
from effspec.backends.torch.plan.columns import Column, Split, Untranslatable, constant_of

from effspec.layers import Tensor
from effspec.syntax import nodes

# What an operator's attribute is called in the language.
WORDS = {
    "out_channels": "out",
    "out_features": "out",
    "kernel_size": "k",
    "stride": "s",
    "dilation": "dil",
    "padding": "pad",
    "sizes": "parts",
    "output_size": "size",
}


class Modules(Calls):
    """`Calls` with modules."""

    def is_module(self, site: nodes.Node, here: Applications) -> bool:
        """Whether a place gets a module, rather than a function in forward."""
        application = next(iter(here.values()))
        op = op_of(application)
        if application.child is not None or op in operators.ALWAYS_MODULES:
            return True
        layer = layer_name(site)
        direct = layer is not None and layer.id == op
        return op in operators.ACTIVATIONS and (application.written or not direct)

    def attach(self, site: nodes.Node, source: Text, entries: Applications, condition: ast.expr | None) -> str:
        """`self.label = ...`; the attribute's name."""
        first = next(iter(entries.values()))
        tree = self.constructor(site, source, entries)
        if condition is not None:
            tree = ast.IfExp(condition, tree, call("nn.Identity"))
        return self.declare(first.label[0], tree, self.shape_comment(entries), owns_parameters(first))

    def declare(self, word: str, tree: ast.expr, comment: str = "", owns: bool = True) -> str:
        """Assign an attribute once; a parameter-free module of the same text is shared, another gets its own name."""
        text = build.dump(tree)
        while self.attached.get(word, text) != text:
            if owns:
                raise Untranslatable(f"two modules called {word}")
            word += "_"
        if word not in self.attached:
            self.attached[word] = text
            self.scope.init.append(build.commented(build.assign("self." + word, tree), comment))
        return word

    def undeclare(self, word: str) -> None:
        """Take back the assignment of an attribute, which is about to be made anew."""
        del self.attached[word]
        self.scope.init = [s for s in self.scope.init if not build.assigns(s, word)]

    def shape_comment(self, entries: Applications) -> str:
        """In a model, the shape that a line makes."""
        last = list(entries.values())[-1].output
        return str(last.type) if self.scope.is_model and isinstance(last, Tensor) else ""

    def constructor(self, site: nodes.Node, source: Text, entries: Applications) -> ast.expr:
        """The expression that makes the module of these applications, which are all of one kind."""
        kinds = {entry: kind_of(application) for entry, application in entries.items()}
        if len(set(kinds.values())) > 1:
            if all(map(is_activation, entries.values())):
                return self._activation_argument(site, entries)
            raise Split({instance: kind for (instance, _), kind in kinds.items()})
        if next(iter(entries.values())).child is not None:
            return self.class_call(entries, source)
        return self._operator_module(entries, source)

    def _activation_argument(self, site: nodes.Node, entries: Applications) -> ast.expr:
        """Activations of several kinds: the caller gives the class."""
        column: Column = {}
        for entry, application in entries.items():
            if any(value not in (0, False, None) for value in application.attributes.values()):
                raise Split({instance: kind_of(other) for (instance, _), other in entries.items()})
            column[entry] = build.ModuleClass(operators.ACTIVATIONS[op_of(application)])
        return call(self.scope.express(word_of(entries), column, layer_name(site)))

    def _operator_module(self, entries: Applications, source: Text) -> ast.expr:
        first = next(iter(entries.values()))
        op = op_of(first)
        channels = self._channels(op, entries, source) if op in operators.NEED_CHANNELS else None
        attributes = self.window(entries) if op in ("conv", "conv_transpose") else self.attributes(entries)
        if "rate" in attributes:
            self.scope.real(attributes["rate"])
        self.made = attributes.get("out_channels") or attributes.get("out_features")
        weight = self._weight_class(entries) if op == "conv" and "weight" in first.layer.bound else None
        return operators.module(op, attributes, channels, self.planner.need, weight, len(input_type(first).shape))

    def _channels(self, op: str, entries: Applications, source: Text) -> ast.expr:
        """The first argument of a module: the size of the axis that it works on."""
        shapes = {entry: input_type(application).shape for entry, application in entries.items()}
        axis = -1 if op == "linear" else 0
        column: Column = {entry: shape[axis] for entry, shape in shapes.items()}
        if op == "layer_norm":
            column = {entry: normalised_shape(application) for entry, application in entries.items()}
        elsewhere = op == "linear" and any(len(shape) != 1 for shape in shapes.values())
        known = source.channels is not None and not elsewhere
        return self.scope.express("in_channels", column, None, force(source.channels) if known else None)

    def attributes(self, entries: Applications, skip: frozenset[str] = frozenset({"init"})) -> dict[str, ast.expr]:
        """Each attribute of an operator as an expression."""
        out: dict[str, ast.expr] = {}
        for attribute in next(iter(entries.values())).attributes:
            if attribute not in skip:
                word = WORDS.get(attribute, attribute)
                column: Column = {e: compact(attribute, a.attributes[attribute]) for e, a in entries.items()}
                out[attribute] = self.scope.express(word, column, self.hint(word, entries))
        return out

    def window(self, entries: Applications) -> dict[str, ast.expr]:
        """The attributes of a convolution or pool, with the pad as its module takes it.

        `padding` is torch's own argument, `same` says that the pad follows from the size, `explicit` holds pads that
        differ from side to side.
        """
        out = self.attributes(entries, frozenset({"init", "padding", "pad_mode"}))
        modes = {entry: application.attributes["pad_mode"] for entry, application in entries.items()}
        kinds = set(modes.values())
        pads: Column = {entry: symmetric_pad(a.attributes["padding"]) for entry, a in entries.items()}
        if kinds == {"same"} and not _is_still(entries):
            if all(application.attributes["kernel_size"] == (1, 1) for application in entries.values()):
                out["padding"] = build.literal(0)
            else:
                out["same"] = ast.Constant(True)
        elif len(kinds) > 1 and "same" in kinds:
            raise Split({instance: mode for (instance, _), mode in modes.items()})
        elif any(pad is None for pad in pads.values()):
            out["explicit"] = self.scope.express("padding", {e: a.attributes["padding"] for e, a in entries.items()})
        else:
            half = _half(out["kernel_size"], out.get("dilation")) if kinds <= {"half", "same"} else None
            forms = [half] if half is not None else []
            if half is not None and isinstance(out["kernel_size"], ast.Name):
                forms.append(_half_of_either(out["kernel_size"], half))
            held = next((form for form in forms if self.scope.holds(form, pads)), None)
            if held is not None:
                out["padding"] = held
            else:
                out["padding"] = self.scope.express("pad", pads, self.hint("pad", entries))
        return out

    def result_channels(self, source: Text, here: Applications) -> ast.expr | None:
        """What `__init__` calls the channels of a layer's result; `made` is the width of the module made last."""
        column: Column = {entry: w for entry, a in here.items() if (w := width_of(a.output)) is not None}
        if len(column) != len(here):
            return None
        if self.scope.is_model:
            same, value = constant_of(column)
            return build.literal(value) if same else None
        if self.made is not None and self.scope.holds(self.made, column):
            return self.made
        ins: Column = {entry: w for entry, a in here.items() if (w := common_width(a.input)) is not None}
        known = isinstance(source.channels, Later) or not source.is_list
        return force(source.channels) if known and ins == column and source.channels is not None else None

    def _weight_class(self, entries: Applications) -> operators.ConvClass:
        """The convolution class whose weight passes through a layer."""
        for (instance, iteration), application in entries.items():
            path = self.planner.path_of(application)
            for child in instance.children:
                if child.path == path and child.iteration == iteration and isinstance(child.node, nodes.Block):
                    cls = self.planner.class_of(child)
                    return operators.ConvClass(cls.name, frozenset(argument.name for argument in cls.arguments))
        raise Untranslatable("a weight's layer without a body")


def _half(kernel: ast.expr, dilation: ast.expr | None) -> ast.expr | None:
    """The pad that keeps the size at stride 1, where it depends on an argument."""
    plain = [tree is None or isinstance(tree, ast.Constant | ast.Tuple) for tree in (kernel, dilation)]
    if plain[0]:
        side = kernel.value // 2 if isinstance(kernel, ast.Constant) and isinstance(kernel.value, int) else 0
        if plain[1] or not side or dilation is None:
            return None
        return dilation if side == 1 else build.binary("*", ast.Constant(side), dilation)
    half = build.binary("//", kernel, ast.Constant(2))
    return half if plain[1] or dilation is None else build.binary("*", dilation, half)


def _half_of_either(kernel: ast.Name, half: ast.expr) -> ast.expr:
    """The pad that keeps a size, of a kernel that is a number in some instances (`half`) and a pair in others."""
    sides = [ast.Subscript(kernel, ast.Constant(axis), ast.Load()) for axis in (0, 1)]
    pair: list[ast.expr] = [build.substitute(half, {kernel.id: side}) for side in sides]
    return ast.IfExp(call("isinstance", kernel, build.name("int")), half, ast.Tuple(pair, ast.Load()))


def _is_still(entries: Applications) -> bool:
    """Whether windows of odd size move by one, for which the pad that keeps the size is the same on all sides."""
    for application in entries.values():
        kernel = application.attributes["kernel_size"]
        odd = isinstance(kernel, tuple) and all(isinstance(k, int) and k % 2 == 1 for k in kernel)
        if application.attributes["stride"] != (1, 1) or not odd:
            return False
    return True
