"""Loops: what a Python loop goes through, and loops that are written out."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any, TypeAlias

from effspec.backends.torch import build
from effspec.backends.torch.build import attribute, call, name
from effspec.backends.torch.plan.body import Text, common, is_tensor
from effspec.backends.torch.plan.columns import Column, Loop, Split, Untranslatable, constant_of, sample_of
from effspec.backends.torch.plan.conditions import Conditions

from effspec.syntax import nodes

AnyLoop: TypeAlias = nodes.For | nodes.Comprehension
Pairs: TypeAlias = list[tuple[ast.expr, ast.expr]]


@dataclass(frozen=True)
class Source:
    """Where the values of a loop's target come from: `kind` is tensor, number, index (of a list) or range."""

    target: nodes.Identifier
    kind: str
    node: nodes.Expr
    reversed: bool = False


class Loops(Conditions):
    """`Conditions` with loops."""

    def translate_for(self, statement: nodes.For) -> None:
        """A loop in Python where its body has one text for all turns, else its turns one after the other."""
        column = self.scope.column(statement.iterable)
        if not column:
            return
        if not self._is_tapped(statement) and self._as_loop(statement, column, by_index=False):
            return
        for index in range(self.one_count(column)):
            loop = Loop(statement, index, {target.id: ast.Constant(index) for target in statement.targets})
            self.scope.loops.append(loop)
            outer = set(self.names)
            self.name_elements(statement, index)
            self.run(statement.body)
            self.names = {word: text for word, text in self.names.items() if word in outer}
            self.scope.loops.pop()

    def _is_tapped(self, statement: nodes.For) -> bool:
        """Whether somebody reads what single turns of the loop make."""
        tapped = {word.split(".")[0] for word, _ in self.planner.taps_of(self.instances[0])}
        labels = {part.name for part in nodes.descend(statement) if isinstance(part, nodes.Label)}
        return bool(tapped & labels)

    def _as_loop(self, statement: nodes.For, column: Column, by_index: bool) -> bool:
        """Write a loop as one in Python, if that can be done; over indices where forward reads them anyway."""
        state = self.snapshot()
        try:
            indexed = self._symbolic_for(statement, column, by_index)
        except Untranslatable:
            self.restore(state)
            return False
        if indexed and not by_index:
            done = self.snapshot()
            self.restore(state)
            if not self._as_loop(statement, column, by_index=True):
                self.restore(done)
        return True

    def one_count(self, column: Column) -> int:
        """The length that a list has in all instances; without one they cannot share a class."""
        counts = {entry: len(value) for entry, value in column.items()}
        same, count = constant_of(counts)
        if not same:
            raise Split({instance: length for (instance, _), length in counts.items()})
        return int(count)

    def name_elements(self, statement: AnyLoop, index: int) -> None:
        """The loop's tensor variables at one fixed index."""
        for source in self.sources(statement):
            if source.kind == "tensor":
                tree, place = self.value(source.node).tree, build.constant(index)
                if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Slice) and _is_reversed(tree.slice):
                    tree, place = tree.value, build.constant(-1 - index)
                self.names[source.target.id] = Text(ast.Subscript(tree, place, ast.Load()))

    def sources(self, statement: AnyLoop) -> list[Source]:
        """Where the values of each target of a loop come from."""
        iterable, targets = statement.iterable, statement.targets
        if isinstance(iterable, nodes.Call) and isinstance(iterable.function, nodes.Name):
            lists = [argument.value for argument in iterable.arguments]
            if iterable.function.id == "enumerate" and len(targets) == 2:
                return [Source(targets[0], "index", lists[0]), self._elements(targets[1], lists[0])]
            if iterable.function.id == "zip" and len(lists) == len(targets):
                return [self._elements(target, node) for target, node in zip(targets, lists, strict=True)]
        if len(targets) != 1:
            raise Untranslatable(iterable.span.text)
        backwards = _backwards(iterable)
        if isinstance(backwards or iterable, nodes.Range):
            return [Source(targets[0], "range", backwards or iterable, backwards is not None)]
        return [self._elements(targets[0], iterable)]

    def _elements(self, target: nodes.Identifier, node: nodes.Expr) -> Source:
        kind = "tensor" if is_tensor(sample_of(self.scope.values.get(target, {}))) else "number"
        return Source(target, kind, node)

    def _symbolic_for(self, statement: nodes.For, column: Column, by_index: bool) -> bool:
        """Whether the loop goes through modules while it reads the numbers of a range."""
        counts = {e: len(v) for e, v in column.items()}
        if any(count == 0 for count in counts.values()):
            raise Untranslatable("an empty loop")
        if max(counts.values()) == 1:
            raise Untranslatable("a loop that runs once")
        outer = dict(self.names)
        items = self.open_loop(statement, by_index)
        before = self.current
        started = self._started(statement.body)
        if started is not None:
            self.current = Text(name(self.variable_of_list if isinstance(started, tuple) else self.variable_of_it))
        # What a turn reads of the input, an earlier turn may have replaced as the current value.
        self.changed = self.changed or any(isinstance(part, nodes.Line) for part in nodes.descend(statement.body))
        try:
            body = self.nested(lambda: self.run(statement.body))
        finally:
            modules, used = self.close_loop()
        self.names = {word: text for word, text in self.names.items() if word in outer}
        self.current = Text(self.current.tree, None if self.changed else before.channels, self.current.is_list)
        if used & {source.target.id for source in self.sources(statement) if source.kind == "number"}:
            raise Untranslatable("a number of the loop in forward")
        read = {word for part in body for word in build.free_names(part)}
        index = self.index_name(statement)
        target, iterable = self.header(
            statement, [*modules, *read_pairs(items, read)], index if index in used else None, counts
        )
        self.emit(ast.For(build.store(target), iterable, body, [], lineno=0))
        ranges = any(source.kind == "range" for source in self.sources(statement))
        return ranges and bool(modules) and index in used

    def _started(self, body: nodes.Body) -> Any:
        """A value of the line that gives each turn a current value of its own, None if turns go on from the last."""
        for statement in body.statements:
            if any(isinstance(part, nodes.Name) and part.id == "it" for part in nodes.descend(statement)):
                return None
            if isinstance(statement, nodes.Line) and not isinstance(statement.value, nodes.Group):
                value = sample_of(self.scope.column(statement.value))
                return value if statement.guard is None and is_tensor(value) else None
            if not isinstance(statement, nodes.Bind):
                return None
        return None

    def open_loop(self, statement: AnyLoop, by_index: bool = False) -> Pairs:
        """Enter a Python loop; the pairs (variable, list) of the tensors that it goes through."""
        loop = Loop(statement, None, by_index=by_index)
        items: Pairs = []
        for source in self.sources(statement):
            word = source.target.id
            plain = isinstance(statement, nodes.Comprehension) and word == "x"
            variable = name(word if plain else self.variable(word))
            loop.names[word] = variable
            if source.kind == "tensor":
                listed = self.value(source.node)
                items.append((variable, listed.tree))
                self.names[word] = Text(name(variable.id), common(listed))
        self.scope.loops.append(loop)
        self.loop_modules.append({})
        self.loop_used.append(set())
        return items

    def close_loop(self) -> tuple[Pairs, set[str]]:
        """Leave a Python loop: the pairs (variable, container) of its modules, and the variables forward reads."""
        self.scope.loops.pop()
        modules = self.loop_modules.pop()
        return [(name(variable), container) for variable, container in modules.values()], self.loop_used.pop()

    def index_name(self, statement: AnyLoop) -> str:
        """The Python variable that counts the turns, "" if the spec has none."""
        found = [s.target.id for s in self.sources(statement) if s.kind in ("index", "range")]
        return self.variable(found[0]) if found else ""

    def header(self, statement: AnyLoop, pairs: Pairs, index: str | None, counts: Column) -> tuple[ast.expr, ast.expr]:
        """The target and iterable of a Python loop over modules and tensors."""
        start = self._start(statement)
        if not pairs:
            return name(index or "_"), self._counted(statement, index, counts)
        targets, lists = [target for target, _ in pairs], [source for _, source in pairs]
        target = targets[0] if len(targets) == 1 else ast.Tuple(targets, ast.Load())
        source = lists[0] if len(lists) == 1 else call("zip", *lists)
        if index is not None:
            target = ast.Tuple([name(index), target], ast.Load())
            source = call("enumerate", source, **({"start": ast.Constant(start)} if start else {}))
        return target, source

    def _counted(self, statement: AnyLoop, index: str | None, counts: Column) -> ast.expr:
        """`range(...)` of a loop that goes through no list."""
        for source in self.sources(statement):
            if source.kind == "range" and index is not None:
                ends = [self.to_forward(end, "count") for end in self.range_of(source).args]
                tree = call("range", *ends)
                return call("reversed", tree) if source.reversed else tree
        same, count = constant_of(counts)
        if not same:
            raise Untranslatable("a count that is not known")
        return call("range", ast.Constant(count))

    def range_of(self, source: Source) -> ast.Call:
        """The Python text of a range of the spec, in ascending order, in terms of `__init__`."""
        node = source.node
        if not isinstance(node, nodes.Range) or node.start is None or node.stop is None:
            raise Untranslatable(node.span.text)
        start, stop = self.scope.translate(node.start), self.scope.translate(node.stop)
        if node.inclusive:
            stop = build.added(stop, ast.Constant(1))
        tree = call("range", *([] if build.is_literal(start, 0) else [start]), stop)
        if not self.scope.holds(call("list", tree), self.scope.column(node)):
            raise Untranslatable(node.span.text)
        return tree

    def _start(self, statement: AnyLoop) -> int:
        """The first index of a range, 0 of other loops."""
        start = 0
        for source in self.sources(statement):
            if source.kind == "range":
                ranges = {e: v for e, v in self.scope.column(source.node).items() if v}
                same, start = constant_of({e: v[0] for e, v in ranges.items()}) if ranges else (True, 0)
                if not same:
                    raise Untranslatable("a range that starts anywhere")
        return start

    # Loops that collect

    def bound_loop(self, statement: nodes.Bind, loop: nodes.For) -> None:
        """`a = for ... { yield }`: a list, appended to."""
        word = statement.targets[0].id
        variable = self.variable(word)
        self.emit(build.assign(variable, ast.List([], ast.Load())))
        outer, self.collecting = self.collecting, variable
        self.translate_for(loop)
        self.collecting = outer
        self.names[word] = Text(name(variable), None, True)

    def translate_yield(self, statement: nodes.Yield) -> None:
        value = self.current if statement.value is None else self.value(statement.value)
        if self.collecting is None:
            raise Untranslatable("yield")
        self.emit(ast.Expr(call(attribute(name(self.collecting), "append"), value.tree)))


def read_pairs(items: Pairs, read: set[str]) -> Pairs:
    """The pairs whose variable is read."""
    return [(target, source) for target, source in items if isinstance(target, ast.Name) and target.id in read]


def _backwards(node: nodes.Expr) -> nodes.Expr | None:
    """`reverse(a)` -> a."""
    match node:
        case nodes.Call(function=nodes.Name(id="reverse"), arguments=(argument,)):
            return argument.value
    return None


def _is_reversed(part: ast.Slice) -> bool:
    return isinstance(part.step, ast.UnaryOp)
