"""Indexed labels: `nn.ModuleList` and `nn.ModuleDict`, and how forward reaches their modules."""

from __future__ import annotations

import ast
from abc import abstractmethod
from typing import TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.build import attribute, call, name, own
from effspec.backends.torch.plan.applications import width_of, word_of
from effspec.backends.torch.plan.body import Applications, Text, force
from effspec.backends.torch.plan.columns import Column, Entry, Loop, Split, Untranslatable, constant_of
from effspec.backends.torch.plan.loops import AnyLoop
from effspec.backends.torch.plan.modules import Modules

from effspec.layers import Instance, Layer, Tensor
from effspec.syntax import nodes

Indices: TypeAlias = tuple[int, ...]
Rows: TypeAlias = dict[Indices, ast.expr]


class Containers(Modules):
    """`Modules` with containers of modules."""

    @abstractmethod
    def sequential(self, line: nodes.Line, source: Text, entries: Applications) -> ast.expr:
        """`nn.Sequential` of the repeats of a line."""

    def indexed(
        self, site: nodes.Node, label: nodes.Label, source: Text, everywhere: Applications, condition: ast.expr | None
    ) -> ast.expr:
        """The module of an indexed label where the translation stands; its container is made once."""
        if site not in self.containers:
            self.containers[site] = self._container(site, label, source, everywhere, condition)
        kind = self.containers[site]
        if self.in_symbolic_loop:
            return self._loop_reference(label.indices, everywhere, kind)
        same, found = constant_of({e: a.label[1] for e, a in self.here(site).items()})
        if not same:
            raise Untranslatable("an index that differs")
        tree: ast.expr = own(word_of(everywhere))
        for position, index in enumerate(found):
            place = ast.Constant(str(index)) if kind == "dict" and position == 0 else build.constant(index)
            tree = ast.Subscript(tree, place, ast.Load())
        return tree

    def _loop_reference(self, indices: tuple[nodes.Expr, ...], everywhere: Applications, kind: str) -> ast.expr:
        """Inside Python loops: the loop's own variable where the container has one entry each turn, else an index."""
        word = word_of(everywhere)
        if len(self._sites(word)) > 1:
            raise Untranslatable("a container that several places fill")
        if self.in_fixed_loop or len(indices) != len(self.scope.loops):
            raise Untranslatable("labels that do not follow the loops")
        full = self._every_turn(everywhere)
        if len(indices) > 1:
            if not full:
                raise Untranslatable("a nested label that is not always there")
            row = word + "s"
            self.loop_modules[-2][word] = (row, own(word))
            # A type checker knows the row as a module, of which it may ask the children.
            self.loop_modules[-1][word] = (word, call(attribute(name(row), "children")))
            return name(word)
        if full and not self.scope.loops[-1].by_index:
            variable = word if word not in self.names and word != self.collecting else "layer"
            container: ast.expr = call(attribute(own(word), "values")) if kind == "dict" else own(word)
            self.loop_modules[-1][word] = (variable, container)
            return name(variable)
        index = self.scope.translate(indices[0])
        if not isinstance(index, ast.Name):
            raise Untranslatable("an index that is not the loop's")
        self.loop_used[-1].add(index.id)
        return ast.Subscript(own(word), index if kind == "list" else call("str", index), ast.Load())

    def _every_turn(self, everywhere: Applications) -> bool:
        """Whether a place applies its layer in every turn of its loops, in the order of the container."""
        depth = len(self.scope.loops)
        labels: dict[Instance, dict[tuple[int, ...], tuple[int, ...]]] = {}
        for (instance, iteration), application in everywhere.items():
            labels.setdefault(instance, {}).setdefault(iteration[:depth], application.label[1])
        turns: list[Entry] = list(self.scope.values.get(self.scope.loops[-1].node.targets[0], {}))
        for instance, found in labels.items():
            wanted = [iteration for other, iteration in turns if other is instance]
            if list(found) != wanted or list(found.values()) != sorted(found.values()):
                return False
        return bool(labels)

    # Making the container

    def _container(
        self, site: nodes.Node, label: nodes.Label, source: Text, everywhere: Applications, condition: ast.expr | None
    ) -> str:
        """Make `self.label` for an indexed label: rows for a model, a comprehension (else rows) for a block.

        The kind of container: "list" or "dict".
        """
        alone = len(self._sites(word_of(everywhere))) == 1
        if alone and not self.scope.is_model and not self.scope.literal:
            state = self.snapshot()
            try:
                return self._comprehension(site, source, everywhere, condition, len(label.indices))
            except Untranslatable:
                self.restore(state)
        return self._row_container(site, source, everywhere, condition)

    def _sites(self, word: str) -> dict[nodes.Node, set[Indices]]:
        """The places that fill the container of a label, and the indices that each of them gives."""
        found: dict[nodes.Node, set[Indices]] = {}
        for site in self.applied:
            labels = [application.label for application in self.everywhere(site).values()]
            if any(label[0] == word for label in labels):
                found[site] = {label[1] for label in labels}
        return found

    def _row_container(
        self, site: nodes.Node, source: Text, everywhere: Applications, condition: ast.expr | None
    ) -> str:
        """Make the container written out, or add to it what another place has begun; it is made under `condition`."""
        word = word_of(everywhere)
        by_label: dict[Indices, Applications] = {}
        per_instance: dict[Instance, set[Indices]] = {}
        for entry, application in everywhere.items():
            by_label.setdefault(application.label[1], {})[entry] = application
            per_instance.setdefault(entry[0], set()).add(application.label[1])
        if len({frozenset(labels) for labels in per_instance.values()}) > 1:
            raise Split({instance: tuple(sorted(labels)) for instance, labels in per_instance.items()})
        rows, begun = self.rows.get(word, ({}, condition))
        if (begun and build.dump(begun)) != (condition and build.dump(condition)):
            raise Untranslatable("a container that is partly there")
        rows = dict(rows)
        outer = self.scope.loops
        for label, entries in by_label.items():
            iteration = next(iter(entries))[1]
            self.scope.loops = [Loop(loop.node, iteration[n], loop.names) for n, loop in enumerate(outer)]
            try:
                # In a loop the turns have inputs of their own; that of the body may be one of them.
                known = self.entry.channels if self._enters(entries) else None
                tree = self._row(site, source if len(by_label) == 1 else Text(source.tree, known), entries)
            finally:
                self.scope.loops = outer
            if label in rows:
                raise Untranslatable(f"two modules called {word}")
            rows[label] = build.commented(tree, self.shape_comment(entries))
        if word in self.rows:
            self.undeclare(word)
        self.rows[word] = (rows, condition)
        indices = set().union(*self._sites(word).values())
        tree = _nested(rows, indices)
        if condition is not None and isinstance(tree, ast.Call):
            empty: ast.expr = ast.Dict([], []) if _kind_of(indices) == "dict" else ast.List([], ast.Load())
            tree = call(tree.func, build.choice(condition, tree.args[0], empty))
        self.declare(word, tree)
        return _kind_of(indices)

    def _enters(self, entries: Applications) -> bool:
        """Whether every instance applies a row to its own input."""
        own_input = {e[0] for e, a in entries.items() if isinstance(a.input, Tensor) and a.input is e[0].input}
        return own_input == {instance for instance, _ in entries}

    def _row(self, site: nodes.Node, source: Text, entries: Applications) -> ast.expr:
        if isinstance(site, nodes.Line) and site.repeats is not None:
            return self.sequential(site, source, entries)
        return self.constructor(site, source, entries)

    def _comprehension(
        self, site: nodes.Node, source: Text, everywhere: Applications, condition: ast.expr | None, depth: int
    ) -> str:
        """`nn.ModuleList([... for ...])`, or `nn.ModuleDict({str(i): ... for i in range(1, n)})`; its kind.

        It covers all turns of a loop, also while that is written out.
        """
        outer = self.scope.loops
        if len(outer) != depth:
            raise Untranslatable("labels that do not follow the loops")
        kind = self._kind([loop.node for loop in outer], everywhere)
        if condition is None and not self._all_turns(outer[-1], everywhere, depth):
            raise Untranslatable("not there in every turn")
        loops = outer
        if self.in_fixed_loop:
            loops = [Loop(x.node, None, {t.id: name(self.variable(t.id)) for t in x.node.targets}) for x in outer]
        self.scope.loops = loops
        try:
            tree = self._row(site, Text(source.tree, self._turn_channels(source, everywhere)), everywhere)
            if condition is not None:
                tree = ast.IfExp(condition, tree, call("nn.Identity"))
            for position in range(depth - 1, -1, -1):
                self.scope.loops = loops[:position]
                target, iterable = self._turns(loops[position], tree)
                if kind == "dict":
                    tree = call("nn.ModuleDict", build.table(call("str", target), tree, target, iterable))
                else:
                    tree = call("nn.ModuleList", build.comprehension(tree, target, iterable))
        finally:
            self.scope.loops = outer
        self.declare(word_of(everywhere), tree)
        return kind

    def _kind(self, loops: list[AnyLoop], everywhere: Applications) -> str:
        """The container of labels that are the numbers of the loops around: "list" where they are 0, 1, 2 ..."""
        counters = [self._counter(loop) for loop in loops]
        found: dict[tuple[Instance, tuple[int, ...]], set[int]] = {}
        for (instance, iteration), application in everywhere.items():
            for depth, (counter, index) in enumerate(zip(counters, application.label[1], strict=True)):
                if index != counter.get((instance, iteration[: depth + 1]), iteration[depth]):
                    raise Untranslatable("labels that are not the loop's numbers")
                found.setdefault((instance, application.label[1][:depth]), set()).add(index)
        if all(0 in indices for indices in found.values()):
            return "list"
        if len(loops) > 1:
            raise Untranslatable("nested labels that do not start with 0")
        return "dict"

    def _all_turns(self, loop: Loop, everywhere: Applications, depth: int) -> bool:
        """Whether a place applies its layer in every turn of a loop."""
        turns = set(self.scope.values.get(loop.node.targets[0], {}))
        return turns == {(instance, iteration[:depth]) for instance, iteration in everywhere}

    def _counter(self, loop: AnyLoop) -> Column:
        """The numbers that a loop over a range goes through, by turn; of other loops nothing."""
        target = next((source.target for source in self.sources(loop) if source.kind == "range"), None)
        return self.scope.values.get(target, {}) if target is not None else {}

    # What a turn gets

    def _turn_channels(self, source: Text, everywhere: Applications) -> ast.expr | None:
        """The input channels of a module in a loop: the same each turn, from a list, or carried from turn to turn."""
        column: Column = {e: w for e, a in everywhere.items() if (w := width_of(a.input)) is not None}
        if len(column) != len(everywhere):
            return None
        known = source.channels if not source.is_list else None
        for channels in (known, self.entry.channels if self.entry.is_list else None):
            if channels is not None and self.scope.holds(force(channels), column):
                return force(channels)
        for index in self.scope.loop_variables() if self.entry.is_list and not self.scope.is_model else []:
            state = self.scope.snapshot()
            element = ast.Subscript(self.scope.in_channels(), index, ast.Load())
            if self.scope.holds(element, column):
                return element
            self.scope.restore(state)
        state = self.scope.snapshot()
        trials = self.scope.candidates()
        base = force(self.entry.channels) if self.entry.channels is not None else None
        for tree in [base, *trials] if base is not None else trials:
            if self.scope.holds(tree, column):
                return tree
        growing = self._growing(base, column) if base is not None else None
        if growing is not None:
            return growing
        firsts = {e: v for e, v in column.items() if e[1][-1] == 0}
        rests = {e: v for e, v in column.items() if e[1][-1] > 0}
        if base is not None and firsts and rests and self.scope.holds(base, firsts):
            previous = self._previous(rests)
            if previous is not None:
                is_first = ast.Compare(self.scope.loop_variables()[0], [ast.Eq()], [ast.Constant(0)])
                return ast.IfExp(is_first, base, previous)
        self.scope.restore(state)
        return None

    def _growing(self, base: ast.expr, column: Column) -> ast.expr | None:
        """`in_channels + 32 * i`: channels to which every turn adds the same."""
        turns = self._counter(self.scope.loops[-1].node)
        starts = {e: v for e, v in column.items() if e[1][-1] == 0}
        steps = {e: (v - starts[e[0], (*e[1][:-1], 0)]) / e[1][-1] for e, v in column.items() if e[1][-1] > 0}
        index = self.scope.loop_variables()
        same, step = constant_of(steps) if steps else (False, 0)
        if not same or not index or step != int(step) or len(self.scope.loops) > 1:
            return None
        first = min(turns.values(), default=0)
        turn: ast.expr = build.binary("-", index[0], ast.Constant(first)) if first else index[0]
        tree = build.binary("+", base, build.binary("*", ast.Constant(int(step)), turn))
        return tree if self.scope.holds(tree, column) else None

    def _list_parameters(self) -> list[str]:
        """The parameters of the definition that are lists of numbers."""
        found = []
        for word in self.scope.parameters:
            values = [i.arguments[word].value for i in self.instances if word in i.arguments]
            listed = bool(values) and all(isinstance(value, tuple) for value in values)
            if listed and values[0] and not any(isinstance(element, Layer) for element in values[0]):
                found.append(word)
        return found

    def _previous(self, rests: Column) -> ast.expr | None:
        """The output channels of the turn before, as `widths[i - 1]` or what is the same each turn."""
        for word in self._list_parameters():
            for index in self.scope.loop_variables():
                state = self.scope.snapshot()
                place = ast.BinOp(index, ast.Sub(), ast.Constant(1))
                tree = ast.Subscript(self.scope.demand(word), place, ast.Load())
                if self.scope.holds(tree, rests):
                    return tree
                self.scope.restore(state)
        known = next((tree for tree in self.scope.candidates() if self.scope.holds(tree, rests)), None)
        return known or self.scope.width(rests)

    # How often

    def _turns(self, loop: Loop, tree: ast.expr) -> tuple[ast.expr, ast.expr]:
        """`for i, k in enumerate(kernels)` with only the variables that the element reads."""
        free = build.free_names(tree)
        sources = self.sources(loop.node)
        index = next((name(self.variable(s.target.id)) for s in sources if s.kind in ("index", "range")), None)
        if index is not None and index.id not in free:
            index = None
        for source in sources:
            if source.kind == "number" and source.target.id in free:
                lists, element = self.scope.translate(source.node), name(source.target.id)
                if index is None:
                    return element, lists
                return ast.Tuple([index, element], ast.Load()), call("enumerate", lists)
            if source.kind == "range" and (index is not None or 0 not in self._counter(loop.node).values()):
                return name(self.variable(source.target.id)), self.range_of(source)
        count = self._count(loop.node.iterable)
        return index or name("_"), call("range", count)

    def _count(self, iterable: nodes.Expr) -> ast.expr:
        """How often a loop of the spec runs, as a Python number."""
        column: Column = {entry: len(value) for entry, value in self.scope.column(iterable).items()}
        for argument in self.scope.arguments.values():
            if argument.annotation.startswith("list["):
                tree = call("len", name(argument.name))
                if self.scope.holds(tree, column):
                    return tree
        state = self.scope.snapshot()
        try:
            hint = self._length(iterable)
            if hint is not None and self.scope.holds(hint, column):
                return hint
        except Untranslatable:
            pass
        self.scope.restore(state)
        for word in self._list_parameters():
            state = self.scope.snapshot()
            length = call("len", self.scope.demand(word))
            for count in (length, build.binary("-", length, ast.Constant(1))):
                if self.scope.holds(count, column):
                    return count
            self.scope.restore(state)
        return self.scope.express("count", column)

    def _length(self, iterable: nodes.Expr) -> ast.expr | None:
        """The count as the spec says it: the length of a list, or the end of a range."""
        if isinstance(iterable, nodes.Call) and iterable.arguments:
            iterable = iterable.arguments[0].value
        if isinstance(iterable, nodes.Range):
            return self.scope.translate(iterable.stop) if iterable.stop is not None else None
        if not isinstance(iterable, nodes.Name):
            return None
        if self.scope.is_input_list(iterable):
            return self.scope.inputs()
        return call("len", self.scope.translate(iterable))


def _kind_of(indices: set[Indices]) -> str:
    """ "list" where the first indices are 0, 1, 2 ..., else "dict"."""
    firsts = {index[0] for index in indices if index}
    return "list" if firsts == set(range(len(firsts))) else "dict"


def _nested(rows: Rows, indices: set[Indices]) -> ast.expr:
    """`nn.ModuleList([...])` or `nn.ModuleDict({...})` of rows, which in the end has all these indices."""
    if () in indices:
        if len(indices) > 1:
            raise Untranslatable("labels of several depths")
        return rows[()]
    elements: dict[int, ast.expr] = {}
    for first in sorted({index[0] for index in rows}):
        below = {index[1:]: tree for index, tree in rows.items() if index[0] == first}
        elements[first] = _nested(below, {index[1:] for index in indices if index[0] == first})
    trees = list(elements.values())
    if _kind_of(indices) == "dict":
        table = ast.Dict([ast.Constant(str(index)) for index in elements], trees)
        return call("nn.ModuleDict", build.in_rows(table))
    alike = len({build.dump(tree) for tree in trees}) == 1 and not any(map(build.comment_of, trees))
    if alike and len(trees) > 1:
        turns = call("range", ast.Constant(len(trees)))
        return call("nn.ModuleList", build.comprehension(trees[0], name("_"), turns))
    return call("nn.ModuleList", build.in_rows(ast.List(trees, ast.Load())))
