"""Counts a model's repeated lines without applying a layer: `at.blocks` is needed before the first of them runs."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

from effspec.diagnostics import EffspecError, Span
from effspec.frames import Frame, Scope
from effspec.statements import Statements
from effspec.syntax import nodes


class Counting(Statements):
    """`Statements` with the number of repeated lines of a model's body."""

    def counted_alone(self, body: nodes.Body, frame: Frame) -> int | None:
        """How often the body's lines with `x` run, groups, loops and branches included; None where tensors decide.

        A mistake also gives None: it is said where the line is run.
        """
        with suppress(EffspecError):
            return self._count(body, frame)
        return None

    def _count(self, body: nodes.Body, frame: Frame) -> int:
        return sum(self._count_statement(statement, frame) for statement in body.statements)

    def _count_inner(self, body: nodes.Body, frame: Frame) -> int:
        outer = frame.scope
        frame.scope = Scope(outer)
        try:
            return self._count(body, frame)
        finally:
            frame.scope = outer

    def _count_statement(self, statement: nodes.Statement, frame: Frame) -> int:
        match statement:
            case nodes.Bind(value=nodes.For() as loop):
                return self._count_loop(loop, frame)  # what it yields are tensors: its name stays unknown
            case nodes.Bind(value=value) if not isinstance(value, nodes.For) and not _needs_tensors(value):
                # An unknown name in it leaves this one unknown too: reading an unknown name is an error.
                with suppress(EffspecError):
                    self.bind(statement.targets, self.evaluate(value, frame), frame, statement.span)
                return 0
            case nodes.For():
                return self._count_loop(statement, frame)
            case _ if not _repeats(statement):
                return 0
            case nodes.If():
                for condition, body in statement.branches:
                    if self.boolean(self._told(condition), frame, "a condition"):
                        return self._count_inner(body, frame)
                return self._count_inner(statement.otherwise, frame) if statement.otherwise is not None else 0
            case nodes.Line():
                if statement.guard is not None and not self.boolean(self._told(statement.guard), frame, "a guard"):
                    return 0
                own = 0 if statement.repeats is None else self.repeats(statement.repeats, frame)
                if not isinstance(statement.value, nodes.Group):
                    self._told(statement.value, repeats=True)
                    return own
                times = 1 if statement.repeats is None else own
                return own + (times * self._count_inner(statement.value.body, frame) if times else 0)
        self.fail("E0210", "a tensor decides how many lines are repeated", statement.span)

    def _count_loop(self, loop: nodes.For, frame: Frame) -> int:
        if not _repeats(loop):
            return 0
        turns = self.iterate(loop.targets, self._told(loop.iterable), 1, frame)
        return sum(self._count(loop.body, frame) for _ in turns)

    def _told(self, expression: nodes.Expr, repeats: bool = False) -> nodes.Expr:
        """The expression, if numbers alone tell its value (or, with `repeats`, if no group in it repeats a line)."""
        if _repeats(expression) if repeats else _needs_tensors(expression):
            span: Span = expression.span
            self.fail("E0210", "a tensor decides how many lines are repeated", span)
        return expression


# Of trees, which are frozen: the same for every point of a model.
@lru_cache(1024)
def _needs_tensors(node: nodes.Node) -> bool:
    return any(
        isinstance(part, nodes.Pipe) or (isinstance(part, nodes.Name) and part.id in ("it", "input"))
        for part in nodes.descend(node)
    )


@lru_cache(1024)
def _repeats(node: nodes.Node) -> bool:
    return any(isinstance(part, nodes.Line) and part.repeats is not None for part in nodes.descend(node))
