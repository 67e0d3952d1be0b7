"""One class: the statements of a block or model translated to `__init__` and `forward`.

Every line is looked at through all instances of the class (the column of what was applied there): what all of them do is
written plainly, what some do becomes an optional part, what differs in a number becomes an argument.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import attribute, call, name, own
from effspec.backends.torch.scope import Argument, Column, Entry, Loop, Scope, Split, Untranslatable, constant_of
from effspec.layers import Application, Bound, Instance, Layer, Taps, Tensor, key
from effspec.ops import OPS
from effspec.syntax import nodes

_SHORTCUT = "shortcut"


@dataclass(eq=False)
class Text:
    """A value in forward: its Python text, and the channels of the tensor as `__init__` knows them."""

    tree: ast.expr
    channels: ast.expr | None = None
    is_list: bool = False


@dataclass(eq=False)
class Class:
    """A planned class of the emitted file."""

    name: str
    bases: list[ast.expr]
    doc: str | None
    arguments: list[Argument]
    init: list[ast.stmt]
    forward: list[ast.stmt]
    forward_args: list[tuple[str, str]]
    returns: str
    instances: list[Instance]
    out_channels: str | None
    methods: list[ast.stmt] = field(default_factory=list)
    custom_init: bool = False


class Planner(Protocol):
    """What a body needs to know of the rest of the file."""

    def class_of(self, instance: Instance) -> Class: ...

    def alive(self, application: Application) -> bool: ...

    def need(self, helper: str) -> str: ...

    def taps_of(self, instance: Instance) -> list[tuple[str, Any]]: ...


@dataclass(eq=False)
class Repeated:
    """`label: B(...) x N` of a model, before it is known whether a `stage` helper serves all of them."""

    first: ast.Call
    rest: ast.Call | None
    rows: list[ast.Call]
    count: int
    arguments: list[Argument]


class Body:
    """The translation of one definition for some of its instances."""

    def __init__(self, scope: Scope, planner: Planner) -> None:
        self.scope = scope
        self.planner = planner
        self.node = scope.node
        self.instances = scope.instances
        self.applied: dict[nodes.Node, dict[Entry, Application]] = {}
        self.ran: dict[nodes.Node, Column] = {}
        for instance in scope.instances:
            for (site, iteration), application in instance.applied.items():
                self.applied.setdefault(site, {})[instance, iteration] = application
            for (site, iteration), value in instance.ran.items():
                self.ran.setdefault(site, {})[instance, iteration] = value
        self.names: dict[str, Text] = {}
        self.statements: list[ast.stmt] = []
        self.attached: dict[str, str] = {}
        self.containers: dict[nodes.Node, str] = {}
        self.loop_modules: list[dict[str, tuple[str, ast.expr]]] = []
        self.loop_used: list[set[str]] = []
        self.current = Text(name("x"))
        self.entry: Text = self.current
        self.changed = False
        self.shortcut: str | None = None
        self.outputs: list[tuple[str, ast.expr, bool]] = []
        self.repeated: dict[int, Repeated] = {}
        self.training = False
        self.variable_of_it = "x"
        self.collecting: str | None = None
        self.inherited: list[ast.expr] = []
        self.shortcut_name = "inputs" if _SHORTCUT in scope.binders else _SHORTCUT
        scope.tracker = self._tracked_channels
        for label in self._labels():
            scope.taken.add(label)

    # Labels and names

    def _labels(self) -> set[str]:
        found = set()
        for site, apps in self.applied.items():
            for application in apps.values():
                found.add(application.label[0])
                break
        for part in nodes.descend(self.node):
            if isinstance(part, nodes.Param):
                found.add(part.name.id)
        return found

    def variable(self, word: str) -> str:
        """A Python variable for a name of the spec."""
        while word in ("self", "torch", "nn", "F", "lambda", "class", "def", "is", "x"):
            word += "_"
        return word

    def _tracked_channels(self, node: nodes.Expr) -> ast.expr | None:
        if isinstance(node, nodes.Name) and node.id == "it":
            return self.current.channels
        if isinstance(node, nodes.Name) and node.id in self.names:
            return self.names[node.id].channels
        return None

    # Entries

    def here(self, site: nodes.Node) -> dict[Entry, Application]:
        """What was applied at a place, where the translation stands."""
        found = self.applied.get(site, {})
        return {e: a for e, a in found.items() if self.scope.matches(e[1]) and self.planner.alive(a)}

    def everywhere(self, site: nodes.Node) -> dict[Entry, Application]:
        return {e: a for e, a in self.applied.get(site, {}).items() if self.planner.alive(a)}

    # The body

    def translate(self) -> None:
        """Fill `statements` and the scope's `init`."""
        first = self.instances[0].input
        self.is_list = isinstance(first, tuple)
        on: tuple[nodes.Identifier, ...] = getattr(self.node, "on", ())
        if self.is_list:
            variable = self.variable(on[0].id) if len(on) == 1 else "xs"
            self.current = Text(name(variable), None, True)
            if len(on) == 1:
                self.names[on[0].id] = self.current
        else:
            self.current = Text(name("x"), self._input_channels())
            if on:
                self.names[on[0].id] = self.current
        self.entry = self.current
        if isinstance(self.node, nodes.Model):
            for declared in self.node.inputs:
                self.names[declared.name.id] = self.current
            if len(self.node.inputs) > 1:
                raise Untranslatable("several inputs")
        self.start = len(self.statements)
        if len(on) > 1:
            targets = [name(self.variable(identifier.id)) for identifier in on]
            for identifier, target in zip(on, targets, strict=True):
                self.names[identifier.id] = Text(target)
            self.emit(build.assign(ast.Tuple(list(targets), ast.Load()), self.current.tree))
        assert isinstance(self.node, nodes.Block | nodes.Model | nodes.Group)
        self.run(self.node.body)

    def translate_from(self, entry: Text, variable: str) -> None:
        """Like `translate`, but `input` is a text of its own and `it` a variable of that name."""
        self.is_list = False
        self.current = self.entry = entry
        self.variable_of_it = variable
        assert isinstance(self.node, nodes.Block)
        if self.node.on:
            self.names[self.node.on[0].id] = entry
        self.run(self.node.body)

    def _input_channels(self) -> ast.expr | None:
        if self.scope.is_model:
            value = self.instances[0].input
            return build.literal(value.type.shape[0]) if isinstance(value, Tensor) else None
        return _Lazy(self.scope.in_channels)  # type: ignore[return-value]

    def emit(self, statement: ast.stmt) -> None:
        self.statements.append(statement)

    def become(self, text: Text) -> None:
        """`it` is now this value."""
        if text.tree is self.current.tree:
            self.current = text
            return
        variable = "xs" if text.is_list else self.variable_of_it
        if self.is_list and text.is_list and isinstance(self.entry.tree, ast.Name) and not isinstance(self.node, nodes.Block):
            variable = "xs"
        if isinstance(text.tree, ast.Name) and text.tree.id == variable:
            self.current = text
            return
        self.emit(build.assign(variable, text.tree))
        self.changed = True
        self.current = Text(name(variable), text.channels, text.is_list)

    def run(self, body: nodes.Body) -> None:
        for statement in body.statements:
            method = getattr(self, "_" + type(statement).__name__.lower())
            method(statement)

    # Lines

    def _line(self, line: nodes.Line) -> None:
        entries = self.everywhere(line)
        if isinstance(line.value, nodes.Group):
            self._guarded_line(line, entries)
            return
        column = self.scope.column(line.value)
        reached = {e: v for e, v in self.ran.get(line, {}).items() if self.scope.matches(e[1])}
        if line.guard is not None and (not reached or not any(reached.values())):
            return
        if column and all(isinstance(value, Layer) for value in column.values()):
            self._guarded_line(line, entries)
            return
        if not column:
            if line.repeats is not None:
                return  # repeated zero times everywhere
            return
        if any(isinstance(value, Layer) for value in column.values()):
            raise Untranslatable("a line that is sometimes a layer")
        if line.guard is not None and not all(reached.values()):
            test = self.condition(line, line.guard, reached)
            body = self.nested(lambda: self.become(self.value(line.value)))  # type: ignore[arg-type]
            self.emit(ast.If(test, body, []))
            return
        self._become_line(line.value)

    def _become_line(self, node: nodes.Expr) -> None:
        """A tensor expression as a statement; `a if c else it` becomes an `if`."""
        if isinstance(node, nodes.Ternary):
            condition = self.scope.column(node.condition)
            alike, value = constant_of(condition)
            if alike:
                self._become_line(node.chosen if value else node.otherwise)
                return
            if isinstance(node.otherwise, nodes.Name) and node.otherwise.id == "it":
                test = self.stored_condition(node.condition, self._flag_word([node.chosen]))
                body = self.nested(lambda: self.become(self.value(node.chosen)))
                self.emit(ast.If(test, body, []))
                return
        if isinstance(node, nodes.Name) and node.id == "it":
            return
        self.become(self.value(node))

    def nested(self, run: Any) -> list[ast.stmt]:
        """The statements that `run` emits, apart; afterwards the current value is a plain variable again."""
        outer, self.statements = self.statements, []
        before = self.current
        changed = self.changed
        try:
            run()
            inner = self.statements
        finally:
            self.statements = outer
        self.changed = self.changed or changed
        if dump(self.current.tree) != dump(before.tree):
            # Both ways have to end in one variable.
            assert isinstance(self.current.tree, ast.Name)
            if isinstance(before.tree, ast.Name) and before.tree.id != self.current.tree.id:
                raise Untranslatable("a tensor that is sometimes a list")
        channels = self.current.channels
        if before.channels is None or channels is None or dump(_force(before.channels)) != dump(_force(channels)):
            channels = before.channels
        self.current = Text(self.current.tree, channels, self.current.is_list)
        return inner or [ast.Pass()]

    def _guarded_line(self, line: nodes.Line, entries: dict[Entry, Application]) -> None:
        """A layer line: plain, optional as a module, or under an `if`."""
        reached = {e: v for e, v in self.ran.get(line, {}).items() if self.scope.matches(e[1])}
        here = self.here(line)
        if not here:
            return
        if line.guard is None or all(reached.values()):
            self.become(self.apply_site(line, line.label, self.current, None))
            return
        if self._is_module(line, here) and not self._in_symbolic_loop():
            condition = self._init_condition(line.guard, reached, "has_" + next(iter(here.values())).label[0])
            self.become(self.apply_site(line, line.label, self.current, condition))
            return
        test = self.condition(line, line.guard, reached)
        body = self.nested(lambda: self.become(self.apply_site(line, line.label, self.current, None)))
        self.emit(ast.If(test, body, []))

    def _in_symbolic_loop(self) -> bool:
        return any(loop.index is None for loop in self.scope.loops)

    def _is_module(self, site: nodes.Node, here: dict[Entry, Application]) -> bool:
        application = next(iter(here.values()))
        if application.child is not None:
            return True
        return application.layer.op is not None and self._module_op(site, application)

    def _module_op(self, site: nodes.Node, application: Application) -> bool:
        op = application.layer.op
        assert op is not None
        if op.name in operators.ALWAYS_MODULES:
            return True
        if op.name not in operators.ACTIVATIONS:
            return False
        layer = site.value if isinstance(site, nodes.Line) else site.layer if isinstance(site, nodes.Step) else None
        while isinstance(layer, nodes.Call):
            layer = layer.function
        direct = isinstance(layer, nodes.Name) and layer.id == op.name
        return application.written or not direct

    # Conditions

    def _init_condition(self, guard: nodes.Expr, reached: Column, flag: str) -> ast.expr:
        """A guard in `__init__`; where it has no text, a flag that the caller gives."""
        column = {e: bool(v) for e, v in reached.items()}
        state = self.scope.snapshot()
        try:
            tree = self.scope.translate(guard)
            if self.scope.holds(tree, column):
                return tree
        except Untranslatable:
            pass
        self.scope.restore(state)
        return self.scope.promote(flag, column)

    def condition(self, site: nodes.Node, guard: nodes.Expr, reached: Column) -> ast.expr:
        """A guard in forward."""
        loops = [n for loop in self.scope.loops if loop.index is None for n in loop.names]
        words = {part.id for part in nodes.descend(guard) if isinstance(part, nodes.Name)}
        if any(word in loops for word in words):
            tree = self.scope.translate(guard)
            if not self.scope.holds(tree, {e: bool(v) for e, v in reached.items()}):
                raise Untranslatable(guard.span.text)
            return self._to_forward(tree, "active")
        return self.stored_condition(guard, "active")

    def _to_forward(self, tree: ast.expr, word: str) -> ast.expr:
        """An `__init__` expression where forward can read it: loop variables stay, arguments become attributes."""
        free = build.free_names(tree)
        loops = {n.id for loop in self.scope.loops if loop.index is None for n in loop.names.values() if isinstance(n, ast.Name)}
        if not free:
            return tree
        if not free & loops:
            return self.scope.store(word, tree)
        for used in self.loop_used:
            used |= free & loops
        replaced = {word: self.scope.store(word, name(word)) for word in free - loops if word not in ("len", "range", "round")}
        return build.substitute(tree, replaced)

    def stored_condition(self, condition: nodes.Expr, flag: str) -> ast.expr:
        """A condition as `self.flag`, or a comparison of stored arguments."""
        column = {e: bool(v) for e, v in self.scope.column(condition).items()}
        alike, value = constant_of(column)
        if alike and not self.scope.structural(condition):
            return build.literal(value)
        word = condition.id if isinstance(condition, nodes.Name) else flag
        tree = self._init_condition(condition, column, word)
        if isinstance(tree, ast.Compare) and all(isinstance(p, ast.Name | ast.Constant) for p in [tree.left, *tree.comparators]):
            left, right = (
                self.scope.store(part.id, part) if isinstance(part, ast.Name) else part
                for part in (tree.left, tree.comparators[0])
            )
            return ast.Compare(left, tree.ops, [right])
        return self.scope.store(word, tree)

    def _flag_word(self, parts: Iterable[nodes.Node]) -> str:
        for part in parts:
            for node in nodes.descend(part):
                if isinstance(node, nodes.Binary) and node.op == "+":
                    if any(isinstance(side, nodes.Name) and side.id == "input" for side in (node.left, node.right)):
                        return "residual"
        return "active"

    # if

    def _if(self, statement: nodes.If) -> None:
        column = {e: v for e, v in self.ran.get(statement, {}).items() if self.scope.matches(e[1])}
        if not column:
            return
        bodies = [body for _, body in statement.branches] + ([statement.otherwise] if statement.otherwise else [])
        alike, taken = constant_of(column)
        if alike:
            if taken >= 0:
                self.run(bodies[taken])
            return
        taken_values = set(column.values())
        flag = self._flag_word(body for number, body in enumerate(bodies) if number in taken_values)
        chain: list[tuple[ast.expr | None, ast.expr | None, nodes.Body, Column]] = []
        for number, (condition, body) in enumerate(statement.branches):
            if number not in taken_values:
                continue
            reached = {e: v == number for e, v in column.items() if v == -1 or v >= number}
            tree = self._init_condition(condition, reached, flag)
            if isinstance(tree, ast.Compare) and all(
                isinstance(p, ast.Name | ast.Constant) for p in [tree.left, *tree.comparators]
            ) and len(statement.branches) > 1:
                stored = self.stored_condition_tree(tree)
            else:
                word = condition.id if isinstance(condition, nodes.Name) else flag
                stored = self.scope.store(word, tree)
            chain.append((tree, stored, body, reached))
        if statement.otherwise is not None and len(statement.branches) in taken_values:
            chain.append((None, None, statement.otherwise, {}))
        self._if_chain(chain, column, bodies)

    def stored_condition_tree(self, tree: ast.Compare) -> ast.expr:
        left, right = (
            self.scope.store(part.id, part) if isinstance(part, ast.Name) else part
            for part in (tree.left, tree.comparators[0])
        )
        return ast.Compare(left, tree.ops, [right])

    def _if_chain(self, chain: list[Any], column: Column, bodies: list[nodes.Body]) -> None:
        before, changed = self.current, self.changed
        forward: list[tuple[ast.expr | None, list[ast.stmt]]] = []
        inits: list[tuple[ast.expr | None, list[ast.stmt]]] = []
        endings: list[Text] = []
        outer_init = self.scope.init
        shared: list[ast.stmt] = []
        for tree, stored, body, _ in chain:
            number = bodies.index(body)
            chosen = {entry for entry, value in column.items() if value == number}
            self.current, self.changed = before, changed
            self.scope.init = []
            sub = self._restricted(chosen)
            try:
                statements = self.nested(lambda body=body: self.run(body))
            finally:
                self._unrestrict(sub)
            loose = [statement for statement in self.scope.init if not _has_parameters(statement)]
            shared += loose
            self.scope.init = [statement for statement in self.scope.init if statement not in loose]
            weighty = bool(self.scope.init)
            if weighty or len(chain) > 1:
                inits.append((tree if isinstance(stored, ast.Compare) else stored, self.scope.init))
            else:
                shared += self.scope.init
                inits.append((stored, []))
            forward.append((stored, statements))
            endings.append(self.current)
        self.scope.init = outer_init
        self.scope.init += shared
        init = _chain_of([(test, body) for test, body in inits if body])
        if init is not None:
            self.scope.init.append(init)
        built = _chain_of(forward)
        assert built is not None
        self.emit(built)
        if statement_missing_else(chain):
            endings.append(before)
        first = endings[0]
        channels = first.channels
        for ending in endings[1:]:
            if ending.channels is None or channels is None or dump(_force(ending.channels)) != dump(_force(channels)):
                channels = None
        self.changed = True
        self.current = Text(first.tree, channels, first.is_list)

    def _restricted(self, chosen: set[Entry]) -> Any:
        """Narrow the view to the entries that took a branch."""
        instances = {instance for instance, _ in chosen}
        saved = (self.applied, self.ran, self.scope.values, self.scope._structural)
        self.applied = {s: {e: a for e, a in apps.items() if e[0] in instances} for s, apps in self.applied.items()}
        self.ran = {s: {e: a for e, a in apps.items() if e[0] in instances} for s, apps in self.ran.items()}
        self.scope.values = {
            n: column
            for n, c in self.scope.values.items()
            if (column := {e: v for e, v in c.items() if e[0] in instances})
        }
        return saved

    def _unrestrict(self, saved: Any) -> None:
        self.applied, self.ran, self.scope.values, self.scope._structural = saved

    # Bindings, loops and the rest

    def _bind(self, statement: nodes.Bind) -> None:
        if isinstance(statement.value, nodes.For):
            self._bound_loop(statement)
            return
        column = self.scope.column(statement.value)
        if not column:
            return
        value = next(iter(column.values()))
        if isinstance(value, Taps):
            self._bind_taps(statement, value)
            return
        if not _is_tensor(value):
            return  # numbers and layers are translated where they are used
        text = self.value(statement.value)
        if len(statement.targets) > 1:
            targets = [name(self.variable(t.id)) for t in statement.targets]
            for target, tree in zip(statement.targets, targets, strict=True):
                self.names[target.id] = Text(tree)
            self.emit(build.assign(ast.Tuple(list(targets), ast.Load()), text.tree))
            return
        target = statement.targets[0]
        if target.id == "_":
            return
        variable = self.variable(target.id)
        if isinstance(text.tree, ast.Name) and text.tree.id not in ("x", "xs"):
            self.names[target.id] = text
            return
        self.emit(build.assign(variable, text.tree))
        self.names[target.id] = Text(name(variable), text.channels, isinstance(value, tuple))

    def _bind_taps(self, statement: nodes.Bind, taps: Taps) -> None:
        text = self.value(statement.value)  # type: ignore[arg-type]
        pipe = statement.value
        assert isinstance(pipe, nodes.Pipe)
        application = next(iter(self.everywhere(pipe.steps[-1]).values()))
        assert application.child is not None
        used = self.planner.taps_of(application.child)
        targets: list[ast.expr] = []
        for tap, _ in used:
            variable = self.variable(tap.replace(".", ""))
            targets.append(name(variable))
            self.names[f"{statement.targets[0].id}.{tap}"] = Text(name(variable))
        target = targets[0] if len(targets) == 1 else ast.Tuple(targets, ast.Load())
        self.emit(build.assign(target, text.tree))

    def _for(self, statement: nodes.For, collect: str | None = None) -> None:
        column = self.scope.column(statement.iterable)
        if not column:
            return
        state = self._snapshot()
        try:
            self._symbolic_for(statement, column, collect)
            return
        except Untranslatable:
            self._restore(state)
        counts = {e: len(v) for e, v in column.items()}
        alike, count = constant_of(counts)
        if not alike:
            raise Split({e[0]: v for e, v in counts.items()})
        for index in range(count):
            self.scope.loops.append(Loop(statement, index, dict.fromkeys(_target_names(statement), ast.Constant(index))))
            outer = dict(self.names)
            self._name_elements(statement, index)
            self.run(statement.body)
            self.names = {k: v for k, v in self.names.items() if k in outer or k.startswith("yield:")}
            self.scope.loops.pop()

    def _name_elements(self, statement: nodes.For | nodes.Comprehension, index: int) -> None:
        """The loop's tensor variables at one fixed index."""
        for target, source in self._sources(statement):
            if source is None:
                continue
            kind, node = source
            if kind == "tensor":
                text = self.value(node)
                place: ast.expr = ast.Constant(index)
                tree = text.tree
                if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Slice) and _reversed(tree.slice):
                    tree, place = tree.value, build.constant(-1 - index)
                self.names[target.id] = Text(ast.Subscript(tree, place, ast.Load()))

    def _sources(self, statement: nodes.For | nodes.Comprehension) -> list[tuple[nodes.Identifier, Any]]:
        """For each target of a loop where its elements come from: ("tensor", list), ("number", list or None), ("index", n)."""
        iterable = statement.iterable
        targets = statement.targets
        name_of = iterable.function.id if isinstance(iterable, nodes.Call) and isinstance(iterable.function, nodes.Name) else ""

        def classify(target: nodes.Identifier, node: nodes.Expr) -> Any:
            column = self.scope.values.get(target, {})
            value = next(iter(column.values()), None)
            return ("tensor", node) if _is_tensor(value) else ("number", node)

        if name_of == "enumerate" and len(targets) == 2:
            assert isinstance(iterable, nodes.Call)
            return [(targets[0], ("index", iterable.arguments[0].value)), (targets[1], classify(targets[1], iterable.arguments[0].value))]
        if name_of == "zip":
            assert isinstance(iterable, nodes.Call)
            if len(iterable.arguments) == len(targets):
                return [(t, classify(t, a.value)) for t, a in zip(targets, iterable.arguments, strict=True)]
        if isinstance(iterable, nodes.Range) and len(targets) == 1:
            return [(targets[0], ("range", iterable))]
        if len(targets) == 1:
            return [(targets[0], classify(targets[0], iterable))]
        raise Untranslatable(iterable.span.text)

    def _symbolic_for(self, statement: nodes.For, column: Column, collect: str | None) -> None:
        counts = {e: len(v) for e, v in column.items()}
        if any(count == 0 for count in counts.values()):
            raise Untranslatable("an empty loop")
        if max(counts.values()) == 1:
            raise Untranslatable("a loop that runs once")
        loop = Loop(statement, None)
        items: list[tuple[ast.expr, ast.expr]] = []
        outer = dict(self.names)
        for target, source in self._sources(statement):
            kind, node = source
            loop.names[target.id] = name(self.variable(target.id))
            if kind == "tensor":
                self.names[target.id] = Text(name(self.variable(target.id)))
                items.append((name(self.variable(target.id)), self.value(node).tree))
        index = self._index_name(statement)
        self.scope.loops.append(loop)
        self.loop_modules.append({})
        self.loop_used.append(set())
        before = self.current
        try:
            body = self.nested(lambda: self.run(statement.body))
            used = self.loop_used[-1]
            modules = self.loop_modules[-1]
        finally:
            self.scope.loops.pop()
            self.loop_modules.pop()
            self.loop_used.pop()
        self.names = {k: v for k, v in self.names.items() if k in outer}
        self.current = Text(self.current.tree, None if self.changed else before.channels, self.current.is_list)
        loop_numbers = {t.id for t, s in self._sources(statement) if s[0] in ("number",)}
        if used & loop_numbers:
            raise Untranslatable("a number of the loop in forward")
        read = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)}
        items = [(target, source) for target, source in items if target.id in read]  # type: ignore[attr-defined]
        pairs = [(name(variable), source) for variable, source in modules.values()] + items
        self.emit(self._for_statement(statement, pairs, index if index in used else None, body, counts))

    def _index_name(self, statement: nodes.For | nodes.Comprehension) -> str:
        for target, source in self._sources(statement):
            if source[0] in ("index", "range"):
                return self.variable(target.id)
        return ""

    def _header(
        self, statement: nodes.For | nodes.Comprehension, pairs: list[Any], index: str | None, counts: Column
    ) -> tuple[ast.expr, ast.expr]:
        """The target and iterable of a Python loop over modules and tensors."""
        start = 0
        for _, source in self._sources(statement):
            if source[0] == "range":
                column = self.scope.column(source[1])
                starts = {e: v[0] for e, v in column.items()}
                alike, start = constant_of(starts)
                if not alike:
                    raise Untranslatable("a range that starts anywhere")
        if not pairs:
            alike, count = constant_of(counts)
            if not alike:
                raise Untranslatable("a count that is not known")
            ends = [ast.Constant(start), ast.Constant(start + count)] if start else [ast.Constant(count)]
            return name(index or "_"), call("range", *ends)
        targets, sources = [p[0] for p in pairs], [p[1] for p in pairs]
        target = targets[0] if len(targets) == 1 else ast.Tuple(list(targets), ast.Load())
        source = sources[0] if len(sources) == 1 else call("zip", *sources)
        if index is not None:
            target = ast.Tuple([name(index), target], ast.Load())
            source = call("enumerate", source, **({"start": ast.Constant(start)} if start else {}))
        return target, source

    def _for_statement(
        self, statement: nodes.For, pairs: list[Any], index: str | None, body: list[ast.stmt], counts: Column
    ) -> ast.stmt:
        target, source = self._header(statement, pairs, index, counts)
        return ast.For(_store(target), source, body, [], lineno=0)

    def _bound_loop(self, statement: nodes.Bind) -> None:
        assert isinstance(statement.value, nodes.For)
        variable = self.variable(statement.targets[0].id)
        self.emit(build.assign(variable, ast.List([], ast.Load())))
        outer = self.collecting
        self.collecting = variable
        self._for(statement.value)
        self.collecting = outer
        self.names[statement.targets[0].id] = Text(name(variable), None, True)

    def _yield(self, statement: nodes.Yield) -> None:
        value = self.current if statement.value is None else self.value(statement.value)
        assert self.collecting is not None
        self.emit(ast.Expr(call(attribute(name(self.collecting), "append"), value.tree)))

    def _param(self, statement: nodes.Param) -> None:
        column = self.scope.values.get(statement, {})
        if not column:
            return
        shapes = self.scope.column(statement.shape)
        if isinstance(statement.shape, nodes.List):
            sizes: list[ast.expr] = []
            for position, item in enumerate(statement.shape.items):
                part = {e: v[position] for e, v in shapes.items()}
                sizes.append(self.scope.express("size", part, item))
        else:
            sizes = list(map(build.literal, next(iter(shapes.values()))))
        tree = operators.parameter(sizes, self._initial(statement))
        self.scope.init.append(build.assign("self." + statement.name.id, tree))
        self.names[statement.name.id] = Text(own(statement.name.id))

    def _initial(self, statement: nodes.Param) -> Any:
        instance = self.instances[0]
        return next(iter(self.scope.column(statement.init).values())) if statement.init is not None else 0

    def _default(self, statement: nodes.Default) -> None:
        pass

    def _prepare(self, statement: nodes.Prepare) -> None:
        pass

    def _require(self, statement: nodes.Require) -> None:
        pass

    def _output(self, statement: nodes.Output) -> None:
        if statement.training:
            assert statement.value is not None
            body = self.nested_training(statement)
            self.emit(ast.If(own("training"), body, []))
            self.outputs.append((statement.name.id, name(self.variable(statement.name.id)), True))
            return
        text = self.current if statement.value is None else self.value(statement.value)
        if statement.value is None:
            last = self.node.body.statements[-1] is statement  # type: ignore[union-attr]
            if last and not self.outputs:
                self.outputs.append((statement.name.id, text.tree, False))
                return
        variable = self.variable(statement.name.id)
        self.emit(build.assign(variable, text.tree))
        self.outputs.append((statement.name.id, name(variable), False))

    def nested_training(self, statement: nodes.Output) -> list[ast.stmt]:
        outer, self.statements = self.statements, []
        assert statement.value is not None
        text = self.value(statement.value)
        self.emit(build.assign(self.variable(statement.name.id), text.tree))
        inner, self.statements = self.statements, outer
        return inner

    # Snapshots for a trial

    def _snapshot(self) -> Any:
        return (
            self.scope.snapshot(), dict(self.names), list(self.statements), dict(self.attached), dict(self.containers),
            self.current, self.changed, list(self.outputs), self.shortcut, list(self.scope.loops), dict(self.repeated),
            list(self.loop_modules), list(self.loop_used), self.collecting,
        )

    def _restore(self, state: Any) -> None:
        self.scope.restore(state[0])
        (
            _, self.names, self.statements, self.attached, self.containers, self.current, self.changed, self.outputs,
            self.shortcut, self.scope.loops, self.repeated, self.loop_modules, self.loop_used, self.collecting,
        ) = state


class _Lazy(ast.expr):
    """Channels of the input: an argument only if something asks."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make


def _force(tree: ast.expr | None) -> ast.expr:
    if isinstance(tree, _Lazy):
        forced: ast.expr = tree.make()
        return forced
    assert tree is not None
    return tree


def dump(tree: ast.AST) -> str:
    return "input" if isinstance(tree, _Lazy) else ast.dump(tree)


def _store(tree: ast.expr) -> ast.expr:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Tuple):
            node.ctx = ast.Store()
    return tree


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, tuple) and bool(value) and all(_is_tensor(v) for v in value))


def _target_names(statement: nodes.For | nodes.Comprehension) -> list[str]:
    return [target.id for target in statement.targets]


def _reversed(part: ast.Slice) -> bool:
    return isinstance(part.step, ast.UnaryOp)


_LOOSE = {text.removeprefix("nn.") for text in operators.ACTIVATIONS.values()} | {"Dropout"}


def _has_parameters(statement: ast.stmt) -> bool:
    """Whether an `__init__` statement makes more than a parameter-free module, which may stand outside of conditions."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.Call):
        return True
    if isinstance(value.func, ast.Attribute):
        return value.func.attr not in _LOOSE
    return isinstance(value.func, ast.Name) and value.func.id not in ("DropPath", "StochasticDepth", "act", "gate")


def _chain_of(parts: list[tuple[ast.expr | None, list[ast.stmt]]]) -> ast.stmt | None:
    """if / elif / else."""
    built: list[ast.stmt] = []
    for test, body in reversed(parts):
        built = body if test is None else [ast.If(test, body, built)]
    return built[0] if built else None


def statement_missing_else(chain: list[Any]) -> bool:
    return chain[-1][0] is not None
