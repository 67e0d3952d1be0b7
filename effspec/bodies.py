"""Walks the statements of a definition: every statement stands in its place, every label means one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from effspec.diagnostics import Label, Span, suggest
from effspec.expressions import NO_LAYER, Context, Expressions
from effspec.names import AT, PREPARATION, TORCH_ATTRIBUTES, written_name
from effspec.ops import OPS
from effspec.scopes import Labels, Scope, bind, check_word, report_unused
from effspec.signatures import Signature
from effspec.syntax import nodes


class Walker(Expressions):
    """`Expressions` with bodies."""

    def body(self, body: nodes.Body, context: Context) -> None:
        """The statements of one pair of braces, in a scope that is given; names that are still to come are noted."""
        for statement in body.statements:
            names = statement.targets if isinstance(statement, nodes.Bind) else ()
            for target in (*names, *([statement.name] if isinstance(statement, nodes.Param) else ())):
                context.scope.later.setdefault(target.id, target.span)
        for statement in body.statements:
            _STATEMENTS[type(statement)](self, statement, context)

    def inner(self, body: nodes.Body, context: Context) -> None:
        """A nested `{ }`: its names end with it."""
        scope = Scope(context.scope)
        self.body(body, replace(context, scope=scope))
        report_unused(scope, self.problems)

    def group(self, group: nodes.Group, context: Context) -> None:
        """A `{ }` that is a layer: it has labels of its own, and yields of nobody."""
        self.inner(group.body, replace(context, labels=Labels(), yields=None))

    def line(self, line: nodes.Line, context: Context) -> None:
        if line.guard is not None:
            self.expression(line.guard, replace(context, at=()))
        plain = replace(context, at=(), then=False)
        for scaled in (line.out, line.repeats):
            if scaled is not None:
                self.expression(scaled.value, plain)
                if scaled.fixed and not context.hooks:
                    message = "`fixed` keeps a number from a model's scaling, which does not reach into a block"
                    self.problems.add("E0215", message, scaled.span, help="delete `fixed`")
        if line.repeats is not None:
            context = replace(context, at=AT if context.model else AT[:2], then=True)
        if line.label is not None:
            self.label(line.label, context, int(line.repeats is not None))
        if isinstance(line.value, nodes.Group):
            self.group(line.value, context)
            if line.out is not None:
                self.problems.add("E0305", "`-> C` gives `out`, which a group does not take", line.out.span)
            return
        signature = self.expression(line.value, context)
        self._line_value(line, line.value, signature, context)

    def _line_value(self, line: nodes.Line, value: nodes.Expr, signature: Signature | None, context: Context) -> None:
        tensor = isinstance(value, nodes.Binary | nodes.List | nodes.Comprehension | nodes.Pipe | nodes.Unary)
        extra = line.label or line.out or line.repeats
        if isinstance(value, NO_LAYER) or (isinstance(value, nodes.Unary) and value.op == "not"):
            message = "this line has no effect: it is neither a layer nor a tensor"
            self.problems.add("E0213", message, value.span, help="bind it (`name = ...`) or delete it")
        elif tensor and extra is not None:
            what = "a label" if extra is line.label else "`-> C`" if extra is line.out else "`x N`"
            piped = isinstance(value, nodes.Pipe)
            advice = f"write `x |> {line.label.name}: layer`" if line.label is not None and piped else None
            self.problems.add("E0214", f"{what} needs a layer, this line is a tensor", extra.span, help=advice)
        elif signature is not None and signature.is_layer:
            self._layer_line(line, value, signature, context)

    def _layer_line(self, line: nodes.Line, value: nodes.Expr, signature: Signature, context: Context) -> None:
        self._applied(value, signature, line.out is not None)
        if line.out is not None and "out" not in signature.parameters:
            message = f"`-> C` gives `out`, which {signature.name} does not take"
            self.problems.add("E0305", message, line.out.span, str(signature))
        elif line.out is not None and isinstance(value, nodes.Call):
            given = [argument for argument in value.arguments if argument.name and argument.name.id == "out"]
            first = signature.parameters[:1] == ("out",) and any(argument.name is None for argument in value.arguments)
            if given or first:
                message = "out is given twice: as an argument and by `->`"
                self.problems.add("E0302", message, line.out.span, help="keep one of them")
        owns = signature.kind == "block" or (signature.kind == "operator" and OPS[signature.name].group == "weights")
        if owns and line.label is None and context.labels is not None:
            name = written_name(value)
            if name in TORCH_ATTRIBUTES:
                message = f"a torch module cannot hold a child called `{name}`"
                self.problems.add("E0209", message, value.span, help=f"give the line a label: `{name}_layer: ...`")
            context.labels.add(name, int(line.repeats is not None), value.span, self.problems)

    def bind(self, statement: nodes.Bind, context: Context) -> None:
        signature = None
        yields: list[nodes.Yield] = []
        if isinstance(statement.value, nodes.For):
            self.loop(statement.value, replace(context, yields=yields))
            if not yields:
                message = "a bound loop collects what it yields, this one yields nothing"
                self.problems.add("E0222", message, statement.span, help="write `yield it` in it, or do not bind it")
        else:
            signature = self.expression(statement.value, context)
        for target in statement.targets:
            alone = len(statement.targets) == 1
            unused = not (isinstance(statement.value, nodes.For) and not yields)  # what yields nothing is one mistake
            signature = signature if alone else None
            bind(target, context.scope, self.module, self.problems, "binding", signature, unused=unused)

    def loop(self, statement: nodes.For, context: Context) -> None:
        self.expression(statement.iterable, context)
        scope = Scope(context.scope)
        self.bind_targets(statement.targets, scope)
        self.body(statement.body, replace(context, scope=scope))
        report_unused(scope, self.problems)

    def chain(self, statement: nodes.If, context: Context) -> None:
        for condition, body in statement.branches:
            self.expression(condition, context)
            self.inner(body, context)
        if statement.otherwise is not None:
            self.inner(statement.otherwise, context)

    def param(self, statement: nodes.Param, context: Context) -> None:
        self.expressions([part for part in (statement.shape, statement.init) if part is not None], context)
        bind(statement.name, context.scope, self.module, self.problems, "param")
        name, span = statement.name.id, statement.name.span
        if name in TORCH_ATTRIBUTES or name.startswith("_"):
            message = f"a torch module cannot hold a parameter called `{name}`"
            self.problems.add("E0209", message, span, help="choose another name")
        if context.labels is not None:
            context.labels.add(name, 0, span, self.problems, parameter=True)

    def default(self, statement: nodes.Default, context: Context) -> None:
        self._in_model("default", statement.span, context, "a block takes an argument instead")
        seen: dict[str, Span] = {}
        for entry in statement.entries:
            name = entry.name
            if name.id in seen:
                first = Label(seen[name.id], "set here")
                self.problems.add("E0203", f"`default {name.id}` is set twice in one line", name.span, first=first)
            seen.setdefault(name.id, name.span)
            self.expression(entry.value, replace(context, it=False, at=AT))

    def output(self, statement: nodes.Output, context: Context) -> None:
        self._in_model("output", statement.span, context, "the value of a block is its last line")
        check_word(statement.name, self.problems, "output") if statement.name.id[0].isupper() else None
        if statement.value is not None:
            self.expression(statement.value, context)

    def require(self, statement: nodes.Require, context: Context) -> None:
        self.expression(statement.condition, context)
        if statement.message is not None and not isinstance(statement.message, nodes.String):
            self.problems.add("E0107", "the message of `require` is a text", statement.message.span, help='write "..."')

    def yields(self, statement: nodes.Yield, context: Context) -> None:
        if context.yields is None:
            message = "`yield` stands in a loop whose result is bound"
            self.problems.add("E0217", message, statement.span, help="write `xs = for ... { ... yield it ... }`")
        else:
            context.yields.append(statement)
        if statement.value is not None:
            self.expression(statement.value, context)

    def prepare(self, statement: nodes.Prepare, context: Context) -> None:
        self._in_model("prepare", statement.span, context, "it belongs to the input of a model")
        name, seen = statement.input, set()
        if context.model and name.id not in context.inputs:
            known = ", ".join(context.inputs)
            message, near = f"unknown input `{name.id}`", suggest(name.id, context.inputs)
            self.problems.add("E0201", message, name.span, f"the inputs are {known}", help=near)
        for argument in statement.arguments:
            word = argument.name.id if argument.name else None
            takes = f"prepare takes {', '.join(PREPARATION)}"
            if word is None:
                self.problems.add("E0303", "prepare takes named arguments", argument.span, takes)
            elif word not in PREPARATION:
                help = suggest(word, PREPARATION)
                self.problems.add("E0301", f"unknown argument `{word}` of prepare", argument.span, takes, help=help)
            elif word in seen:
                self.problems.add("E0302", f"{word} is given twice", argument.span, help="keep one of them")
            seen.add(word)
            self.argument(argument, context, layer=False)

    def _in_model(self, word: str, span: Span, context: Context, help: str) -> None:
        if not context.model:
            self.problems.add("E0216", f"`{word}` belongs into a model", span, help=help)


_STATEMENTS: dict[type, Callable[[Walker, Any, Context], None]] = {
    nodes.Line: Walker.line,
    nodes.Bind: Walker.bind,
    nodes.For: Walker.loop,
    nodes.If: Walker.chain,
    nodes.Param: Walker.param,
    nodes.Default: Walker.default,
    nodes.Output: Walker.output,
    nodes.Require: Walker.require,
    nodes.Yield: Walker.yields,
    nodes.Prepare: Walker.prepare,
}
