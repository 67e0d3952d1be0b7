"""A model's class: rows with literal numbers, the drop rates drawn in order, and one `stage` helper for repeated lines."""

from __future__ import annotations

import ast
from typing import Any

from effspec.backends.torch import build
from effspec.backends.torch.body import Text, dump
from effspec.backends.torch.build import call, name
from effspec.backends.torch.modules import Translation
from effspec.backends.torch.scope import Argument, Column, Entry, Untranslatable
from effspec.layers import Application, Tensor
from effspec.syntax import nodes


class ModelTranslation(Translation):
    """The translation of the compiled model, or of a model used as a layer."""

    is_root = True
    draw_in_order = True

    def translate(self) -> None:
        self.sequences: list[tuple[ast.Call, ast.Call, ast.Call | None, int]] = []
        self.drawn: dict[nodes.DefaultEntry, str] = {}
        super().translate()

    def _input_channels(self) -> ast.expr | None:
        assert isinstance(self.node, nodes.Model)
        shape = self.node.inputs[0].shape
        if isinstance(shape, nodes.List) and isinstance(shape.items[0], nodes.Name) and shape.items[0].id in self.scope.runtime:
            return self.scope.demand(shape.items[0].id)
        return super()._input_channels()

    def draw(self, entry: nodes.DefaultEntry, column: Column, argument: Argument) -> ast.expr | None:
        """`next(drops)` for a default that is a formula of `at.block`."""
        reads = [p.name.id for p in nodes.descend(entry.value) if isinstance(p, nodes.Attribute) and _is_at(p)]
        if "block" not in reads or not self.draw_in_order:
            return None
        if entry not in self.drawn:
            word = argument.name + "s"
            values = self.scope.values.get(entry.value, {})
            if not values:
                return None
            tree = self._formula(entry.value)
            count = sum(1 for _ in values)
            total = self._total()
            if total is None:
                return None
            generator = ast.GeneratorExp(
                tree, [ast.comprehension(ast.Name("i", ast.Store()), call("range", ast.Constant(total)), [], 0)]
            )
            statement = build.assign(word, generator)
            statement.comment = "stochastic depth, linear in the index of the block"  # type: ignore[attr-defined]
            self.scope.init.append(statement)
            self.drawn[entry] = word
            del count
        return call("next", name(self.drawn[entry]))

    def _total(self) -> int | None:
        """The number of repeated lines, if each of them draws exactly one rate."""
        total = 0
        for site in self.applied:
            if isinstance(site, nodes.Line) and site.repeats is not None:
                total += len(self.applied[site])
        return total or None

    def _formula(self, node: nodes.Expr) -> ast.expr:
        """A default's expression with `i` for `at.block`."""
        if isinstance(node, nodes.Attribute) and _is_at(node):
            if node.name.id == "block":
                return name("i")
            value = next(iter(self.scope.values[node].values()))
            return build.literal(value)
        if isinstance(node, nodes.Binary):
            kinds: dict[str, ast.operator] = {
                "+": ast.Add(), "-": ast.Sub(), "*": ast.Mult(), "/": ast.Div(), "**": ast.Pow(),
            }
            if node.op not in kinds:
                raise Untranslatable(node.span.text)
            left, right = self._formula(node.left), self._formula(node.right)
            if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
                return build.literal(next(iter(self.scope.values[node].values())))
            return ast.BinOp(left, kinds[node.op], right)
        if isinstance(node, nodes.Name) and node.id in self.scope.runtime:
            return self.scope.demand(node.id)
        values = set(self.scope.values.get(node, {}).values())
        if len(values) == 1:
            return build.literal(values.pop())
        raise Untranslatable(node.span.text)

    # Repeats

    def _one(self, line: nodes.Line, head: ast.expr) -> ast.expr:
        tree = call("nn.Sequential", head)
        if isinstance(head, ast.Call):
            self.sequences.append((tree, head, None, 1))
        return tree

    def _stage(
        self, line: nodes.Line, head: ast.expr, tail: ast.expr, fewer: ast.expr, entries: dict[Entry, Application]
    ) -> ast.expr:
        tree = super()._stage(line, head, tail, fewer, entries)
        if isinstance(head, ast.Call) and isinstance(tail, ast.Call) and isinstance(fewer, ast.Constant):
            assert isinstance(tree, ast.Call)
            self.sequences.append((tree, head, tail, fewer.value + 1))
        return tree

    def _sequential(self, line: nodes.Line, source: Text, entries: dict[Entry, Application]) -> ast.expr:
        tree = super()._sequential(line, source, entries)
        if isinstance(tree, ast.Call) and tree.args and isinstance(tree.args[0], ast.Starred):
            part = tree.args[0].value
            if isinstance(part, ast.ListComp) and isinstance(part.elt, ast.Call):
                count = part.generators[0].iter.args[0]  # type: ignore[attr-defined]
                if isinstance(count, ast.Constant):
                    self.sequences.append((tree, part.elt, part.elt, count.value))
        return tree

    def settle_repeats(self) -> ast.FunctionDef | None:
        """Print repeated lines through one `stage` helper where at least two of them fit it."""
        classes = {cls.name: cls for cls in self.planner.classes}  # type: ignore[attr-defined]
        lines = []
        for tree, head, tail, count in self.sequences:
            assert isinstance(head.func, ast.Name) or isinstance(head.func, ast.Attribute)
            cls = classes.get(head.func.id) if isinstance(head.func, ast.Name) else None
            if cls is None:
                continue
            keys = [argument.key for argument in cls.arguments]
            if keys[:2] != ["in", "out"]:
                continue
            lines.append((tree, cls, _given(cls, head), _given(cls, tail) if tail is not None else None, count))
        first_only: dict[str, Any] = {}
        drawn = {f"next({word})": word for word in self.drawn.values()}
        draws: set[str] = set()
        fitting = []
        for tree, cls, head_given, tail_given, count in lines:
            kinds = _classify(cls, head_given, tail_given, drawn)
            if kinds is None:
                continue
            fitting.append((tree, cls, head_given, kinds, count, tail_given))
            for argument in cls.arguments:
                if kinds.get(argument.key) == "first":
                    first_only.setdefault(argument.name, argument)
                if kinds.get(argument.key) == "draw":
                    draws.add(argument.name)
        fitting = [f for f in fitting if all(_agrees(f[3], a, first_only, f[5]) for a in f[1].arguments)]
        with_tail = [f for f in fitting if f[5] is not None]
        if len(fitting) < 2 or not with_tail or (self.drawn and len(draws) > 1):
            return None
        drawing = {bool([a for a in f[1].arguments if f[3].get(a.key) == "draw"]) for f in fitting}
        if len(drawing) > 1:
            return None
        helper = self.planner.need("stage")
        kwargs: list[ast.expr] = []
        for tree, cls, head_given, kinds, count, _ in fitting:
            tree.func = name(helper)
            tree.args = [name(cls.name), head_given["in"], head_given["out"]]
            tree.keywords = [ast.keyword("repeats", ast.Constant(count))]
            for argument in cls.arguments:
                if argument.key in ("in", "out") or argument.key not in head_given or kinds.get(argument.key) == "draw":
                    continue
                tree.keywords.append(ast.keyword(argument.name, head_given[argument.key]))
                if argument.name not in first_only:
                    kwargs.append(head_given[argument.key])
            if draws:
                word = next(iter(self.drawn.values()))
                tree.keywords.append(ast.keyword(word, name(word)))
        return _stage_function(helper, first_only, draws, next(iter(self.drawn.values()), ""), kwargs)


def _is_at(node: nodes.Attribute) -> bool:
    return isinstance(node.value, nodes.Name) and node.value.id == "at"


def _given(cls: Any, tree: ast.Call) -> dict[str, ast.expr]:
    """The arguments of a call by their keys."""
    out: dict[str, ast.expr] = {}
    names = {argument.name: argument.key for argument in cls.arguments}
    for argument, value in zip(cls.arguments, tree.args, strict=False):
        out[argument.key] = value
    for keyword in tree.keywords:
        out[names[keyword.arg]] = keyword.value  # type: ignore[index]
    return out


def _classify(cls: Any, head: dict[str, ast.expr], tail: dict[str, ast.expr] | None, drawn: dict[str, str]) -> dict[str, str] | None:
    """What each argument does from the first repeat to the rest; None where the helper cannot say it."""
    kinds: dict[str, str] = {}
    for argument in cls.arguments:
        key = argument.key
        first = head.get(key)
        if first is not None and ast.unparse(first) in drawn:
            kinds[key] = "draw"
            continue
        if key in ("in", "out"):
            continue
        if tail is None:
            kinds[key] = "any"
            continue
        rest = tail.get(key)
        if (first is None) == (rest is None) and (first is None or dump(first) == dump(rest)):  # type: ignore[arg-type]
            kinds[key] = "same"
        elif rest is None:
            kinds[key] = "first"
        else:
            return None
    if tail is not None and (dump(tail["out"]) != dump(head["out"]) or dump(tail["in"]) != dump(head["out"])):
        return None
    return kinds


def _agrees(kinds: dict[str, str], argument: Any, first_only: dict[str, Any], tail: Any) -> bool:
    """Whether an argument that some line gives to its first repeat only is not given to all repeats by another."""
    if argument.name not in first_only:
        return True
    if first_only[argument.name].default != argument.default:
        return False
    return kinds.get(argument.key) in ("first", "any") or argument.key not in (tail or {})


def _stage_function(
    helper: str, first_only: dict[str, Any], draws: set[str], word: str, kwargs: list[ast.expr]
) -> ast.FunctionDef:
    """The helper's definition."""
    arguments = [
        ast.arg("block", build.parse("Callable[..., nn.Module]")),
        ast.arg("in_channels", name("int")),
        ast.arg("out_channels", name("int")),
        ast.arg("repeats", name("int")),
    ]
    defaults: list[ast.expr] = []
    if draws:
        arguments.append(ast.arg(word, build.parse("Iterator[float]")))
    for argument in first_only.values():
        arguments.append(ast.arg(argument.name, build.parse(argument.annotation)))
        defaults.append(build.literal(argument.default))
    values = [k.value for k in kwargs if isinstance(k, ast.Constant)]
    kind = "float" if any(isinstance(v, float) for v in values) else "int"
    if len(values) != len(kwargs) or any(isinstance(v, str) for v in values):
        kind = "object"
    extra = [ast.keyword(None, name("kwargs"))] if kwargs else []
    drawn = [ast.keyword(argument, call("next", name(word))) for argument in sorted(draws)]
    first = ast.Call(
        name("block"),
        [name("in_channels"), name("out_channels")],
        [*[ast.keyword(n, name(n)) for n in first_only], *drawn, *extra],
    )
    rest = ast.Call(name("block"), [name("out_channels"), name("out_channels")], [*drawn, *extra])
    fewer = ast.BinOp(name("repeats"), ast.Sub(), ast.Constant(1))
    comprehension = ast.ListComp(rest, [ast.comprehension(ast.Name("_", ast.Store()), call("range", fewer), [], 0)])
    docstring = "`repeats` blocks in a row, of which the first one changes width and resolution."
    return ast.FunctionDef(
        name=helper,
        args=ast.arguments(
            posonlyargs=[],
            args=arguments,
            vararg=None,
            kwonlyargs=[],
            kw_defaults=[],
            kwarg=ast.arg("kwargs", name(kind)) if kwargs else None,
            defaults=defaults,
        ),
        body=[
            ast.Expr(ast.Constant(docstring)),
            build.assign("first", first),
            build.assign("rest", comprehension),
            ast.Return(call("nn.Sequential", name("first"), ast.Starred(name("rest"), ast.Load()))),
        ],
        decorator_list=[],
        returns=build.parse("nn.Sequential"),
        lineno=0,
    )


__all__ = ["ModelTranslation", "Tensor"]
