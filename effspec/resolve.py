"""Loads a spec and binds every name to its definition: reports unknown, duplicate, cyclic and unused names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from effspec import library, rules, signatures, uses
from effspec.bodies import Walker
from effspec.diagnostics import Diagnostic, EffspecError, Label, listed, suggest
from effspec.expressions import Context, importable
from effspec.modules import Definition, Module, Reader, model_of, named, variant_named
from effspec.names import EXPECT_CALLS, EXPECT_NUMBERS, HOOKS, OPERATORS, PREDECLARED, RESERVED
from effspec.ops import OPS
from effspec.scopes import Binding, Labels, Problems, Scope, bind, check_word, report_unused
from effspec.signatures import Rule
from effspec.syntax import nodes

__all__ = ["Definition", "Module", "load"]

MAX_ERRORS = 50
_KEPT = 64
# Files in which nothing was found, and all that they import: trees are frozen, so that nothing ever will be.
_sound: dict[tuple[nodes.File, ...], Module] = {}


def load(path_or_name: str | os.PathLike[str]) -> Module:
    """Read a spec and everything that it imports, and check all that can be known before evaluation.

    `path_or_name` is a path, or the bare name of a shipped spec (`b0`).  Raises EffspecError with every independent
    mistake (at most MAX_ERRORS), in the order of the files and lines.
    """
    reader = Reader()
    module = reader.read(library.find(path_or_name))
    modules = [read for read in reader.modules.values() if read is not None]
    trees = tuple(read.file for read in modules)
    if trees in _sound and not reader.problems:
        return _sound[trees]
    problems = Problems(reader.problems)
    taps = frozenset(_labels(modules))
    graph: uses.Uses = {}
    for read in modules:
        _File(read, problems, taps, graph).check()
    problems += uses.check(graph)
    if problems or module is None:
        raise EffspecError(tuple(_in_order(problems, [read.source.name for read in modules])[:MAX_ERRORS]))
    if len(_sound) >= _KEPT:
        _sound.pop(next(iter(_sound)))
    _sound[trees] = module
    return module


def _in_order(problems: list[Diagnostic], names: list[str]) -> list[Diagnostic]:
    def place(problem: Diagnostic) -> tuple[int, int]:
        span = problem.primary.span if problem.primary is not None else None
        if span is None or span.source.name not in names:
            return len(names), span.start if span is not None else 0
        return names.index(span.source.name), span.start

    return sorted(problems, key=place)


def _labels(modules: list[Module]) -> Iterator[str]:
    """The labels of all models: what may be read of a record of taps."""
    for module in modules:
        for item in module.file.items:
            if isinstance(item, nodes.Model):
                yield from (part.name for part in nodes.descend(item.body) if isinstance(part, nodes.Label))


def _default_reads(module: Module) -> set[str]:
    """The contextual defaults that what a file names reads, however indirectly: blocks, and operators."""
    reads: set[str] = set()
    seen: set[nodes.Node] = set()
    stack: list[tuple[nodes.Node, Module]] = [(item, module) for item in module.file.items]
    while stack:
        node, inside = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for part in nodes.descend(node):
            match part:
                case nodes.DefaultRead(name=name):
                    reads.add(name)
                case nodes.Attribute(value=nodes.Name(id=space), name=word) if space in inside.namespaces:
                    stack += _named(word.id, inside.namespaces[space])
                case nodes.Name(id=name):
                    stack += _named(name, inside)
                    for argument in OPS[name].arguments if name in OPS else ():
                        if isinstance(argument.default, str) and argument.default.startswith("default."):
                            reads.add(argument.default.removeprefix("default."))
    return reads


def _named(name: str, module: Module) -> Iterator[tuple[nodes.Node, Module]]:
    """What a name means in a file: a definition, a variant, or both."""
    if name in module.definitions:
        definition = module.definitions[name]
        yield definition.node, definition.module
    if name in module.variants:
        yield module.variants[name], module


def _is_condition(node: nodes.Expr) -> bool:
    """Whether an expectation can be true or false."""
    match node:
        case nodes.Call(function=nodes.Name(id="equals")) | nodes.Compare() | nodes.Logic() | nodes.Unary(op="not"):
            return True
    return False


class _File:
    """Checks one module."""

    def __init__(self, module: Module, problems: Problems, taps: frozenset[str], graph: uses.Uses) -> None:
        self.module, self.problems, self.taps, self.graph = module, problems, taps, graph
        self.used: set[str] = set()
        self.unknown: set[str] = set()

    def check(self) -> None:
        constants: dict[nodes.Constant, signatures.Signature | None] = {}
        for item in self.module.file.items:
            walker = Walker(self.module, self.problems, self.taps, constants)
            match item:
                case nodes.Import():
                    self._import(item)
                case nodes.Constant():
                    check_word(item.name, self.problems)
                    walker.expression(item.value, Context(Scope()))
                case nodes.Fn():
                    check_word(item.name, self.problems)
                    self._fn(item, walker)
                case nodes.Block():
                    self._capital(item.name, "block")
                    self._block(item, walker)
                case nodes.Scaling():
                    self._capital(item.name, "scaling")
                    self._scaling(item, walker)
                case nodes.Model():
                    self._capital(item.name, "model")
                    self._model(item, walker)
                case nodes.Rescaled():
                    self._capital(item.name, "model")
                    self._rescaled(item, walker)
                case nodes.Variant():
                    self._variant(item, walker)
                case nodes.Expect():
                    self._expect(item, walker)
            self.used |= walker.used
            self.unknown |= walker.unknown
            if not isinstance(item, nodes.Import | nodes.Expect):
                self.graph[item] = walker.edges
        self._twins()
        self._unused()
        self._unread()

    # Items

    def _import(self, item: nodes.Import) -> None:
        if item.alias is not None:
            check_word(item.alias, self.problems)
        for name in item.names:
            if name.id in PREDECLARED or name.id in RESERVED:
                check_word(name, self.problems)

    def _capital(self, name: nodes.Identifier, what: str) -> None:
        if not name.id[0].isupper():
            parts = [part[:1].upper() + part[1:] for part in name.id.split("_")]
            help = f"write `{''.join(parts)}`" if "".join(parts) else None
            self.problems.add("E0205", f"the {what} `{name.id}` is not capitalised", name.span, help=help)

    def _parameters(
        self, parameters: tuple[nodes.Parameter, ...], walker: Walker, context: Context, *, unused: bool = True
    ) -> None:
        """Bind parameters from left to right: a default sees the earlier ones."""
        for parameter in parameters:
            context.scope.later.setdefault(parameter.name.id, parameter.name.span)
        for parameter in parameters:
            signature = None
            if parameter.default is not None:
                walker.expression(parameter.default, context)
            bind(parameter.name, context.scope, self.module, self.problems, "parameter", signature, unused=unused)

    def _fn(self, node: nodes.Fn, walker: Walker) -> None:
        context = Context(Scope())
        self._parameters(node.parameters, walker, context)
        walker.body(nodes.Body(node.span, None, node.statements), context)
        walker.expression(node.result, context)
        report_unused(context.scope, self.problems)

    def _block(self, node: nodes.Block, walker: Walker) -> None:
        scope = Scope()
        for name in node.on:
            bind(name, scope, self.module, self.problems, "input")
        context = Context(scope, flow=True, labels=Labels())
        self._parameters(node.parameters, walker, replace(context, reads=True))
        walker.body(node.body, context)
        report_unused(scope, self.problems)

    def _scaling(self, node: nodes.Scaling, walker: Walker) -> None:
        context = Context(Scope())
        self._parameters(node.parameters, walker, context)
        for require in node.requires:
            walker.require(require, context)
        self._hooks(node, walker, context)
        report_unused(context.scope, self.problems)

    def _hooks(self, node: nodes.Scaling, walker: Walker, context: Context) -> None:
        for hook in node.hooks:
            context.scope.later.setdefault(hook.name.id, hook.name.span)
        for hook in node.hooks:
            inner = replace(context, scope=Scope(context.scope))
            self._parameters(hook.parameters, walker, inner)
            walker.expression(hook.result, inner)
            report_unused(inner.scope, self.problems)
            signature = signatures.declared("hook", hook.name.id, hook.parameters, hook.span.place)
            bind(hook.name, context.scope, self.module, self.problems, "hook", signature, unused=False)

    def _model(self, node: nodes.Model, walker: Walker) -> None:
        scope = Scope()
        context = Context(scope, inputs=tuple(declared.name.id for declared in node.inputs), hooks=HOOKS)
        for rule in self._with(node.rules, walker):
            for parameter in rule.node.parameters:
                scope.names[parameter.name.id] = Binding("parameter of the scaling", parameter.name.span, used=True)
            for hook in rule.node.hooks:
                signature = signatures.declared("hook", hook.name.id, hook.parameters, hook.span.place)
                scope.names[hook.name.id] = Binding("hook", hook.name.span, signature, used=True)
        self._parameters(node.parameters, walker, context)
        for declared in node.inputs:
            walker.expression(declared.shape, context)
        for declared in node.inputs:
            bind(declared.name, scope, self.module, self.problems, "input", unused=False)
        walker.body(node.body, replace(context, flow=True, model=True, labels=Labels()))
        report_unused(scope, self.problems)

    def _with(self, written: tuple[nodes.Expr, ...], walker: Walker) -> tuple[Rule, ...]:
        """The rules of `with`, their arguments checked."""
        found = tuple(filter(None, (self._rule(rule, walker) for rule in written)))
        self.problems += rules.clashes(found)
        return found

    def _rule(self, written: nodes.Expr, walker: Walker) -> Rule | None:
        name = signatures.rule_name(written)
        definition = named(name, self.module)
        if definition is None or not isinstance(definition.node, nodes.Scaling):
            if isinstance(name, nodes.Name) and name.id in self.module.bound_at:
                walker.used.add(name.id)
                if definition is None:
                    return None  # its import failed
                self.problems.add("E0201", f"`{name.id}` is not a scaling", name.span)
            else:
                known = [name for name, d in self.module.definitions.items() if isinstance(d.node, nodes.Scaling)]
                text = name.span.text
                self.problems.add("E0201", f"unknown scaling `{text}`", name.span, help=importable(text, known))
            return None
        rule = Rule(written, definition)
        root = name.value if isinstance(name, nodes.Attribute) else name
        assert isinstance(root, nodes.Name)
        walker.used.add(root.id)
        walker.edges.setdefault(rule.node, name.span)
        if isinstance(written, nodes.Call):
            signature = signatures.declared("scaling", rule.node.name.id, rule.node.parameters, rule.node.span.place)
            problems, _ = signatures.check(written, signature)
            self.problems += problems
            for argument in written.arguments:
                walker.argument(argument, Context(Scope()), layer=False)
        return rule

    def _rescaled(self, node: nodes.Rescaled, walker: Walker) -> None:
        self._based(node.base, walker)
        found = self._with(node.rules, walker)
        definition = self.module.definitions.get(node.name.id)
        if definition is not None and definition.base is not None and definition.base.site is node.base.span:
            self.graph[definition.node] = {node: node.name.span}
            if len(found) == len(node.rules):
                self.problems += rules.misfits(definition)

    def _based(self, base: nodes.Expr, walker: Walker) -> None:
        """The model or variant that a variant calls, or that a model under other rules is made of."""
        variant = variant_named(base, self.module)
        definition = named(base, self.module) if variant is None else None
        root = base.value if isinstance(base, nodes.Attribute) else base
        if isinstance(root, nodes.Name) and root.id not in self.module.variants:
            walker.used.add(root.id)
        if variant is not None:
            walker.edges[variant[0]] = base.span
        elif definition is not None and isinstance(definition.node, nodes.Model):
            walker.edges[definition.node] = base.span
        else:
            name = base.span.text
            promised = isinstance(root, nodes.Name) and root.id in self.module.bound_at and definition is None
            if not promised or isinstance(base, nodes.Attribute):
                models = (n for n, d in self.module.definitions.items() if isinstance(d.node, nodes.Model))
                known = [*self.module.variants, *models]
                message = f"`{name}` is neither a model nor a variant"
                self.problems.add("E0201", message, base.span, help=suggest(name, known))
            for item in self.module.file.items:  # one that leads back to itself, or far
                if isinstance(item, nodes.Rescaled) and item.name.id == name:
                    walker.edges[item] = base.span

    def _variant(self, node: nodes.Variant, walker: Walker) -> None:
        if node.name.id[0].isupper() or node.name.id in RESERVED:
            check_word(node.name, self.problems)
        self._based(node.call.function, walker)
        model = model_of(node, self.module)
        signature = signatures.defined(model) if model is not None else None
        problems, _ = signatures.check(node.call, signature)
        self.problems += problems
        for argument in node.call.arguments:
            walker.argument(argument, Context(Scope()), layer=False)

    def _expect(self, node: nodes.Expect, walker: Walker) -> None:
        if node.variant.id not in self.module.variants:
            message = f"unknown variant `{node.variant.id}`"
            help = suggest(node.variant.id, self.module.variants) or _variants(list(self.module.variants))
            self.problems.add("E0201", message, node.variant.span, help=help)
        for check in node.checks:
            if not _is_condition(check):
                help = "for example `params == 5_288_548`"
                self.problems.add("E0902", "an expectation is true or false, this is neither", check.span, help=help)
            self._expectation(check, walker)

    def _expectation(self, node: nodes.Expr, walker: Walker) -> None:
        """An expression of an expect line: numbers of the network beside the names of the file."""
        match node:
            case nodes.Name(id=name) if name in EXPECT_NUMBERS:
                return
            case nodes.Attribute(value=nodes.Name(id="folded"), name=word) if word.id in EXPECT_NUMBERS:
                return
            case nodes.Attribute(value=nodes.Name(id="folded"), name=word):
                help = suggest(word.id, [*EXPECT_NUMBERS, "count"])
                self.problems.add("E0902", f"`folded` has no `{word.id}`", word.span, help=help)
            case nodes.Attribute(value=nodes.Name(id=name), name=word) if self._is_variant(name):
                if word.id not in EXPECT_NUMBERS:
                    text = f"of another variant an expectation reads {', '.join(EXPECT_NUMBERS)}"
                    help = suggest(word.id, EXPECT_NUMBERS)
                    self.problems.add("E0902", f"a variant has no `{word.id}`", word.span, text, help=help)
            case nodes.Call(function=nodes.Attribute(value=nodes.Name(id="folded"), name=word)) if word.id == "count":
                self._count(node)
            case nodes.Call(function=nodes.Name(id=name)) if name in EXPECT_CALLS:
                self._count(node)
            case nodes.Compare() | nodes.Logic() | nodes.Binary():
                self._expectation(node.left, walker)
                self._expectation(node.right, walker)
            case nodes.Unary():
                self._expectation(node.operand, walker)
            case nodes.Name(id=name) if name not in self.module.bound_at and name not in PREDECLARED:
                help = suggest(name, [*EXPECT_NUMBERS, *EXPECT_CALLS, "folded"])
                help = f"write `{name}.params`, or another of its numbers" if self._is_variant(name) else help
                known = f"an expectation reads {', '.join((*EXPECT_NUMBERS, 'count(...)', 'equals(...)', 'folded'))}"
                self.problems.add("E0902", f"unknown name `{name}`", node.span, known, help=help)
            case _:
                walker.expression(node, Context(Scope()))

    def _is_variant(self, name: str) -> bool:
        return name in self.module.variants and name not in self.module.bound_at

    def _count(self, node: nodes.Call) -> None:
        """`count("conv")` and `equals("timm/efficientnet_b0")` take one text; an operator that is counted exists."""
        name = node.function.name.id if isinstance(node.function, nodes.Attribute) else node.function.span.text
        texts = [a.value for a in node.arguments if a.name is None and isinstance(a.value, nodes.String)]
        if len(node.arguments) != 1 or len(texts) != 1:
            example = 'count("conv")' if name == "count" else 'equals("timm/efficientnet_b0")'
            self.problems.add("E0303", f"{name} takes one text", node.span, help=f"for example {example}")
        elif name == "count" and isinstance(text := texts[0], nodes.String) and text.value not in OPERATORS:
            help = suggest(text.value, sorted(OPERATORS))
            self.problems.add("E0902", f"there is no operator `{text.value}` to count", text.span, help=help)

    # The file as a whole

    def _twins(self) -> None:
        """Capitalised names that would be one name to a reader, or in a path: `MBConv` and `MbConv`."""
        first: dict[str, str] = {}
        for name, span in self.module.bound_at.items():
            other = first.setdefault(name.replace("_", "").lower(), name) if name[0].isupper() else name
            if other != name:
                message = f"`{name}` and `{other}` differ in case or underscores only"
                label = Label(self.module.bound_at[other], "the other one")
                self.problems.add("E0203", message, span, first=label, help="rename one of them")

    def _is_bound_by(self, name: nodes.Identifier) -> bool:
        """Whether an import bound its name: it did not fail, and is not the second one of that name."""
        found = name.id in self.module.definitions or name.id in self.module.namespaces
        return found and self.module.bound_at[name.id] is name.span

    def _unused(self) -> None:
        """Imports that nothing names; in a file with a model, which is no library, also such definitions."""
        for item in self.module.file.items:
            if isinstance(item, nodes.Import):
                for name in (*item.names, item.alias):
                    if name is not None and self._is_bound_by(name) and name.id not in self.used:
                        self.problems.add("E0202", f"the import `{name.id}` is never used", name.span, help="delete it")
        if not any(isinstance(item, nodes.Model | nodes.Rescaled) for item in self.module.file.items):
            return
        for word, definition in self.module.definitions.items():
            node = definition.node
            if definition.home is self.module and word not in self.used and not isinstance(node, nodes.Model):
                help = "delete it, or move it into a file of its own that others import"
                self.problems.add(
                    "E0202", f"the {type(node).__name__.lower()} `{word}` is never used", node.name.span, help=help
                )

    def _unread(self) -> None:
        """Contextual defaults that nothing reads, where everything is known that could."""
        promised = self.module.bound_at.keys() - self.module.definitions.keys() - self.module.namespaces.keys()
        if promised or any(name[0].isupper() for name in self.unknown):
            return
        entries = [
            part
            for item in self.module.file.items
            if isinstance(item, nodes.Model)
            for part in nodes.descend(item.body)
            if isinstance(part, nodes.DefaultEntry)
        ]
        reads = _default_reads(self.module) if entries else set()
        for entry in entries:
            if entry.name.id not in reads:
                message = f"nothing reads `default.{entry.name.id}`"
                self.problems.add("E0202", message, entry.name.span, help=suggest(entry.name.id, sorted(reads)))


def _variants(names: list[str]) -> str:
    if not names:
        return "state it: `variant name = Model()`"
    return f"the variants are {listed(names[:9])}" + (f", and {len(names) - 9} more" if len(names) > 9 else "")
