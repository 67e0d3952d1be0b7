"""A layer applied at a place: a call of its module, or a functional operator in forward."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import groupby

from effspec.backends.torch import build, operators
from effspec.backends.torch.build import call, name, own
from effspec.backends.torch.functionals import Use, functional
from effspec.backends.torch.plan.applications import (
    compact,
    input_type,
    kind_of,
    label_of,
    op_of,
    owns_parameters,
    width_of,
    word_of,
)
from effspec.backends.torch.plan.body import Applications, Text, common, force
from effspec.backends.torch.plan.columns import Column, Split, Untranslatable, constant_of
from effspec.backends.torch.plan.modules import WORDS
from effspec.backends.torch.plan.sizes import Sizes, reads_tensor

from effspec.layers import Tensor
from effspec.syntax import nodes


class Applied(Sizes):
    """`Sizes` with the application of layers."""

    def apply(self, site: nodes.Line | nodes.Step, source: Text, condition: ast.expr | None) -> Text:
        """The value of a layer at a place; under a `condition` of `__init__` its module is optional."""
        here = self.here(site)
        if self.in_symbolic_loop and self.is_partly_needed(site):
            raise Untranslatable("a loop that is needed for some of its turns alone")
        there = {entry: a for entry, a in here.items() if kind_of(a) != "identity"}
        if not there:
            return source
        if len(there) < len(here) and condition is None:
            # The layer is sometimes `identity`: an argument, named as the label, says whether it is there.
            present: Column = {entry: entry in there for entry in here}
            condition = self.scope.promote(word_of(there), present, default=True)
            here = there
        everywhere = {entry: a for entry, a in self.everywhere(site).items() if kind_of(a) != "identity"}
        first = next(iter(here.values()))
        if self._never_drops(everywhere):
            return source
        if condition is None and self.inherited and self.is_module(site, here):
            condition = self.inherited[-1]
        if all(a.layer.inner is not None for a in here.values()) or self._is_each(site, here):
            return self._each(site, source, here, everywhere)
        if isinstance(site, nodes.Line) and site.repeats is not None:
            return self.repeated(site, source, everywhere, condition)
        if first.child is None and not self.is_module(site, here):
            return self._functional(source, here, condition)
        label = label_of(site)
        if label is not None and label.indices:
            reference = self.indexed(site, label, source, everywhere, condition)
        else:
            reference = own(self.attach(site, source, everywhere if not self.in_fixed_loop else here, condition))
        is_list = isinstance(first.output, tuple)
        return Text(call(reference, source.tree), self.result_channels(source, here), is_list)

    def _never_drops(self, entries: Applications) -> bool:
        """Whether these are `dropout` or `drop_path` with a rate that is 0 and that nobody can set."""
        if any(a.attributes.get("rate") != 0 for a in entries.values()):
            return False
        state = self.snapshot()
        rate = self.attributes(entries)["rate"]
        self.restore(state)
        return isinstance(rate, ast.Constant)

    def _is_each(self, site: nodes.Line | nodes.Step, here: Applications) -> bool:
        repeats = int(isinstance(site, nodes.Line) and site.repeats is not None)
        return any(len(iteration) > len(self.scope.loops) + repeats for _, iteration in here)

    def _each(self, site: nodes.Line | nodes.Step, source: Text, here: Applications, everywhere: Applications) -> Text:
        """One module for every element of a list."""
        inner = {entry: a for entry, a in here.items() if a.layer.inner is None}
        once = {entry: a for entry, a in everywhere.items() if a.layer.inner is None and entry[1][-1] == 0}
        element, label = Text(name("x"), common(source)), label_of(site)
        if next(iter(inner.values())).child is None and not self.is_module(site, inner):
            tree = self._functional(element, inner, None).tree
        elif label is not None and label.indices:
            tree = call(self.indexed(site, label, element, once, None), element.tree)
        else:
            tree = call(own(self.attach(site, element, _named(site, once), None)), element.tree)
        return Text(build.comprehension(tree, name("x"), source.tree), None, True)

    # Functional operators

    def _functional(self, source: Text, here: Applications, condition: ast.expr | None) -> Text:
        kinds = {entry: kind_of(application) for entry, application in here.items()}
        if len(set(kinds.values())) > 1 or condition is not None:
            raise Split({instance: kind for (instance, _), kind in kinds.items()})
        first = next(iter(here.values()))
        op = op_of(first)
        if op in operators.WINDOWS:
            attributes = {
                word: tree if word == "same" else self.to_forward(tree, self._python_word(word))
                for word, tree in self.window(here).items()
            }
        else:
            scaled = op == "resize" and all(a.attributes["scale"] is not None for a in here.values())
            parts = self._parts(here) if op == "split" else {}
            absent = {"init", "size" if scaled else "", "sizes" if parts else ""}
            attributes = {word: self._attribute(word, here) for word in first.attributes if word not in absent} | parts
        if op == "flatten":
            source = self._take_back(source)
        inputs = len(first.input) if isinstance(first.input, tuple) else 1
        batched = int(input_type(first).batched)
        tree = functional(op, Use(source.tree, attributes, inputs, batched, self.planner.need))
        if not isinstance(first.output, Tensor):
            return Text(tree, self._part_widths(source, attributes), True)
        self.made = None
        channels = self.result_channels(source, here)
        return Text(tree, self._joined(here) if op == "concat" and channels is None else channels)

    def _joined(self, here: Applications) -> ast.expr | None:
        """The channels of a concatenation as a sum of widths that this class knows: `in_channels + 5 * mid`."""
        rows = {entry: [width_of(part) for part in a.input] for entry, a in here.items() if not a.attributes["axis"]}
        if self.scope.is_model or len(rows) < len(here) or len({len(row) for row in rows.values()}) > 1:
            return None
        columns = [dict(zip(rows, part, strict=True)) for part in zip(*rows.values(), strict=True)]
        if any(None in column.values() for column in columns) or all(constant_of(column)[0] for column in columns):
            return None
        terms: list[ast.expr] = []
        state = self.scope.snapshot()
        for column, run in groupby(columns):
            width, count = self.scope.width(column), len(list(run))
            if width is None:
                self.scope.restore(state)
                return None
            terms.append(width if count == 1 else build.binary("*", ast.Constant(count), width))
        return reduce(build.added, terms)

    def _parts(self, here: Applications) -> dict[str, ast.expr]:
        """Equal parts of a split: how many `chunks`, or the one of their `sizes` where the input list counts them."""
        sizes: Column = {entry: application.attributes["sizes"] for entry, application in here.items()}
        hint = self.hint("parts", here)
        counted = isinstance(hint, nodes.Comprehension) and self.scope.is_input_list(hint.iterable)
        same, count = constant_of({entry: len(found) for entry, found in sizes.items()})
        if same and not counted and all(len(set(found)) == 1 for found in sizes.values()):
            return {"chunks": ast.Constant(count)}
        found = {size for column in sizes.values() for size in column}
        return {"sizes": build.literal(found.pop())} if counted and len(found) == 1 else {}

    def _part_widths(self, source: Text, attributes: Mapping[str, ast.expr]) -> ast.expr | None:
        """The channels of each part of a split."""
        if not build.is_literal(attributes["axis"], 0):
            return None
        chunks = attributes.get("chunks")
        if chunks is None or source.channels is None:
            sizes = attributes.get("sizes")
            return None if isinstance(sizes, ast.Constant) else sizes
        part = build.binary("//", force(source.channels), chunks)
        return ast.List([part] * build.run(build.code(chunks), {}), ast.Load())

    def _python_word(self, attribute: str) -> str:
        return self.scope.python_name(WORDS.get(attribute, attribute))

    def _attribute(self, attribute: str, here: Applications) -> ast.expr:
        """An attribute of a functional operator: from the tensors at hand where the spec reads it off a tensor."""
        word = WORDS.get(attribute, attribute)
        hint = self.hint(word, here)
        if hint is not None and reads_tensor(hint, self.scope):
            tree = self.size(hint, self.scope.python_name(attribute))
            if tree is not None:
                return tree
        column: Column = {entry: compact(attribute, a.attributes[attribute]) for entry, a in here.items()}
        return self.to_forward(self.scope.express(word, column, hint), self.scope.python_name(attribute))

    def _take_back(self, source: Text) -> Text:
        """The value of the line before, where this line is all that reads it: `mean` then `flatten` is one `mean`."""
        last = self.statements[-1] if self.statements else None
        if isinstance(last, ast.Assign) and isinstance(last.value, ast.Call) and isinstance(source.tree, ast.Name):
            target, function = last.targets[0], last.value.func
            own_value = isinstance(target, ast.Name) and target.id == source.tree.id
            if own_value and isinstance(function, ast.Attribute) and function.attr in ("mean", "amax"):
                self.statements.pop()
                return Text(last.value, source.channels)
        return source


def _named(site: nodes.Line | nodes.Step, entries: Applications) -> Applications:
    """`each(act)` without a label: what holds no parameters is called `act`, as if it were applied by itself."""
    layer = site.value if isinstance(site, nodes.Line) else site.layer
    match layer:
        case nodes.Call(function=nodes.Name(id="each"), arguments=(argument,)) if site.label is None:
            inner = argument.value.function if isinstance(argument.value, nodes.Call) else argument.value
            if isinstance(inner, nodes.Name) and not any(map(owns_parameters, entries.values())):
                return {entry: replace(a, label=(inner.id, ())) for entry, a in entries.items()}
    return entries
