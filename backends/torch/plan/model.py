"""A model's class: rows with literal numbers, and the rates that a default gives to its blocks, drawn in order."""

from __future__ import annotations

import ast
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.build import call, name
from effspec.backends.torch.plan.arguments import Argument
from effspec.backends.torch.plan.body import Applications, Channels, Planner
from effspec.backends.torch.plan.columns import Untranslatable, constant_of
from effspec.backends.torch.plan.runtime import channels_of
from effspec.backends.torch.plan.scope import Scope
from effspec.backends.torch.plan.stage import Sequence, settle
from effspec.backends.torch.plan.statements import Translation

from effspec.layers import Application, Instance
from effspec.syntax import nodes
from effspec.values import is_number


class ModelTranslation(Translation):
    """The translation of the compiled model, or of a model used as a layer."""

    def __init__(self, scope: Scope, planner: Planner) -> None:
        super().__init__(scope, planner)
        self.sequences: list[Sequence] = []
        self.drawn: dict[nodes.DefaultEntry, str] = {}

    def snapshot(self) -> dict[str, Any]:
        return {**super().snapshot(), "sequences": list(self.sequences), "drawn": dict(self.drawn)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.sequences, self.drawn = state["sequences"], state["drawn"]

    def input_channels(self) -> Channels:
        first = channels_of(self.node.inputs[0]) if isinstance(self.node, nodes.Model) else None
        if isinstance(first, nodes.Name) and first.id in self.scope.runtime:
            return self.scope.demand(first.id)
        return super().input_channels()

    # Rates

    def draw(self, entry: nodes.DefaultEntry, argument: Argument, entries: Applications) -> ast.expr | None:
        """`next(drops)` for a default that is a formula of `at.block`, or the formula where not every block draws."""
        if self.scope.literal or not any(_is_at(part) and part.name.id == "block" for part in _attributes(entry)):
            return None
        if not self._reads_runtime(entry.value) and not self._is_rate(entry, argument, entries):
            return None
        order = self._block_order()
        drawing = self._drawing(entry, order)
        if drawing is None:
            blocks = {order.get(id(application.child)) for application in entries.values()}
            block = blocks.pop() if len(blocks) == 1 else None
            if block is None:
                raise Untranslatable("blocks that draw different rates")
            return build.substitute(self._formula(entry.value), {"i": ast.Constant(block)})
        if entry not in self.drawn:
            places = call("range", *[ast.Constant(place) for place in drawing])
            turns = ast.comprehension(build.store(name("i")), places, [], 0)
            word = argument.name + "s"
            rates = build.assign(word, ast.GeneratorExp(self._formula(entry.value), [turns]))
            self.scope.init.append(build.commented(rates, "stochastic depth, linear in the index of the block"))
            self.scope.real(rates.value)
            self.drawn[entry] = word
        return call("next", name(self.drawn[entry]))

    def _is_rate(self, entry: nodes.DefaultEntry, argument: Argument, entries: Applications) -> bool:
        """Whether a default gives rates, by a formula that Python can say; widths, say, are numbers in the rows."""
        values = [argument.column[a.child] for a in entries.values() if a.child is not None]
        if not all(is_number(value) and 0 <= value < 1 for value in values):
            return False
        try:
            self._formula(entry.value)
        except Untranslatable:
            return False
        return True

    def _made(self) -> list[Application]:
        """The blocks of all repeated lines, line by line, in the order in which `__init__` makes them."""
        lines = [site for site in self.applied if isinstance(site, nodes.Line) and site.repeats is not None]
        return [application for site in lines for application in self.applied[site].values()]

    def _block_order(self) -> dict[int, int]:
        """`at.block` of each repeated line's block: its place among all of them, as they were elaborated."""
        blocks = {id(application.child) for application in self._made()}
        repeated = [child for child in self.instances[0].children if id(child) in blocks]
        return {id(child): place for place, child in enumerate(repeated)}

    def _drawing(self, entry: nodes.DefaultEntry, order: dict[int, int]) -> tuple[int, ...] | None:
        """The arguments of `range` for the blocks that draw: one row of `at.block`, in which `__init__` makes them."""
        children = [application.child for application in self._made()]
        if [order.get(id(child)) for child in children] != list(range(len(children))):
            return None
        counts = [0 if child is None else self._draws(child, entry) for child in children]
        places = [place for place, count in enumerate(counts) if count]
        first, stop = places[0], places[-1] + 1
        if counts[first:stop] != [1] * len(places):
            return None
        return (first, stop) if first else (stop,)

    def _draws(self, block: Instance, entry: nodes.DefaultEntry) -> int:
        """How many arguments of a block's class the default gives; what no code of the block reads is none of them."""
        words = {argument.key for argument in self.planner.class_of(block).arguments}
        return sum(bound.node is entry for word, bound in block.arguments.items() if word in words)

    def _formula(self, node: nodes.Expr) -> ast.expr:
        """A default's expression with `i` for `at.block`."""
        if isinstance(node, nodes.Attribute) and _is_at(node) and node.name.id == "block":
            return name("i")
        if isinstance(node, nodes.Binary):
            left, right = self._formula(node.left), self._formula(node.right)
            if not (isinstance(left, ast.Constant) and isinstance(right, ast.Constant)):
                return build.binary(node.op, left, right)
        if isinstance(node, nodes.Name) and node.id in self.scope.runtime:
            return self.scope.demand(node.id)
        column = self.scope.values.get(node)
        same, value = constant_of(column) if column else (False, None)
        if not same:
            raise Untranslatable(node.span.text)
        return build.literal(value)

    # Repeats

    def once(self, head: ast.expr) -> ast.expr:
        return self._noted(super().once(head), head, None, build.constant(1))

    def alike(self, element: ast.expr, number: ast.expr) -> ast.expr:
        return self._noted(super().alike(element, number), element, element, number)

    def first_and_rest(self, head: ast.expr, tail: ast.expr, fewer: ast.expr) -> ast.expr:
        tree = super().first_and_rest(head, tail, fewer)
        more = fewer.value + 1 if isinstance(fewer, ast.Constant) and isinstance(fewer.value, int) else 0
        return self._noted(tree, head, tail, build.constant(more)) if more else tree

    def _noted(self, tree: ast.expr, head: ast.expr, tail: ast.expr | None, count: ast.expr) -> ast.expr:
        """The tree, noted as a line that the `stage` helper may make."""
        match tree, head, tail, count:
            case ast.Call(), ast.Call(), ast.Call() | None, ast.Constant(value=int(number)):
                self.sequences.append(Sequence(tree, head, tail, number))
        return tree

    def settle_repeats(self) -> None:
        """Print repeated lines through one `stage` helper where at least two of them fit it."""
        if self.planner.stage is None:
            self.planner.stage = settle(self.sequences, list(self.drawn.values()), self.planner)


def _attributes(entry: nodes.DefaultEntry) -> list[nodes.Attribute]:
    return [part for part in nodes.descend(entry.value) if isinstance(part, nodes.Attribute)]


def _is_at(node: nodes.Attribute) -> bool:
    return isinstance(node.value, nodes.Name) and node.value.id == "at"
