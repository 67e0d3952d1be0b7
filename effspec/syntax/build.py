"""lark's tree to our nodes: one method a rule of the grammar, found by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, TypeAlias, TypeVar

from effspec.diagnostics import Source, Span, fail
from effspec.syntax import nodes

EDITION = 1
MAX_DIGITS = 200

# The trees and tokens of lark, which only parser.py imports; a token is a str.
_Tree: TypeAlias = Any
_Token: TypeAlias = Any


def _present(tree: Any) -> bool:
    return tree is not None


_N = TypeVar("_N")
_SUFFIX = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class Builder:
    """lark's tree to our nodes: one method a rule, found by its name."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def span(self, tree: _Tree | _Token) -> Span:
        place: Any = tree if isinstance(tree, str) else tree.meta
        return Span(self.source, place.start_pos or 0, min(place.end_pos or 0, len(self.source.text)))

    def __call__(self, tree: Any) -> Any:
        method: Callable[[_Tree], Any] = getattr(self, tree.data)
        return method(tree)

    def maybe(self, tree: Any) -> Any:
        return None if tree is None else self(tree)

    def all(self, trees: Iterable[Any]) -> tuple[Any, ...]:
        # `map` instead of a generator: one frame less for each level of the tree.
        return tuple(map(self, filter(_present, trees)))

    def file(self, tree: _Tree) -> nodes.File:
        edition, *items = tree.children
        token = edition.children[0]
        if str(token) != str(EDITION):
            raise fail(
                "E0105",
                f"this effspec reads edition {EDITION}, the file is written in edition {token}",
                self.span(token),
                help=f"write `effspec {EDITION}`, or use a newer effspec",
            )
        return nodes.File(self.span(tree), EDITION, self.all(items))

    # Items

    def identifier(self, tree: _Tree) -> nodes.Identifier:
        return nodes.Identifier(self.span(tree), self._name(tree.children[0]))

    def _name(self, token: Any) -> str:
        if len(token) > 64:
            raise fail("E0106", "a name has more than 64 characters", self.span(token), help="choose a shorter one")
        return str(token)

    def text(self, token: _Token) -> nodes.String:
        return nodes.String(self.span(token), str(token)[1:-1])

    def import_names(self, tree: _Tree) -> nodes.Import:
        *names, path = tree.children
        return nodes.Import(self.span(tree), self.all(names), None, self.text(path))

    def import_all(self, tree: _Tree) -> nodes.Import:
        path, alias = tree.children
        return nodes.Import(self.span(tree), (), self(alias), self.text(path))

    def constant(self, tree: _Tree) -> nodes.Constant:
        return nodes.Constant(self.span(tree), *self.all(tree.children))

    def parameters(self, tree: _Tree) -> tuple[nodes.Parameter, ...]:
        return self.all(tree.children)

    def parameter(self, tree: _Tree) -> nodes.Parameter:
        name, default = tree.children
        return nodes.Parameter(self.span(tree), self(name), self.maybe(default))

    def fn(self, tree: _Tree) -> nodes.Fn:
        name, parameters, body = tree.children
        if body.data != "body":
            return nodes.Fn(self.span(tree), self(name), self(parameters), None, (), self(body))
        inner: nodes.Body = self.body(body)
        *statements, last = inner.statements or (None,)
        if not (isinstance(last, nodes.Line) and _plain(last)):
            span = last.span if last is not None else inner.span
            raise fail(
                "E0107", f"the last line of fn {self(name).id} is not a value", span, help="end it with an expression"
            )
        for statement in statements:
            if not isinstance(statement, nodes.Bind | nodes.Require) or isinstance(
                getattr(statement, "value", None), nodes.For
            ):
                raise fail(
                    "E0107",
                    "a fn computes: only `name = value` and `require` may stand before its value",
                    statement.span,
                    help="layers and loops belong into a block",
                )
        return nodes.Fn(self.span(tree), self(name), self(parameters), inner.doc, tuple(statements), last.value)  # type: ignore[arg-type]

    def names(self, tree: _Tree) -> tuple[nodes.Identifier, ...]:
        return self.all(tree.children)

    def rules(self, tree: _Tree) -> tuple[nodes.Expr, ...]:
        return self.all(tree.children)

    def block(self, tree: _Tree) -> nodes.Block:
        name, parameters, on, body = tree.children
        return nodes.Block(self.span(tree), self(name), self(parameters), self.maybe(on) or (), self(body))

    def scaling(self, tree: _Tree) -> nodes.Scaling:
        name, parameters, body = tree.children
        doc, requires, hooks = None, [], []
        for line in self.all(body.children):
            if isinstance(line, nodes.Require):
                requires.append(line)
            elif isinstance(line, nodes.Hook):
                hooks.append(line)
            else:
                doc = line
        return nodes.Scaling(self.span(tree), self(name), self(parameters), doc, tuple(requires), tuple(hooks))

    def docstring(self, tree: _Tree) -> str:
        return str(tree.children[0])[1:-1]

    def hook(self, tree: _Tree) -> nodes.Hook:
        return nodes.Hook(self.span(tree), *self.all(tree.children))

    def model(self, tree: _Tree) -> nodes.Model:
        name, parameters, rules, *inputs, body = tree.children
        return nodes.Model(
            self.span(tree), self(name), self(parameters), self.maybe(rules) or (), self.all(inputs), self(body)
        )

    def rescaled(self, tree: _Tree) -> nodes.Rescaled:
        name, base, rules = self.all(tree.children)
        if not isinstance(base, nodes.Name | nodes.Attribute):
            called = isinstance(base, nodes.Call)
            raise fail(
                "E0107",
                "a model or variant is named here, and not called" if called else "this names no model and no variant",
                base.span,
                help=f"write `model {name.id} = {base.function.span.text} with ...`; variants of it give arguments"
                if called
                else "for example `model Mine = resnet.ResNet with Compound(...)`",
            )
        return nodes.Rescaled(self.span(tree), name, base, rules)

    def model_input(self, tree: _Tree) -> nodes.ModelInput:
        return nodes.ModelInput(self.span(tree), *self.all(tree.children))

    def variant(self, tree: _Tree) -> nodes.Variant:
        name, call = self.all(tree.children)
        if not isinstance(call, nodes.Call):
            raise fail(
                "E0107", "a variant is a call of a model or of a variant", call.span, help=f"write `{call.span.text}()`"
            )
        return nodes.Variant(self.span(tree), name, call)

    def expect(self, tree: _Tree) -> nodes.Expect:
        variant, *checks = self.all(tree.children)
        return nodes.Expect(self.span(tree), variant, tuple(checks))

    # Statements

    def body(self, tree: _Tree) -> nodes.Body:
        statements = self.all(tree.children)
        match statements:
            case (nodes.Line(value=nodes.String(value=doc)) as first, *rest) if _plain(first):
                return nodes.Body(self.span(tree), doc, tuple(rest))
        return nodes.Body(self.span(tree), None, statements)

    def group(self, tree: _Tree) -> nodes.Group:
        return nodes.Group(self.span(tree), self(tree.children[0]))

    def arrow(self, tree: _Tree) -> nodes.Scaled:
        value, fixed = tree.children
        return nodes.Scaled(self.span(tree), self(value), fixed is not None)

    times = arrow

    def guard(self, tree: _Tree) -> nodes.Expr:
        return self(tree.children[0])  # type: ignore[no-any-return]

    def line(self, tree: _Tree) -> nodes.Line:
        value, arrow, times, guard = tree.children
        return nodes.Line(self.span(tree), None, self(value), self.maybe(arrow), self.maybe(times), self.maybe(guard))

    def _ternary(self, tree: _Tree, parts: list[Any]) -> nodes.Ternary:
        chosen, condition, otherwise = self.all(parts)
        return nodes.Ternary(chosen.span.to(otherwise.span), chosen, condition, otherwise)

    def ternary_line(self, tree: _Tree) -> nodes.Line:
        return nodes.Line(self.span(tree), None, self._ternary(tree, tree.children), None, None, None)

    def labelled(self, tree: _Tree) -> nodes.Line:
        label, value, arrow, times, guard = tree.children
        return nodes.Line(
            self.span(tree), self.label(label), self(value), self.maybe(arrow), self.maybe(times), self.maybe(guard)
        )

    def labelled_ternary(self, tree: _Tree) -> nodes.Line:
        label, *parts = tree.children
        return nodes.Line(self.span(tree), self.label(label), self._ternary(tree, parts), None, None, None)

    def label(self, tree: Any) -> nodes.Label:
        place = self(tree)
        indices: list[nodes.Expr] = []
        expression = place
        while isinstance(expression, nodes.Index):
            indices.insert(0, expression.index)
            expression = expression.value
        if not isinstance(expression, nodes.Name):
            raise fail("E0107", "this is not a label", place.span, help="a label is `name:` or `name[index]:`")
        return nodes.Label(place.span, expression.id, tuple(indices))

    def bind(self, tree: _Tree) -> nodes.Bind:
        return nodes.Bind(self.span(tree), *self.all(tree.children))

    def for_loop(self, tree: _Tree) -> nodes.For:
        return nodes.For(self.span(tree), *self.all(tree.children))

    def if_chain(self, tree: _Tree) -> nodes.If:
        *parts, otherwise = tree.children
        values = self.all(parts)
        pairs = tuple(zip(values[::2], values[1::2], strict=True))
        return nodes.If(self.span(tree), pairs, self.maybe(otherwise))

    def param(self, tree: _Tree) -> nodes.Param:
        name, shape, init = tree.children
        return nodes.Param(self.span(tree), self(name), self(shape), self.maybe(init))

    def default(self, tree: _Tree) -> nodes.Default:
        return nodes.Default(self.span(tree), self.all(tree.children))

    def default_entry(self, tree: _Tree) -> nodes.DefaultEntry:
        return nodes.DefaultEntry(self.span(tree), *self.all(tree.children))

    def output(self, tree: _Tree, training: bool = False) -> nodes.Output:
        name, value = tree.children
        return nodes.Output(self.span(tree), self(name), self.maybe(value), training)

    def training_output(self, tree: _Tree) -> nodes.Output:
        return self.output(tree, training=True)

    def require(self, tree: _Tree) -> nodes.Require:
        condition, message = tree.children
        return nodes.Require(self.span(tree), self(condition), self.maybe(message))

    def yield_value(self, tree: _Tree) -> nodes.Yield:
        return nodes.Yield(self.span(tree), self.maybe(tree.children[0]))

    def prepare(self, tree: _Tree) -> nodes.Prepare:
        return nodes.Prepare(self.span(tree), *self.all(tree.children))

    # Expressions

    def ternary(self, tree: _Tree) -> nodes.Ternary:
        return self._ternary(tree, tree.children)

    def pipeline(self, tree: _Tree) -> nodes.Pipe:
        source, *steps = self.all(tree.children)
        return nodes.Pipe(self.span(tree), source, tuple(steps))

    def step(self, tree: _Tree) -> nodes.Step:
        return nodes.Step(self.span(tree), None, self(tree.children[0]))

    def labelled_step(self, tree: _Tree) -> nodes.Step:
        label, layer = tree.children
        return nodes.Step(self.span(tree), self.label(label), self(layer))

    def _infix(self, tree: _Tree, kind: Callable[..., _N], op: str | None = None) -> _N:
        parts = [child for child in tree.children if not isinstance(child, str)]
        tokens = [child for child in tree.children if isinstance(child, str)]
        return kind(self.span(tree), op or str(tokens[0]), *self.all(parts))

    def logic_or(self, tree: _Tree) -> nodes.Logic:
        return self._infix(tree, nodes.Logic, "or")

    def logic_and(self, tree: _Tree) -> nodes.Logic:
        return self._infix(tree, nodes.Logic, "and")

    def logic_not(self, tree: _Tree) -> nodes.Unary:
        return self._infix(tree, nodes.Unary, "not")

    def negative(self, tree: _Tree) -> nodes.Expr:
        node = self._infix(tree, nodes.Unary)
        if node.op == "+":
            raise fail("E0107", "a leading `+` means nothing", node.span, help="delete it")
        return node

    def compare(self, tree: _Tree) -> nodes.Compare:
        return self._infix(tree, nodes.Compare)

    def contains(self, tree: _Tree) -> nodes.Compare:
        return self._infix(tree, nodes.Compare, "in")

    def binary(self, tree: _Tree) -> nodes.Binary:
        return self._infix(tree, nodes.Binary)

    def range_closed(self, tree: _Tree) -> nodes.Range:
        start, stop = self.all(tree.children)
        return nodes.Range(self.span(tree), start, stop, True)

    def range_open(self, tree: _Tree) -> nodes.Range:
        start, stop = self.all(tree.children)
        return nodes.Range(self.span(tree), start, stop, False)

    def from_closed(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), self(tree.children[0]), None, True)

    def from_open(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), self(tree.children[0]), None, False)

    def to_closed(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), None, self(tree.children[0]), True)

    def to_open(self, tree: _Tree) -> nodes.Range:
        return nodes.Range(self.span(tree), None, self(tree.children[0]), False)

    def call(self, tree: _Tree) -> nodes.Call:
        return nodes.Call(self.span(tree), *self.all(tree.children))

    def arguments(self, tree: _Tree) -> tuple[nodes.Argument, ...]:
        return self.all(tree.children)

    def argument(self, tree: _Tree) -> nodes.Argument:
        value, then = tree.children
        return nodes.Argument(self.span(tree), None, self(value), self.maybe(then))

    def named_argument(self, tree: _Tree) -> nodes.Argument:
        name, value, then = tree.children
        word = nodes.Identifier(self.span(name), self._name(name))
        return nodes.Argument(self.span(tree), word, self(value), self.maybe(then))

    def item(self, tree: _Tree) -> nodes.Index:
        return nodes.Index(self.span(tree), *self.all(tree.children))

    def attribute(self, tree: _Tree) -> nodes.Attribute:
        return nodes.Attribute(self.span(tree), *self.all(tree.children))

    def default_read(self, tree: _Tree) -> nodes.DefaultRead:
        return nodes.DefaultRead(self.span(tree), self(tree.children[0]).id)

    def list(self, tree: _Tree) -> nodes.List:
        return nodes.List(self.span(tree), self.all(tree.children))

    def comprehension(self, tree: _Tree) -> nodes.Comprehension:
        return nodes.Comprehension(self.span(tree), *self.all(tree.children))

    def name(self, tree: _Tree) -> nodes.Name:
        return nodes.Name(self.span(tree), self._name(tree.children[0]))

    def string(self, tree: _Tree) -> nodes.String:
        token = tree.children[0]
        return self.text(token)

    def boolean(self, tree: _Tree) -> nodes.Boolean:
        return nodes.Boolean(self.span(tree), str(tree.children[0]) == "true")

    def number(self, tree: _Tree) -> nodes.Number:
        return nodes.Number(self.span(tree), self._number(tree.children[0]))

    def _number(self, token: Any) -> int | Fraction:
        text = str(token).replace("_", "")
        scale = _SUFFIX.get(text[-1], 1)
        digits = text.rstrip("KMGT")
        mantissa, _, exponent = digits.lower().partition("e")
        if len(mantissa) > MAX_DIGITS or len(exponent) > 5 or abs(int(exponent or 0)) > 400:
            raise fail(
                "E0108", "this number has too many digits", self.span(token), help=f"at most {MAX_DIGITS} digits"
            )
        if len(mantissa) > 1 and mantissa[0] == "0" and mantissa[1] != ".":
            raise fail(
                "E0108", f"`{token}` starts with a zero", self.span(token), help=f"write `{token.lstrip('0') or 0}`"
            )
        value = Fraction(digits) * scale
        return int(value) if value.denominator == 1 else value


def _plain(line: nodes.Line) -> bool:
    """Whether a line is an expression and nothing else."""
    extras = (line.label, line.out, line.repeats, line.guard)
    return extras == (None,) * 4 and not isinstance(line.value, nodes.Group)
