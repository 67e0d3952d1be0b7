"""Guards and `if`: a condition in `__init__`, and the same one in forward."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import name
from effspec.backends.torch.plan.body import Body, Text, alike, meet
from effspec.backends.torch.plan.columns import Column, Untranslatable, constant_of

from effspec.syntax import nodes

_LOOSE = {text.removeprefix("nn.") for text in operators.ACTIVATIONS.values()} | {"Dropout"}
_FUNCTIONS = {"len", "range", "round"}


@dataclass(eq=False)
class _Branch:
    """A branch that some instance takes: its test in `__init__` and in forward (None for `else`), and what is in it.

    What differs from turn to turn of a loop has a test in forward only.
    """

    number: int
    body: nodes.Body
    test: ast.expr | None
    stored: ast.expr | None
    init: list[ast.stmt] = field(default_factory=list)
    forward: list[ast.stmt] = field(default_factory=list)


class Conditions(Body):
    """`Body` with conditions."""

    def init_condition(self, guard: nodes.Expr, reached: Column, flag: str) -> ast.expr:
        """A guard in `__init__`; where it has no text, a flag that the caller gives."""
        column: Column = {e: bool(v) for e, v in reached.items()}
        state = self.scope.snapshot()
        try:
            tree = self.scope.translate(guard)
            if self.scope.holds(tree, column):
                return tree
        except Untranslatable:
            pass
        self.scope.restore(state)
        return self.scope.promote(flag, column)

    def condition(self, guard: nodes.Expr, reached: Column) -> ast.expr:
        """A guard in forward."""
        if not self.scope.reads_loop(guard):
            return self.stored_condition(guard, "active")
        return self._loop_condition(guard, reached)

    def _loop_condition(self, condition: nodes.Expr, values: Column) -> ast.expr:
        """A condition in forward that differs from turn to turn of a loop."""
        tree = self.scope.translate(condition)
        if not self.scope.holds(tree, {e: bool(v) for e, v in values.items()}):
            raise Untranslatable(condition.span.text)
        return self.to_forward(tree, "active")

    def to_forward(self, tree: ast.expr, word: str) -> ast.expr:
        """An `__init__` expression where forward can read it: loop variables stay, arguments become attributes."""
        free = build.free_names(tree) - _FUNCTIONS
        loops = {variable.id for variable in self.scope.loop_variables()}
        here = loops | self.lengths
        if not free & here:
            return self.scope.store(word, tree)
        for used in self.loop_used:
            used |= free & loops
        return build.substitute(tree, {w: self.scope.store(w, name(w)) for w in free - here})

    def stored_condition(self, condition: nodes.Expr, flag: str) -> ast.expr:
        """A condition as `self.flag`, or a comparison of stored arguments; in terms of a loop where it reads one."""
        if self.scope.reads_loop(condition):
            return self._loop_condition(condition, self.scope.column(condition))
        column: Column = {e: bool(v) for e, v in self.scope.column(condition).items()}
        same, value = constant_of(column)
        if same and not self.scope.structural(condition):
            return build.literal(value)
        word = condition.id if isinstance(condition, nodes.Name) else flag
        tree = self.init_condition(condition, column, word)
        return self._stored_comparison(tree) or self.scope.store(word, tree)

    def _stored_comparison(self, tree: ast.expr) -> ast.expr | None:
        """A comparison of two names or numbers, with the names stored."""
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
            return None
        left, right = tree.left, tree.comparators[0]
        if not (isinstance(left, ast.Name | ast.Constant) and isinstance(right, ast.Name | ast.Constant)):
            return None
        return ast.Compare(self.scope.store("", left), tree.ops, [self.scope.store("", right)])

    def init_test(self, condition: nodes.Expr, column: Column, negated: bool) -> ast.expr | None:
        """The condition in `__init__`, under which a side's modules exist."""
        if self.in_symbolic_loop:
            return None
        tree = self.init_condition(condition, column, "active")
        return ast.UnaryOp(ast.Not(), tree) if negated else tree

    def flag_word(self, parts: Iterable[nodes.Node]) -> str:
        """What a flag is called: `residual` where it decides whether the input is added."""
        sums = [n for part in parts for n in nodes.descend(part) if isinstance(n, nodes.Binary) and n.op == "+"]
        added = [side.id for node in sums for side in (node.left, node.right) if isinstance(side, nodes.Name)]
        return "residual" if "input" in added else "active"

    # if

    def translate_if(self, statement: nodes.If) -> None:
        """An `if`: the branch that all instances take, or an `if` in `__init__` and in forward."""
        column = self.reached(statement)
        if not column:
            return
        bodies = [body for _, body in statement.branches] + ([statement.otherwise] if statement.otherwise else [])
        same, taken = constant_of(column)
        if same:
            if taken >= 0:
                self.run(bodies[taken])
            return
        taken_by_some = set(column.values())
        flag = self.flag_word(body for number, body in enumerate(bodies) if number in taken_by_some)
        chain: list[_Branch] = []
        for number, (condition, body) in enumerate(statement.branches):
            if number in taken_by_some:
                reached = {e: v == number for e, v in column.items() if v == -1 or v >= number}
                if self.scope.reads_loop(condition):
                    chain.append(_Branch(number, body, None, self._loop_condition(condition, reached)))
                    continue
                test = self.init_condition(condition, reached, flag)
                word = condition.id if isinstance(condition, nodes.Name) else flag
                stored = self._stored_comparison(test) if len(statement.branches) > 1 else None
                chain.append(_Branch(number, body, test, stored or self.scope.store(word, test)))
        if statement.otherwise is not None and len(statement.branches) in taken_by_some:
            chain.append(_Branch(len(statement.branches), statement.otherwise, None, None))
        self._if_chain(chain, column)

    def _if_chain(self, chain: list[_Branch], column: Column) -> None:
        before, changed = self.current, self.changed
        outer_init, attached, rows, outer_names = self.scope.init, self.attached, self.rows, self.names
        shared: list[ast.stmt] = []
        endings: list[Text] = []
        made_there: dict[str, str] = {}
        for branch in chain:
            self.current, self.changed = before, changed
            # What one branch names and makes the other branches may name and make anew.
            self.scope.init, self.attached, self.names = [], dict(attached), dict(outer_names)
            self.rows = dict(rows)
            with self.only({entry for entry, number in column.items() if number == branch.number}):
                branch.forward = self.apart(lambda body=branch.body: self.run(body))  # type: ignore[misc]
            for statement in self.scope.init:
                apart = _has_parameters(statement) and not self._bound_outside(statement, branch.body)
                (branch.init if apart else shared).append(statement)
            endings.append(self.current)
            made_there |= self.attached
        self.attached, self.names, self.rows = made_there, outer_names, rows
        self.scope.init = [*outer_init, *shared]
        if any(branch.init and branch.test is None and branch.stored is not None for branch in chain):
            raise Untranslatable("modules of some turns of a loop")
        made = [(b.test if isinstance(b.stored, ast.Compare) else b.stored, b.init) for b in chain if b.init]
        self.scope.init += _chain_of(made)
        self.statements += _chain_of([(branch.stored, branch.forward) for branch in chain])
        if chain[-1].stored is not None:
            endings.append(before)
        meet(*endings)
        channels = endings[0].channels
        if not all(alike(channels, ending.channels) for ending in endings[1:]):
            channels = None
        self.changed = True
        self.current = Text(endings[0].tree, channels, endings[0].is_list)

    def _bound_outside(self, statement: ast.stmt, body: nodes.Body) -> bool:
        """Whether an `__init__` statement is a local that the spec binds outside this branch."""
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        binders = self.scope.binders.get(target.id, []) if isinstance(target, ast.Name) else []
        inside = set(nodes.descend(body))
        return any(bind not in inside for _, bind in binders)


def _has_parameters(statement: ast.stmt) -> bool:
    """Whether an `__init__` statement makes more than a parameter-free module, which needs no condition."""
    value = getattr(statement, "value", None)
    if not isinstance(value, ast.Call):
        return True
    if isinstance(value.func, ast.Attribute):
        return value.func.attr not in _LOOSE
    return isinstance(value.func, ast.Name) and value.func.id not in ("DropPath", "StochasticDepth", "act", "gate")


def _chain_of(parts: list[tuple[ast.expr | None, list[ast.stmt]]]) -> list[ast.stmt]:
    """if / elif / else."""
    built: list[ast.stmt] = []
    for test, body in reversed(parts):
        built = body if test is None else [ast.If(test, body, built)]
    return built
