"""Repeated lines: `nn.Sequential` of what `x N` made."""

from __future__ import annotations

import ast

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name, own
from effspec.backends.torch.plan.applications import word_of
from effspec.backends.torch.plan.body import Applications, Text
from effspec.backends.torch.plan.columns import Column, Split, Untranslatable, constant_of
from effspec.backends.torch.plan.containers import Containers

from effspec.layers import Tensor
from effspec.syntax import nodes

# Fewer rows than these are written out.
_FEW = 3


class Repeats(Containers):
    """`Containers` with repeated lines."""

    def repeated(self, line: nodes.Line, source: Text, everywhere: Applications, condition: ast.expr | None) -> Text:
        """The value of a repeated line."""
        here = self.here(line)
        if line.label is not None and line.label.indices:
            reference = self.indexed(line, line.label, source, everywhere, condition)
        else:
            tree = self.sequential(line, source, everywhere if not self.in_fixed_loop else here)
            if condition is not None:
                tree = ast.IfExp(condition, tree, call("nn.Identity"))
            reference = own(self.declare(word_of(here), tree, self.shape_comment(here)))
        output = here[max(here, key=lambda entry: entry[1])].output
        if self.scope.is_model and isinstance(output, Tensor):
            channels: ast.expr | None = build.literal(output.type.shape[0])
        else:
            channels = self.result_channels(source, here)
        return Text(call(reference, source.tree), channels, isinstance(output, tuple))

    def sequential(self, line: nodes.Line, source: Text, entries: Applications) -> ast.expr:
        first = {e: a for e, a in entries.items() if e[1][-1] == 0}
        rest = {e: a for e, a in entries.items() if e[1][-1] > 0}
        head = self.constructor(line, source, first)
        if not rest:
            return self.once(head)
        counts: Column = {(instance, iteration[:-1]): 0 for instance, iteration in first}
        for instance, iteration in entries:
            counts[instance, iteration[:-1]] += 1
        same, count = constant_of(counts)
        carried = Text(source.tree, self.made or source.channels)
        state = self.snapshot()
        try:
            tail = self.constructor(line, carried, rest)
        except (Untranslatable, Split):
            if not (same and (self.scope.is_model or self.scope.literal)):
                raise
            self.restore(state)
            return self._written_out(line, source, entries, count)
        repeats = line.repeats.value if line.repeats is not None else None
        if same and (self.scope.is_model or not self.scope.structural(repeats)):
            number, fewer = build.constant(count), build.constant(count - 1)
        else:
            number = self.scope.express("repeats", counts, repeats)
            fewer = ast.BinOp(number, ast.Sub(), ast.Constant(1))
        if build.dump(head) == build.dump(tail):
            return self.alike(head, number)
        if repeats is not None and 0 in self.scope.column(repeats).values():
            raise Untranslatable("sometimes none")
        return self.first_and_rest(head, tail, fewer)

    def once(self, head: ast.expr) -> ast.expr:
        """`x 1`."""
        return call("nn.Sequential", head)

    def alike(self, element: ast.expr, number: ast.expr) -> ast.expr:
        """Repeats that are all made alike."""
        return call("nn.Sequential", _starred(element, number))

    def first_and_rest(self, head: ast.expr, tail: ast.expr, fewer: ast.expr) -> ast.expr:
        """Repeats of which the first one differs."""
        if isinstance(fewer, ast.Constant) and fewer.value == 1:
            return call("nn.Sequential", head, tail)
        return call("nn.Sequential", head, _starred(tail, fewer))

    def _written_out(self, line: nodes.Line, source: Text, entries: Applications, count: int) -> ast.expr:
        rows = []
        carried = source
        for repeat in range(count):
            part = {e: a for e, a in entries.items() if e[1][-1] == repeat}
            rows.append(self.constructor(line, carried, part))
            carried = Text(source.tree, self.made or source.channels)
        growing = progression(rows)
        if growing is not None:
            turns = call("range", ast.Constant(count))
            return call("nn.Sequential", ast.Starred(build.comprehension(growing, name("i"), turns), ast.Load()))
        return call("nn.Sequential", *rows)


def progression(rows: list[ast.expr]) -> ast.Call | None:
    """Calls as one call with a text of `i`, where they differ in whole numbers that grow evenly; None elsewhere."""
    calls = [row for row in rows if isinstance(row, ast.Call)]
    forms = {(build.dump(c.func), len(c.args), tuple(k.arg for k in c.keywords)) for c in calls}
    if len(calls) < max(len(rows), _FEW) or len(forms) > 1:
        return None
    columns = zip(*[[*call.args, *[keyword.value for keyword in call.keywords]] for call in calls], strict=True)
    grown = [tree for column in columns if (tree := _growing(column)) is not None]
    first, count = calls[0], len(calls[0].args)
    if len(grown) < count + len(first.keywords):
        return None
    keywords = [ast.keyword(k.arg, tree) for k, tree in zip(first.keywords, grown[count:], strict=True)]
    return ast.Call(first.func, grown[:count], keywords)


def _growing(column: tuple[ast.expr, ...]) -> ast.expr | None:
    """`64 + 32 * i` for 64, 96, 128 ...; the expression itself where it stays."""
    if len(set(map(build.dump, column))) == 1:
        return column[0]
    values = [tree.value for tree in column if isinstance(tree, ast.Constant) and type(tree.value) is int]
    start, step = values[0] if values else 0, values[1] - values[0] if len(values) > 1 else 0
    if step <= 0 or values != [start + step * i for i in range(len(column))]:
        return None
    turns = name("i") if step == 1 else build.binary("*", ast.Constant(step), name("i"))
    return build.binary("+", ast.Constant(start), turns) if start else turns


def _starred(element: ast.expr, count: ast.expr) -> ast.expr:
    return ast.Starred(build.comprehension(element, name("_"), call("range", count)), ast.Load())
