"""Layers in one class: modules of `__init__`, their containers and repeats, functional operators, and tensor expressions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from effspec.backends.torch import build, operators
from effspec.backends.torch.body import Body, Class, Repeated, Text, _force, _is_tensor, _Lazy, _store, dump
from effspec.backends.torch.build import attribute, call, name, own
from effspec.backends.torch.scope import Argument, Column, Entry, Loop, Split, Untranslatable, constant_of
from effspec.ir.graph import Attribute
from effspec.layers import Application, Instance, Layer, Tensor, key
from effspec.syntax import nodes
from effspec.values import is_number

_HINTS = {
    "out_channels": "out",
    "out_features": "out",
    "kernel_size": "k",
    "stride": "s",
    "dilation": "dil",
    "padding": "pad",
    "sizes": "parts",
    "output_size": "size",
    "padding_size": "pad",
}


class Translation(Body):
    """`Body` with everything that applies layers."""

    # Applying a layer at a line or step

    def apply_site(self, site: nodes.Node, label: nodes.Label | None, source: Text, condition: ast.expr | None) -> Text:
        """The value of a layer at a place: a call of a module, or a functional operator."""
        here = self.here(site)
        if not here:
            return source
        kinds = {_kind(a) for a in here.values()}
        if kinds == {"identity"}:
            return source
        if "identity" in kinds and condition is None:
            kinds.discard("identity")
            condition = self._layer_flag(site, here)
            here = {e: a for e, a in here.items() if _kind(a) != "identity"}
        everywhere = {e: a for e, a in self.everywhere(site).items() if _kind(a) != "identity"}
        first = next(iter(here.values()))
        if condition is None and self.inherited and self._is_module(site, here):
            condition = self.inherited[-1]
        if all(a.layer.inner is not None for a in here.values()) or self._is_each(site, here):
            return self._each(site, source, here, everywhere)
        if isinstance(site, nodes.Line) and site.repeats is not None:
            return self._repeated_line(site, source, everywhere, condition)
        if first.child is None and not self._is_module(site, here):
            return self._functional(site, source, here, condition)
        label_nodes = label.indices if label is not None else ()
        if not label_nodes:
            word = self._attach(site, source, everywhere if not self._fixed() else here, condition)
            return self._called(own(word), source, here)
        reference = self._indexed(site, label_nodes, source, everywhere, condition)
        return self._called(reference, source, here)

    def _fixed(self) -> bool:
        return any(loop.index is not None for loop in self.scope.loops)

    def _is_each(self, site: nodes.Node, here: dict[Entry, Application]) -> bool:
        depth = len(self.scope.loops) + (1 if isinstance(site, nodes.Line) and site.repeats is not None else 0)
        return any(len(iteration) > depth for _, iteration in here)

    def _layer_flag(self, site: nodes.Node, here: dict[Entry, Application]) -> ast.expr:
        """Whether a layer that is sometimes `identity` is there: an argument named as the layer's parameter."""
        column = {e: _kind(a) != "identity" for e, a in here.items()}
        return self.scope.promote(next(iter(here.values())).label[0], column)

    def _called(self, reference: ast.expr, source: Text, here: dict[Entry, Application]) -> Text:
        outputs = {e: a.output for e, a in here.items()}
        is_list = isinstance(next(iter(outputs.values())), tuple)
        return Text(call(reference, source.tree), self._out_channels(source, here), is_list)

    def _out_channels(self, source: Text, here: dict[Entry, Application]) -> ast.expr | None:
        """What `__init__` calls the channels of a layer's result."""
        column = {e: a.output.type.shape[0] for e, a in here.items() if isinstance(a.output, Tensor) and a.output.type.shape}
        if len(column) != len(here):
            return None
        if self.scope.is_model:
            alike, value = constant_of(column)
            return build.literal(value) if alike else None
        ins = {e: a.input.type.shape[0] for e, a in here.items() if isinstance(a.input, Tensor) and a.input.type.shape}
        made = getattr(self, "_last_out", None)
        if made is not None and self.scope.holds(made, column):
            return made
        if ins == column and source.channels is not None:
            return source.channels
        return None

    # Modules

    def _attach(
        self, site: nodes.Node, source: Text, entries: dict[Entry, Application], condition: ast.expr | None
    ) -> str:
        """`self.label = ...`; the attribute's name."""
        first = next(iter(entries.values()))
        word = first.label[0]
        tree = self._constructor(site, source, entries)
        if condition is not None:
            tree = ast.IfExp(condition, tree, call("nn.Identity"))
        return self._declare(word, tree, self._shape_comment(entries), _owns(first))

    def _declare(self, word: str, tree: ast.expr, comment: str = "", owns: bool = True) -> str:
        """Assign an attribute once; a parameter-free module of the same text is shared, another gets a name of its own."""
        text = dump(tree)
        candidate = word
        while candidate in self.attached and (owns or self.attached[candidate] != text):
            if owns and self.attached[candidate] == text:
                return candidate
            if owns:
                raise Untranslatable(f"two modules called {candidate}")
            candidate += "_"
        if candidate not in self.attached:
            self.attached[candidate] = text
            statement = build.assign("self." + candidate, tree)
            if comment:
                statement.comment = comment  # type: ignore[attr-defined]
            self.scope.init.append(statement)
        return candidate

    def _shape_comment(self, entries: dict[Entry, Application]) -> str:
        if not self.scope.is_model:
            return ""
        last = list(entries.values())[-1].output
        return str(last.type) if isinstance(last, Tensor) else ""

    def _constructor(self, site: nodes.Node, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        """The expression that makes the module of these applications, which are all of one kind."""
        kinds = {_kind(a) for a in entries.values()}
        first = next(iter(entries.values()))
        if len(kinds) > 1:
            if all(a.child is None and a.layer.op is not None and a.layer.op.name in operators.ACTIVATIONS for a in entries.values()):
                return self._activation_argument(site, entries)
            raise Split({e[0]: _kind(a) for e, a in entries.items()})
        if first.child is not None and isinstance(first.child.node, nodes.Group):
            return self._group(site, source, entries)
        if first.child is not None:
            return self._class_call(site, source, entries)
        return self._operator_module(site, source, entries)

    def _activation_argument(self, site: nodes.Node, entries: dict[Entry, Application]) -> ast.expr:
        """Activations of several kinds: the caller gives the class."""
        column: Column = {}
        for entry, application in entries.items():
            assert application.layer.op is not None
            if application.attributes and any(v not in (0, False, None) for v in application.attributes.values()):
                raise Split({e[0]: _kind(a) for e, a in entries.items()})
            column[entry] = build.ModuleClass(operators.ACTIVATIONS[application.layer.op.name])
        layer = site.value if isinstance(site, nodes.Line) else site.layer if isinstance(site, nodes.Step) else None
        while isinstance(layer, nodes.Call):
            layer = layer.function
        hint = layer if isinstance(layer, nodes.Name) else None
        return call(self.scope.express(next(iter(entries.values())).label[0], column, hint))

    def _class_call(self, site: nodes.Node, source: Text, entries: dict[Entry, Application]) -> ast.Call:
        """`Block(in, out, kernel, name=...)` of the class that was planned for these instances."""
        planned: dict[int, Class] = {}
        for application in entries.values():
            assert application.child is not None
            cls = self.planner.class_of(application.child)
            planned[id(cls)] = cls
        if len(planned) > 1:
            raise Split({e[0]: id(self.planner.class_of(a.child)) for e, a in entries.items() if a.child is not None})
        cls = next(iter(planned.values()))
        given: dict[str, ast.expr] = {}
        for argument in cls.arguments:
            column: Column = {}
            for entry, application in entries.items():
                assert application.child is not None
                column[entry] = argument.column[application.child]
            if not argument.required and all(key(v) == key(argument.default) for v in column.values()):
                continue
            given[argument.key] = self._argument(argument, column, entries, source)
        self._last_out = given.get(cls.out_channels) if cls.out_channels else None
        return class_call(cls, given)

    def _argument(self, argument: Argument, column: Column, entries: dict[Entry, Application], source: Text) -> ast.expr:
        if argument.key == "in":
            return self.scope.express("in_channels", column, None, self._in_channels(source, column))
        hint = self._hint(argument.key, entries)
        contextual = self._contextual(argument.key, entries)
        if contextual is not None:
            drawn = self.draw(contextual, column, argument)
            if drawn is not None:
                return drawn
        if argument.key == "out" and hint is None:
            return self.scope.express("out", column, None, None)
        return self.scope.express(argument.key.lstrip("="), column, hint)

    def draw(self, entry: nodes.DefaultEntry, column: Column, argument: Argument) -> ast.expr | None:
        """A value that a model's `default` gives to a repeated line; models override this."""
        return None

    def _in_channels(self, source: Text, column: Column) -> ast.expr | None:
        if source.channels is None:
            return None
        if any(isinstance(v, tuple) for v in column.values()):
            return None
        return _force(source.channels)

    def _hint(self, word: str, entries: dict[Entry, Application]) -> nodes.Expr | None:
        """The expression of the spec that gave an argument, if one and the same did in every entry of this class."""
        found: nodes.Expr | None = None
        for (instance, _), application in entries.items():
            if application.child is not None and word in application.child.arguments:
                bound = application.child.arguments[word]
            elif word in application.layer.bound:
                bound = application.layer.bound[word]
            else:
                return None
            if bound.instance is not instance or bound.how != "given":
                return None
            node: Any = bound.node
            if isinstance(node, nodes.Argument):
                if node.then is not None:
                    return None
                node = node.value
            if found is not None and node is not found:
                return None
            found = node
        return found

    def _contextual(self, word: str, entries: dict[Entry, Application]) -> nodes.DefaultEntry | None:
        for application in entries.values():
            child = application.child
            bound = child.arguments.get(word) if child is not None else None
            if bound is None or bound.how != "contextual" or not isinstance(bound.node, nodes.DefaultEntry):
                return None
            return bound.node
        return None

    def _operator_module(self, site: nodes.Node, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        first = next(iter(entries.values()))
        assert first.layer.op is not None
        op = first.layer.op.name
        ins: Column = {e: _in_type(a).shape for e, a in entries.items()}
        channels: ast.expr | None = None
        if op in operators.NEED_CHANNELS:
            axis = -1 if op == "linear" else 0
            column = {e: shape[axis] for e, shape in ins.items()}
            if op == "layer_norm":
                column = {e: _normalised(a) for e, a in entries.items()}
            tracked = source.channels
            if op == "linear" and any(len(shape) != 1 for shape in ins.values()):
                tracked = None
            channels = self.scope.express("in_channels", column, None, _force(tracked) if tracked is not None else None)
        if op in ("conv", "conv_transpose"):
            attributes = self._window(entries, op)
        else:
            attributes = self._attributes(entries)
        self._last_out = attributes.get("out_channels") or attributes.get("out_features")
        if self._last_out is None and op in ("batch_norm", "group_norm", "layer_norm"):
            self._last_out = None
        weight = self._weight_class(site, entries) if op == "conv" and "weight" in first.layer.bound else None
        return operators.module(op, attributes, channels, self.planner, weight, len(next(iter(ins.values()))))

    def _attributes(self, entries: dict[Entry, Application], skip: frozenset[str] = frozenset({"init"})) -> dict[str, ast.expr]:
        """Each attribute of an operator as an expression."""
        first = next(iter(entries.values()))
        out: dict[str, ast.expr] = {}
        for attribute_name in first.attributes:
            if attribute_name in skip:
                continue
            column = {e: _compact(attribute_name, a.attributes[attribute_name]) for e, a in entries.items()}
            hint = self._hint(_HINTS.get(attribute_name, attribute_name), entries)
            out[attribute_name] = self.scope.express(_HINTS.get(attribute_name, attribute_name), column, hint)
        return out

    def _window(self, entries: dict[Entry, Application], op: str) -> dict[str, ast.expr]:
        """The attributes of a convolution or pool, with the pad as its module takes it."""
        out = self._attributes(entries, frozenset({"init", "padding", "pad_mode"}))
        modes = {a.attributes["pad_mode"] for a in entries.values()}
        kernels = [a.attributes["kernel_size"] for a in entries.values()]
        strides = [a.attributes["stride"] for a in entries.values()]
        odd = all(k % 2 == 1 for kernel in kernels for k in kernel)  # type: ignore[union-attr, operator]
        still = all(stride == (1, 1) for stride in strides) and odd
        pads: Column = {e: _symmetric(a.attributes["padding"]) for e, a in entries.items()}
        if modes == {"same"} and not still:
            if all(k == (1, 1) for k in kernels):
                out["padding"] = build.literal(0)
            else:
                out["same"] = ast.Constant(True)
            return out
        if len(modes) > 1 and "same" in modes:
            raise Split({e[0]: a.attributes["pad_mode"] for e, a in entries.items()})
        if any(pad is None for pad in pads.values()):
            explicit = {e: a.attributes["padding"] for e, a in entries.items()}
            out["explicit"] = self.scope.express("padding", explicit)
            return out
        kernel = out["kernel_size"]
        if modes <= {"half", "same"} and not isinstance(kernel, ast.Constant | ast.Tuple):
            half = ast.BinOp(kernel, ast.FloorDiv(), ast.Constant(2))
            if self.scope.holds(half, pads):
                out["padding"] = half
                return out
        out["padding"] = self.scope.express("pad", pads, self._hint("pad", entries))
        return out

    def _weight_class(self, site: nodes.Node, entries: dict[Entry, Application]) -> Any:
        """The convolution class whose weight passes through a layer."""
        children = []
        for (instance, iteration), application in entries.items():
            children += [
                child for child in instance.children
                if child.path == self._path_of(application) and isinstance(child.node, nodes.Block) and child.iteration == iteration
            ]
        if not children:
            raise Untranslatable("a weight's layer without a body")
        return self.planner.class_of(children[0])

    def _path_of(self, application: Application) -> str:
        return self.planner.node_path(application)  # type: ignore[attr-defined, no-any-return]

    # Containers of indexed labels

    def _indexed(
        self,
        site: nodes.Node,
        indices: tuple[nodes.Expr, ...],
        source: Text,
        everywhere: dict[Entry, Application],
        condition: ast.expr | None,
    ) -> ast.expr:
        """The module of an indexed label where the translation stands; its container is made once."""
        word = next(iter(everywhere.values())).label[0]
        if site not in self.containers:
            self.containers[site] = self._container(site, indices, source, everywhere, condition, word)
        kind = self.containers[site]
        return self._reference(site, indices, everywhere, kind, word)

    def _reference(
        self, site: nodes.Node, indices: tuple[nodes.Expr, ...], everywhere: dict[Entry, Application], kind: str, word: str
    ) -> ast.expr:
        symbolic = [loop for loop in self.scope.loops if loop.index is None]
        if not symbolic:
            tree: ast.expr = own(word)
            column = {e: a.label[1] for e, a in self.here(site).items()}
            alike, found = constant_of(column)
            if not alike:
                raise Untranslatable("an index that differs")
            for position, index in enumerate(found):
                key_tree: ast.expr = ast.Constant(str(index)) if kind == "dict" and position == 0 else build.constant(index)
                tree = ast.Subscript(tree, key_tree, ast.Load())
            return tree
        return self._loop_reference(site, indices, everywhere, kind, word, symbolic)

    def _loop_reference(
        self,
        site: nodes.Node,
        indices: tuple[nodes.Expr, ...],
        everywhere: dict[Entry, Application],
        kind: str,
        word: str,
        symbolic: list[Loop],
    ) -> ast.expr:
        """Inside Python loops: the loop's own variable where the container has one entry each turn, else an index."""
        if len(indices) != len(self.scope.loops) or len(symbolic) != len(indices):
            raise Untranslatable("labels that do not follow the loops")
        if len(indices) == 1:
            loop = symbolic[0]
            full = self._every_turn(site, loop, everywhere)
            if full:
                variable = word if word not in self.names and word != self.collecting else "layer"
                container: ast.expr = own(word)
                if kind == "dict":
                    container = call(attribute(container, "values"))
                self.loop_modules[-1][word] = (variable, container)
                return name(variable)
            index = self.scope.translate(indices[0])
            free = build.free_names(index)
            if not isinstance(index, ast.Name) or kind != "list":
                raise Untranslatable("an index that is not the loop's")
            self.loop_used[-1] |= free
            return ast.Subscript(own(word), index, ast.Load())
        outer_word = word + "s"
        if not self._every_turn(site, symbolic[-1], everywhere):
            raise Untranslatable("a nested label that is not always there")
        self.loop_modules[-2][word] = (outer_word, own(word))
        self.loop_modules[-1][word] = (word, name(outer_word))
        return name(word)

    def _every_turn(self, site: nodes.Node, loop: Loop, everywhere: dict[Entry, Application]) -> bool:
        """Whether a place applies its layer in every turn of its loops, in the order of the container."""
        depth = len(self.scope.loops)
        ran: dict[Instance, list[tuple[int, ...]]] = {}
        labels: dict[Instance, list[tuple[int, ...]]] = {}
        for (instance, iteration), application in everywhere.items():
            turn = iteration[:depth]
            turns = ran.setdefault(instance, [])
            if turn not in turns:
                turns.append(turn)
                labels.setdefault(instance, []).append(application.label[1])
        for instance, turns in ran.items():
            wanted = [
                entry[1] for entry in self._turns(loop) if entry[0] is instance
            ]
            if turns != wanted or labels[instance] != sorted(labels[instance]):
                return False
        return bool(ran)

    def _turns(self, loop: Loop) -> list[Entry]:
        node: Any = loop.node
        target = node.targets[0]
        return list(self.scope.values.get(target, {}))

    def _container(
        self,
        site: nodes.Node,
        indices: tuple[nodes.Expr, ...],
        source: Text,
        everywhere: dict[Entry, Application],
        condition: ast.expr | None,
        word: str,
    ) -> str:
        """Make `self.label` for an indexed label: rows for a model, a comprehension (else rows) for a block."""
        if not self.scope.is_model and not self.scope.literal:
            state = self._snapshot()
            try:
                return self._comprehension_container(site, source, everywhere, condition, word, len(indices))
            except Untranslatable:
                self._restore(state)
        return self._row_container(site, source, everywhere, word)

    def _row_container(self, site: nodes.Node, source: Text, everywhere: dict[Entry, Application], word: str) -> str:
        by_label: dict[tuple[int, ...], dict[Entry, Application]] = {}
        for entry, application in everywhere.items():
            by_label.setdefault(application.label[1], {})[entry] = application
        per_instance = {i: {a.label[1] for e, a in everywhere.items() if e[0] is i} for i in {e[0] for e in everywhere}}
        if len({frozenset(labels) for labels in per_instance.values()}) > 1:
            raise Split({i: tuple(sorted(labels)) for i, labels in per_instance.items()})
        rows: dict[Any, Any] = {}
        outer = self.scope.loops
        for label, entries in by_label.items():
            iteration = next(iter(entries))[1]
            self.scope.loops = [
                Loop(loop.node, iteration[position], loop.names) for position, loop in enumerate(outer)
            ] if outer else []
            try:
                tree = self._row(site, Text(source.tree, None), entries)
            finally:
                self.scope.loops = outer
            comment = self._shape_comment(entries)
            if comment:
                tree.comment = comment  # type: ignore[attr-defined]
            level = rows
            for index in label[:-1]:
                level = level.setdefault(index, {})
            level[label[-1]] = tree
        tree, kind = _nested(rows)
        self._declare(word, tree)
        return kind

    def _row(self, site: nodes.Node, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        if isinstance(site, nodes.Line) and site.repeats is not None:
            return self._sequential(site, source, entries)
        return self._constructor(site, source, entries)

    def _comprehension_container(
        self,
        site: nodes.Node,
        source: Text,
        everywhere: dict[Entry, Application],
        condition: ast.expr | None,
        word: str,
        depth: int,
    ) -> str:
        loops = self.scope.loops
        if len(loops) != depth or any(loop.index is not None for loop in loops):
            # Inside an unrolled loop the container still covers all of its turns.
            loops = [Loop(loop.node, None, {t.id: name(self.variable(t.id)) for t in loop.node.targets}) for loop in loops]  # type: ignore[attr-defined]
            if len(loops) != depth:
                raise Untranslatable("labels that do not follow the loops")
        for (_, iteration), application in everywhere.items():
            if application.label[1] != iteration[:depth]:
                raise Untranslatable("indices that are not 0, 1, 2 ...")
        outer, self.scope.loops = self.scope.loops, loops
        try:
            inner = Text(source.tree, self._loop_channels(everywhere))
            tree = self._row(site, inner, everywhere)
            if condition is not None:
                tree = ast.IfExp(condition, tree, call("nn.Identity"))
            for position in range(depth - 1, -1, -1):
                target, iterable = self._loop_header(loops[position], position, tree)
                self.scope.loops = loops[:position]
                comprehension = ast.ListComp(tree, [ast.comprehension(_store(target), iterable, [], 0)])
                tree = call("nn.ModuleList", comprehension)
        finally:
            self.scope.loops = outer
        self._declare(word, tree)
        return "list"

    def _loop_channels(self, everywhere: dict[Entry, Application]) -> ast.expr | None:
        """The input channels of a module in a loop: the same each turn, taken from a list, or carried from turn to turn."""
        column = {e: a.input.type.shape[0] for e, a in everywhere.items() if isinstance(a.input, Tensor)}
        if len(column) != len(everywhere):
            return None
        trials = list(self.scope.candidates())
        firsts = {e: v for e, v in column.items() if e[1][-1] == 0}
        rests = {e: v for e, v in column.items() if e[1][-1] > 0}
        for tree in self._input_elements():
            state = self.scope.snapshot()
            if self.scope.holds(tree(), column):
                return tree()
            self.scope.restore(state)
        state = self.scope.snapshot()
        base = _force(self.entry.channels) if self.entry.channels is not None else None
        if base is not None and self.scope.holds(base, column):
            return base
        for tree in trials:
            if self.scope.holds(tree, column):
                return tree
        if base is not None and firsts and rests and self.scope.holds(base, firsts):
            previous = self._previous(rests, everywhere)
            if previous is not None:
                index = next(n for loop in self.scope.loops for n in loop.names.values() if isinstance(n, ast.Name))
                return ast.IfExp(ast.Compare(index, [ast.Eq()], [ast.Constant(0)]), base, previous)
        self.scope.restore(state)
        return None

    def _input_elements(self) -> list[Any]:
        """`in_channels[i]`, where the input is a list that a loop goes through."""
        if not self.entry.is_list or self.scope.is_model:
            return []
        indices = [n for loop in self.scope.loops for n in loop.names.values() if isinstance(n, ast.Name)]
        return [lambda index=index: ast.Subscript(self.scope.in_channels(), index, ast.Load()) for index in indices]

    def _previous(self, rests: Column, everywhere: dict[Entry, Application]) -> ast.expr | None:
        """The output channels of the turn before, as `widths[i - 1]`."""
        for parameter in self.scope.parameters:
            sample = [i.arguments[parameter].value for i in self.instances if parameter in i.arguments]
            if not sample or not all(isinstance(v, tuple) for v in sample):
                continue
            for loop in self.scope.loops:
                for index in loop.names.values():
                    state = self.scope.snapshot()
                    place = ast.BinOp(index, ast.Sub(), ast.Constant(1))
                    tree = ast.Subscript(self.scope.demand(parameter), place, ast.Load())
                    if self.scope.holds(tree, rests):
                        return tree
                    self.scope.restore(state)
        plain = [tree for tree in self.scope.candidates() if self.scope.holds(tree, rests)]
        return plain[0] if plain else None

    def _loop_header(self, loop: Loop, position: int, tree: ast.expr) -> tuple[ast.expr, ast.expr]:
        """`for i, k in enumerate(kernels)` with only the variables that the element reads."""
        node: Any = loop.node
        free = build.free_names(tree)
        sources = self._sources(node)
        index = next((t for t, s in sources if s[0] in ("index", "range")), None)
        value = next(((t, s[1]) for t, s in sources if s[0] == "number"), None)
        iterable = node.iterable
        saved = self.scope.loops
        self.scope.loops = saved[:position]
        try:
            if value is not None and value[0].id in free:
                lists = self.scope.translate(value[1])
                if index is not None and self.variable(index.id) in free:
                    target: ast.expr = ast.Tuple([name(index.id), name(value[0].id)], ast.Load())
                    return target, call("enumerate", lists)
                return name(value[0].id), lists
            count = self._count(node, iterable)
        finally:
            self.scope.loops = saved
        used = index is not None and self.variable(index.id) in free
        return name(self.variable(index.id) if used and index is not None else "_"), call("range", count)

    def _count(self, node: Any, iterable: nodes.Expr) -> ast.expr:
        """How often a loop of the spec runs, as a Python number."""
        column = {e: len(v) for e, v in self.scope.column(iterable).items()}
        for argument in self.scope.arguments.values():
            if argument.annotation.startswith("list["):
                tree = call("len", name(argument.name))
                if self.scope.holds(tree, column):
                    return tree
        hint: ast.expr | None = None
        state = self.scope.snapshot()
        try:
            if isinstance(iterable, nodes.Call) and iterable.arguments:
                hint = call("len", self._list_text(iterable.arguments[0].value))
            elif isinstance(iterable, nodes.Range) and iterable.stop is not None:
                hint = self.scope.translate(iterable.stop)
            elif isinstance(iterable, nodes.Name):
                hint = call("len", self._list_text(iterable))
            if hint is not None and self.scope.holds(hint, column):
                return hint
        except Untranslatable:
            pass
        self.scope.restore(state)
        for parameter in self.scope.parameters:
            sample = [i.arguments[parameter].value for i in self.instances if parameter in i.arguments]
            if sample and all(isinstance(v, tuple) for v in sample) and not all(isinstance(v, Layer) for v in sample[0]):
                state = self.scope.snapshot()
                for offset in (0, -1):
                    length: ast.expr = call("len", self.scope.demand(parameter))
                    tree = length
                    if offset:
                        tree = ast.BinOp(tree, ast.Sub(), ast.Constant(-offset))
                    if self.scope.holds(tree, column):
                        return tree
                self.scope.restore(state)
        return self.scope.express("count", column)

    def _list_text(self, node: nodes.Expr) -> ast.expr:
        if isinstance(node, nodes.Name):
            on = [identifier.id for identifier in getattr(self.node, "on", ())]
            if (node.id in on and len(on) == 1) or node.id in ("input",):
                return self.scope.in_channels()
        return self.scope.translate(node)

    # Repeats

    def _repeated_line(
        self, line: nodes.Line, source: Text, everywhere: dict[Entry, Application], condition: ast.expr | None
    ) -> Text:
        here = self.here(line)
        if line.label is not None and line.label.indices:
            reference = self._indexed(line, line.label.indices, source, everywhere, condition)
            return self._called_repeat(reference, source, here)
        word = next(iter(everywhere.values())).label[0]
        tree = self._sequential(line, source, everywhere if not self._fixed() else here)
        if condition is not None:
            tree = ast.IfExp(condition, tree, call("nn.Identity"))
        self._declare(word, tree, self._shape_comment(here))
        return self._called_repeat(own(word), source, here)

    def _called_repeat(self, reference: ast.expr, source: Text, here: dict[Entry, Application]) -> Text:
        last = max(here, key=lambda e: e[1])
        output = here[last].output
        channels = None
        if self.scope.is_model and isinstance(output, Tensor):
            channels = build.literal(output.type.shape[0])
        else:
            channels = self._out_channels(source, here)
        return Text(call(reference, source.tree), channels, isinstance(output, tuple))

    def _sequential(self, line: nodes.Line, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        """`nn.Sequential` of the repeats of a line."""
        first = {e: a for e, a in entries.items() if e[1][-1] == 0}
        rest = {e: a for e, a in entries.items() if e[1][-1] > 0}
        counts: Column = {}
        for instance, iteration in first:
            counts[instance, iteration[:-1]] = sum(1 for e in entries if e[0] is instance and e[1][:-1] == iteration[:-1])
        alike, count = constant_of(counts)
        if not rest:
            if alike and count == 1:
                head = self._constructor(line, source, first)
                return self._one(line, head)
        assert line.repeats is not None
        head = self._constructor(line, source, first)
        carried = Text(source.tree, self._last_out or source.channels)
        state = self._snapshot()
        try:
            tail = self._constructor(line, carried, rest)
        except (Untranslatable, Split):
            if not (alike and (self.scope.is_model or self.scope.literal)):
                raise
            self._restore(state)
            return self._written_out(line, source, entries, count)
        if alike and (self.scope.is_model or self.scope.literal or not self.scope.structural(line.repeats.value)):
            number: ast.expr = ast.Constant(count)
            fewer: ast.expr = ast.Constant(count - 1)
        else:
            number = self.scope.express("repeats", counts, line.repeats.value)
            fewer = ast.BinOp(number, ast.Sub(), ast.Constant(1))
        zero_based = any(
            self.scope.column(line.repeats.value) and v == 0 for v in self.scope.column(line.repeats.value).values()
        )
        if dump(head) == dump(tail):
            return call("nn.Sequential", ast.Starred(_comprehension(tail, number), ast.Load()))
        if zero_based:
            raise Untranslatable("sometimes none")
        return self._stage(line, head, tail, fewer, entries)

    def _one(self, line: nodes.Line, head: ast.expr) -> ast.expr:
        return call("nn.Sequential", head)

    def _stage(
        self, line: nodes.Line, head: ast.expr, tail: ast.expr, fewer: ast.expr, entries: dict[Entry, Application]
    ) -> ast.expr:
        if isinstance(fewer, ast.Constant) and fewer.value == 1:
            return call("nn.Sequential", head, tail)
        return call("nn.Sequential", head, ast.Starred(_comprehension(tail, fewer), ast.Load()))

    def _written_out(self, line: nodes.Line, source: Text, entries: dict[Entry, Application], count: int) -> ast.expr:
        rows = []
        carried = source
        for repeat in range(count):
            part = {e: a for e, a in entries.items() if e[1][-1] == repeat}
            rows.append(self._constructor(line, carried, part))
            carried = Text(source.tree, self._last_out or source.channels)
        return call("nn.Sequential", *rows)

    # Groups and each

    def _group(self, site: nodes.Node, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        """A labelled group: the class that was planned for it."""
        return self._class_call(site, source, entries)

    def _each(
        self, site: nodes.Node, source: Text, here: dict[Entry, Application], everywhere: dict[Entry, Application]
    ) -> Text:
        """One module for every element of a list."""
        inner = {e: a for e, a in here.items() if a.layer.inner is None}
        first = next(iter(inner.values()))
        element = Text(name("x"), None)
        label = site.label if isinstance(site, nodes.Line | nodes.Step) else None
        if first.child is None and not self._is_module(site, inner):
            text = self._functional(site, element, inner, None)
        elif label is not None and label.indices:
            every = {e: a for e, a in everywhere.items() if a.layer.inner is None and e[1][-1] == 0}
            reference = self._indexed(site, label.indices, element, every, None)
            text = Text(call(reference, element.tree))
        else:
            every = {e: a for e, a in everywhere.items() if a.layer.inner is None and e[1][-1] == 0}
            word = self._attach(site, element, every, None)
            text = Text(call(own(word), element.tree))
        return Text(_list_comprehension(text.tree, name("x"), source.tree), None, True)

    # Functional operators

    def _functional(
        self, site: nodes.Node, source: Text, here: dict[Entry, Application], condition: ast.expr | None
    ) -> Text:
        kinds = {_kind(a) for a in here.values()}
        if len(kinds) > 1 or condition is not None:
            raise Split({e[0]: _kind(a) for e, a in here.items()})
        first = next(iter(here.values()))
        assert first.layer.op is not None
        op = first.layer.op.name
        if op in operators.WINDOWS:
            attributes = {k: self._forward_number(k, v) for k, v in self._window(here, op).items()}
        else:
            attributes = {}
            scaled = op == "resize" and all(a.attributes["scale"] is not None for a in here.values())
            for word in first.attributes:
                if word == "init" or (word == "size" and scaled):
                    continue
                column = {e: _compact(word, a.attributes[word]) for e, a in here.items()}
                attributes[word] = self._forward_attribute(op, word, column, here)
        types = [_in_type(a) for a in here.values()]
        if op == "flatten":
            source = self._take_back(source)
        tree = operators.functional(op, source.tree, source.is_list or isinstance(first.input, tuple), attributes, first, types, self.planner)
        outputs = [a.output for a in here.values()]
        is_list = isinstance(outputs[0], tuple)
        channels = None if is_list else self._functional_channels(op, source, here)
        return Text(tree, channels, is_list)

    def _take_back(self, source: Text) -> Text:
        """The value of the line before, where this line is all that reads it: `mean` then `flatten` is one `mean`."""
        last = self.statements[-1] if self.statements else None
        if (
            isinstance(last, ast.Assign)
            and isinstance(last.value, ast.Call)
            and isinstance(last.value.func, ast.Attribute)
            and last.value.func.attr in ("mean", "amax")
            and dump(last.targets[0]).replace("Store", "Load") == dump(source.tree)
        ):
            self.statements.pop()
            return Text(last.value, source.channels)
        return source

    def _functional_channels(self, op: str, source: Text, here: dict[Entry, Application]) -> ast.expr | None:
        if not isinstance(next(iter(here.values())).output, Tensor):
            return None
        self._last_out = None
        return self._out_channels(source, here)

    def _forward_number(self, word: str, tree: ast.expr) -> ast.expr:
        return tree if word in ("same",) else self._to_forward(tree, self.scope.python_name(_HINTS.get(word, word)))

    def _forward_attribute(self, op: str, word: str, column: Column, here: dict[Entry, Application]) -> ast.expr:
        """An attribute of a functional operator: from the tensors at hand where the spec reads it off a tensor."""
        hint = self._hint(_HINTS.get(word, word), here)
        if hint is not None and _reads_tensor(hint, self.scope):
            tree = self._runtime_number(hint)
            if tree is not None:
                return tree
        return self._to_forward(self.scope.express(_HINTS.get(word, word), column, hint), self.scope.python_name(word))

    def _runtime_number(self, node: nodes.Expr) -> ast.expr | None:
        """A number that the spec reads off a tensor, read off the same tensor in forward."""
        if isinstance(node, nodes.List):
            items = [self._runtime_number(item) for item in node.items]
            if any(item is None for item in items):
                return None
            pair = _size_of(node)
            if pair is not None:
                return ast.Subscript(attribute(self.value(pair).tree, "shape"), build.parse("x[-2:]").slice, ast.Load())  # type: ignore[attr-defined]
            return ast.Tuple([item for item in items if item is not None], ast.Load())
        if isinstance(node, nodes.Attribute):
            column = self.scope.column(node.value)
            value = next(iter(column.values()), None)
            if isinstance(value, Tensor):
                axes = {"channels": 0, "height": 1, "width": 2}
                tensor = self.value(node.value)
                if node.name.id == "shape":
                    return attribute(tensor.tree, "shape")
                axis = axes.get(node.name.id)
                if axis is None:
                    return ast.Constant(len(value.type.shape))
                place = ast.Constant(axis + value.type.batched)
                return ast.Subscript(attribute(tensor.tree, "shape"), place, ast.Load())
        if isinstance(node, nodes.Index) and isinstance(node.value, nodes.Attribute):
            shape = self._runtime_number(node.value)
            column = self.scope.column(node.value.value)
            value = next(iter(column.values()), None)
            if shape is not None and isinstance(value, Tensor) and isinstance(node.index, nodes.Number):
                place = ast.Constant(int(node.index.value) + value.type.batched)
                return ast.Subscript(shape, place, ast.Load())
        if isinstance(node, nodes.Binary):
            left, right = self._runtime_number(node.left), self._runtime_number(node.right)
            if left is None or right is None:
                return None
            kinds: dict[str, ast.operator] = {
                "+": ast.Add(), "-": ast.Sub(), "*": ast.Mult(), "//": ast.FloorDiv(), "%": ast.Mod(), "**": ast.Pow(), "/": ast.Div(),
            }
            return ast.BinOp(left, kinds[node.op], right)
        if isinstance(node, nodes.Call) and isinstance(node.function, nodes.Name) and node.function.id == "sqrt":
            inner = self._runtime_number(node.arguments[0].value)
            return None if inner is None else ast.BinOp(inner, ast.Pow(), ast.Constant(0.5))
        if isinstance(node, nodes.Name) and node.id in self.scope.binders and _reads_tensor(node, self.scope):
            binders = self.scope.binders[node.id]
            if len(binders) == 1 and not isinstance(binders[0][1].value, nodes.For):
                return self._runtime_number(binders[0][1].value)
            return None
        column = self.scope.column(node)
        if not column:
            return None
        try:
            tree = self.scope.express("size", column, node)
        except Untranslatable:
            return None
        return self._to_forward(tree, node.id if isinstance(node, nodes.Name) else "size")

    # Tensor expressions

    def value(self, node: nodes.Expr) -> Text:
        """The Python text of a tensor (or list of tensors) expression in forward."""
        method = getattr(self, "_value_" + type(node).__name__.lower(), None)
        if method is None:
            raise Untranslatable(node.span.text)
        text: Text = method(node)
        return text

    def _value_name(self, node: nodes.Name) -> Text:
        if node.id == "it":
            return self.current
        if node.id == "input":
            return self._input()
        if node.id in self.names:
            text = self.names[node.id]
            if text.tree is self.entry.tree and self.changed:
                return self._input()
            return text
        column = self.scope.column(node)
        value = next(iter(column.values()), None)
        if _is_tensor(value):
            raise Untranslatable(node.id)
        raise Untranslatable(f"{node.id} is no tensor")

    def _input(self) -> Text:
        if not self.changed:
            return self.entry
        if self.shortcut is None:
            self.shortcut = self.shortcut_name if not self.entry.is_list else "inputs"
        return Text(name(self.shortcut), self.entry.channels, self.entry.is_list)

    def _value_pipe(self, node: nodes.Pipe) -> Text:
        text = self.value(node.source)
        for step in node.steps:
            text = self.apply_site(step, step.label, text, None)
        return text

    def _value_binary(self, node: nodes.Binary) -> Text:
        column = self.scope.column(node)
        value = next(iter(column.values()), None)
        kinds: dict[str, ast.operator] = {
            "+": ast.Add(), "-": ast.Sub(), "*": ast.Mult(), "/": ast.Div(), "**": ast.Pow(),
        }
        sides: list[ast.expr] = []
        channels: list[ast.expr | None] = []
        for side in (node.left, node.right):
            part = self.scope.column(side)
            sample = next(iter(part.values()), None)
            empty = isinstance(value, tuple) and all(v == () for v in part.values())
            if empty:
                sides.append(ast.List([], ast.Load()))
                continue
            if _is_tensor(sample) and not isinstance(side, nodes.Ternary):
                text = self.value(side)
                sides.append(text.tree)
                channels.append(text.channels)
            elif isinstance(side, nodes.Ternary) and any(_is_tensor(v) for v in part.values()):
                sides.append(self.value(side).tree)
            else:
                sides.append(self._scalar(side))
        tree = ast.BinOp(sides[0], kinds[node.op], sides[1])
        known = [c for c in channels if c is not None]
        return Text(tree, known[0] if known and isinstance(value, Tensor) and len(value.type.shape) == 3 else None, isinstance(value, tuple))

    def _scalar(self, node: nodes.Expr) -> ast.expr:
        """A number in tensor arithmetic."""
        if _reads_tensor(node, self.scope) and not self.scope.literal:
            tree = self._runtime_number(node)
            if tree is not None:
                return tree
        column = self.scope.column(node)
        word = node.id if isinstance(node, nodes.Name) else "scale"
        return self._to_forward(self.scope.express(word, column, node), word)

    def _value_unary(self, node: nodes.Unary) -> Text:
        text = self.value(node.operand)
        return Text(ast.UnaryOp(ast.USub(), text.tree), text.channels)

    def _value_list(self, node: nodes.List) -> Text:
        return Text(ast.List([self.value(item).tree for item in node.items], ast.Load()), None, True)

    def _value_ternary(self, node: nodes.Ternary) -> Text:
        column = {e: bool(v) for e, v in self.scope.column(node.condition).items()}
        alike, value = constant_of(column)
        if alike:
            return self.value(node.chosen if value else node.otherwise)
        module = self._optional_module(node, column)
        if module is not None:
            return module
        test = self.condition(node, node.condition, column)
        sides = []
        for side in (node.chosen, node.otherwise):
            chosen = {e for e, v in column.items() if v == (side is node.chosen)}
            taken = self._init_test(node.condition, column, side is not node.chosen)
            saved = self._narrow(chosen)
            if taken is not None:
                self.inherited.append(taken)
            try:
                sides.append(self._either(side))
            finally:
                self._unrestrict(saved)
                if taken is not None:
                    self.inherited.pop()
        return Text(ast.IfExp(test, sides[0], sides[1]), None, isinstance(next(iter(self.scope.column(node).values())), tuple))

    def _init_test(self, condition: nodes.Expr, column: Column, negated: bool) -> ast.expr | None:
        """The condition in `__init__`, under which a side's modules exist."""
        if self._in_symbolic_loop():
            return None
        tree = self._init_condition(condition, column, "active")
        return ast.UnaryOp(ast.Not(), tree) if negated else tree

    def _either(self, node: nodes.Expr) -> ast.expr:
        if isinstance(node, nodes.List) and not node.items:
            return ast.List([], ast.Load())
        return self.value(node).tree

    def _narrow(self, chosen: set[Entry]) -> Any:
        saved = (self.applied, self.ran, self.scope.values, self.scope._structural)
        if any(loop.index is None for loop in self.scope.loops):
            return saved
        return self._restricted(chosen)

    def _optional_module(self, node: nodes.Ternary, column: Column) -> Text | None:
        """`x if c else x |> label: Block()`: an `nn.Identity` where the block is not there."""
        plain, other, flipped = node.chosen, node.otherwise, False
        if isinstance(plain, nodes.Pipe):
            plain, other, flipped = other, plain, True
        if not (isinstance(other, nodes.Pipe) and len(other.steps) == 1 and isinstance(plain, nodes.Name)):
            return None
        step = other.steps[0]
        here = self.here(step)
        if not here or not self._is_module(step, here) or self._in_symbolic_loop():
            return None
        if step.label is not None and step.label.indices:
            return None
        test = self._init_condition(node.condition, column, "same")
        source, alone = self.value(other.source), self.value(plain)
        chosen = {e for e, v in column.items() if v == flipped}
        saved = self._restricted(chosen)
        try:
            tree = self._constructor(step, source, self.here(step))
        finally:
            self._unrestrict(saved)
        word = next(iter(here.values())).label[0]
        if dump(source.tree) == dump(alone.tree):
            identity = call("nn.Identity")
            choice = ast.IfExp(test, tree, identity) if flipped else ast.IfExp(test, identity, tree)
            self._declare(word, choice)
            return Text(call(own(word), source.tree), None)
        none = ast.Constant(None)
        choice = ast.IfExp(test, tree, none) if flipped else ast.IfExp(test, none, tree)
        self._declare(word, choice)
        missing = ast.Compare(own(word), [ast.Is()], [ast.Constant(None)])
        return Text(ast.IfExp(missing, alone.tree, call(own(word), source.tree)), None)

    def _value_index(self, node: nodes.Index) -> Text:
        if isinstance(node.value, nodes.Attribute) and isinstance(node.value.value, nodes.Name) and isinstance(node.index, nodes.Number):
            tap = f"{node.value.value.id}.{node.value.name.id}.{node.index.value}"
            if tap in self.names:
                return self.names[tap]
        text = self.value(node.value)
        if not isinstance(node.index, nodes.Range) and self._is_last(node):
            return Text(ast.Subscript(text.tree, build.constant(-1), ast.Load()))
        if isinstance(node.index, nodes.Range):
            return Text(ast.Subscript(text.tree, self._slice(node.index), ast.Load()), None, True)
        place = self._position(node.index)
        return Text(ast.Subscript(text.tree, place, ast.Load()))

    def _is_last(self, node: nodes.Index) -> bool:
        """Whether an index, which differs, is always that of the last element."""
        indices, lists = self.scope.column(node.index), self.scope.column(node.value)
        return len(set(indices.values())) > 1 and all(e in lists and i == len(lists[e]) - 1 for e, i in indices.items())

    def _position(self, node: nodes.Expr) -> ast.expr:
        column = self.scope.column(node)
        return self._to_forward(self.scope.express("index", column, node), "index")

    def _slice(self, node: nodes.Range) -> ast.Slice:
        start = self._position(node.start) if node.start is not None else None
        stop = self._position(node.stop) if node.stop is not None else None
        if node.inclusive and node.stop is not None:
            assert stop is not None
            stop = build.constant(stop.value + 1) if isinstance(stop, ast.Constant) else ast.BinOp(stop, ast.Add(), ast.Constant(1))
        if isinstance(start, ast.Constant) and start.value == 0:
            start = None
        return ast.Slice(start, stop, None)

    def _value_attribute(self, node: nodes.Attribute) -> Text:
        if isinstance(node.value, nodes.Name):
            tap = f"{node.value.id}.{node.name.id}"
            if tap in self.names:
                return self.names[tap]
        raise Untranslatable(node.span.text)

    def _value_call(self, node: nodes.Call) -> Text:
        """`reverse(xs)` of tensors."""
        if isinstance(node.function, nodes.Name) and node.function.id == "reverse":
            text = self.value(node.arguments[0].value)
            return Text(ast.Subscript(text.tree, build.parse("x[::-1]").slice, ast.Load()), None, True)  # type: ignore[attr-defined]
        raise Untranslatable(node.span.text)

    def _value_comprehension(self, node: nodes.Comprehension) -> Text:
        state = self._snapshot()
        try:
            return self._symbolic_comprehension(node)
        except Untranslatable:
            self._restore(state)
        column = self.scope.column(node.iterable)
        counts = {e: len(v) for e, v in column.items()}
        alike, count = constant_of(counts)
        if not alike:
            raise Split({e[0]: v for e, v in counts.items()})
        items = []
        for index in range(count):
            self.scope.loops.append(Loop(node, index, dict.fromkeys((t.id for t in node.targets), ast.Constant(index))))
            outer = dict(self.names)
            self._name_elements(node, index)
            items.append(self.value(node.element).tree)
            self.names = outer
            self.scope.loops.pop()
        return Text(ast.List(items, ast.Load()), None, True)

    def _symbolic_comprehension(self, node: nodes.Comprehension) -> Text:
        column = self.scope.column(node.iterable)
        counts = {e: len(v) for e, v in column.items()}
        loop = Loop(node, None)
        outer = dict(self.names)
        items: list[tuple[ast.expr, ast.expr]] = []
        swaps: dict[str, str] = {}
        for target, source in self._sources(node):
            variable = name(self.variable(target.id) if target.id != "x" else "x")
            loop.names[target.id] = variable
            if source[0] == "tensor":
                items.append((variable, self.value(source[1]).tree))
                self.names[target.id] = Text(variable, None)
        index = self._index_name(node)
        self.scope.loops.append(loop)
        self.loop_modules.append({})
        self.loop_used.append(set())
        lists: list[tuple[ast.expr, ast.expr]] = []
        self.element_lists = getattr(self, "element_lists", [])
        try:
            element = self._indexed_lists(node, index, counts, lists)
            modules = self.loop_modules[-1]
            used = self.loop_used[-1]
        finally:
            self.scope.loops.pop()
            self.loop_modules.pop()
            self.loop_used.pop()
        self.names = outer
        read = build.free_names(element.tree)
        items = [(t, s) for t, s in items if t.id in read]  # type: ignore[attr-defined]
        pairs = [(name(variable), source) for variable, source in modules.values()] + lists + items
        needs = index if index and (index in used or index in read) else None
        target, iterable = self._header(node, pairs, needs, counts)
        del swaps
        return Text(ast.ListComp(element.tree, [ast.comprehension(_store(target), iterable, [], 0)]), None, True)

    def _indexed_lists(
        self, node: nodes.Comprehension, index: str, counts: Column, lists: list[tuple[ast.expr, ast.expr]]
    ) -> Text:
        """The element, with `xs[i]` of a list as long as the loop replaced by the list's own element."""
        text = self.value(node.element)
        if not index:
            return text
        found: dict[str, ast.expr] = {}

        class Replace(ast.NodeTransformer):
            def visit_Subscript(self, part: ast.Subscript) -> ast.expr:
                if isinstance(part.value, ast.Name) and isinstance(part.slice, ast.Name) and part.slice.id == index:
                    found[part.value.id] = part.value
                    return name("x")
                self.generic_visit(part)
                return part

        import copy

        tree = Replace().visit(copy.deepcopy(text.tree))
        if len(found) == 1 and "x" not in build.free_names(text.tree):
            length = self._length_of(node, next(iter(found)))
            if length is not None and length == counts:
                lists.append((name("x"), next(iter(found.values()))))
                if index not in build.free_names(tree):
                    for used in self.loop_used[-1:]:
                        used.discard(index)
                return Text(tree, text.channels, text.is_list)
        return text

    def _length_of(self, node: nodes.Comprehension, variable: str) -> Column | None:
        """The length of a list of tensors in each turn of the loops outside."""
        for part in nodes.descend(node.element):
            if isinstance(part, nodes.Index) and isinstance(part.value, nodes.Name) and self.variable(part.value.id) == variable:
                column = self.scope.values.get(part.value, {})
                return {(i, it[:-1]): len(v) for (i, it), v in column.items()}
        return None


def class_call(cls: Class, given: Mapping[str, ast.expr]) -> ast.Call:
    """A call of a planned class: inputs, outputs and kernel by position, the rest by keyword."""
    positional: list[ast.expr] = []
    keywords: list[ast.keyword] = []
    open_row = True
    for argument in cls.arguments:
        tree = given.get(argument.key)
        if tree is None:
            open_row = False
            continue
        if argument.annotation == "int | tuple[int, int]" and isinstance(tree, ast.List):
            tree = ast.Tuple(tree.elts, ast.Load())
        if open_row and argument.key in ("in", "out", "k"):
            positional.append(tree)
        else:
            open_row = False
            keywords.append(ast.keyword(argument.name, tree))
    return ast.Call(name(cls.name), positional, keywords)


def _kind(application: Application) -> Any:
    if application.child is not None:
        return application.child.node if not isinstance(application.child.node, nodes.Group) else "group"
    if application.layer.inner is not None:
        return "each"
    assert application.layer.op is not None
    return application.layer.op.name


def _owns(application: Application) -> bool:
    if application.child is not None:
        return True
    assert application.layer.op is not None
    return application.layer.op.name in operators.NEED_CHANNELS


def _in_type(application: Application) -> Any:
    value = application.input
    return value.type if isinstance(value, Tensor) else value[0].type


def _normalised(application: Application) -> Any:
    axes: Any = application.attributes["axes"]
    shape = _in_type(application).shape
    sizes = tuple(shape[axis] for axis in axes)
    return sizes[0] if len(sizes) == 1 else sizes


def _compact(word: str, value: Attribute) -> Any:
    """An equal pair as one number, as torch and the spec would write it."""
    if word in ("kernel_size", "stride", "dilation", "out_pad", "output_size", "scale") and isinstance(value, tuple):
        return value[0] if value[0] == value[1] else value
    return value


def _symmetric(padding: Attribute) -> Any:
    """Pads that torch's own argument can say: a number or a pair; None otherwise."""
    assert isinstance(padding, tuple)
    (top, bottom), (left, right) = padding  # type: ignore[misc]
    if top != bottom or left != right:
        return None
    return top if top == left else (top, left)


def _comprehension(element: ast.expr, count: ast.expr) -> ast.ListComp:
    target = ast.Name("_", ast.Store())
    return ast.ListComp(element, [ast.comprehension(target, call("range", count), [], 0)])


def _list_comprehension(element: ast.expr, target: ast.expr, iterable: ast.expr) -> ast.ListComp:
    return ast.ListComp(element, [ast.comprehension(_store(target), iterable, [], 0)])


def _nested(rows: dict[Any, Any]) -> tuple[ast.expr, str]:
    """`nn.ModuleList([...])`, or `nn.ModuleDict({...})` where the indices are not 0, 1, 2 ..."""
    elements = {k: _nested(v)[0] if isinstance(v, dict) else v for k, v in rows.items()}
    if list(elements) == list(range(len(elements))):
        trees = list(elements.values())
        same = {dump(t) for t in trees}
        if len(same) == 1 and len(trees) > 1 and not any(getattr(t, "comment", "") for t in trees):
            return call("nn.ModuleList", _comprehension(trees[0], ast.Constant(len(trees)))), "list"
        listed = ast.List(trees, ast.Load())
        listed.rows = True  # type: ignore[attr-defined]
        return call("nn.ModuleList", listed), "list"
    table = ast.Dict([ast.Constant(str(k)) for k in elements], list(elements.values()))
    table.rows = True  # type: ignore[attr-defined]
    return call("nn.ModuleDict", table), "dict"


def _reads_tensor(node: nodes.Node, scope: Any) -> bool:
    """Whether an expression reads a shape off a tensor, directly or through a name."""
    found: Mapping[nodes.Node, Column] = scope.values
    for part in nodes.descend(node):
        if isinstance(part, nodes.Name) and part.id in scope.binders:
            values = [bind.value for _, bind in scope.binders[part.id]]
            sample = next(iter(found.get(part, {}).values()), None)
            if values and values[0] is not node and is_number(sample) and _reads_tensor(values[0], scope):
                return True
        if isinstance(part, nodes.Attribute):
            sample = next(iter(found.get(part.value, {}).values()), None)
            if isinstance(sample, Tensor):
                return True
    return False


def _size_of(node: nodes.List) -> nodes.Expr | None:
    """`[t.height, t.width]` -> t."""
    if len(node.items) != 2:
        return None
    first, second = node.items
    if (
        isinstance(first, nodes.Attribute)
        and isinstance(second, nodes.Attribute)
        and (first.name.id, second.name.id) == ("height", "width")
        and first.value.span.text == second.value.span.text
    ):
        return first.value
    return None


__all__ = ["Translation", "_Lazy", "class_call"]
