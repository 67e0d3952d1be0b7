"""Walks the expressions of a definition: every name is resolved, every call fits what it calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from effspec import library, signatures
from effspec.diagnostics import Label, Span, closest, suggest
from effspec.modules import Definition, Module, model_of, not_exported
from effspec.names import AT, PREDECLARED, TENSOR_ATTRIBUTES, TORCH_ATTRIBUTES
from effspec.scopes import Labels, Problems, Scope, bind, report_unused
from effspec.signatures import Signature
from effspec.syntax import nodes

_OTHER_WORDS = {
    "swish": "silu",
    "True": "true",
    "False": "false",
    "None": "identity",
    "self": "input",
    "range": "..<",
    "int": "floor",
    "math": "sqrt",
}
_AT_HELP = "read it in the layer of a line with `x` (`x 1` will do), or in a `default`"
NO_LAYER = (
    nodes.Number, nodes.Boolean, nodes.String, nodes.Compare, nodes.Logic, nodes.Range, nodes.DefaultRead
)  # fmt: skip
"""What is neither a layer nor a tensor."""
_FOLLOWED = 16
"""How far a chain of constants is followed to what it calls."""


@dataclass(frozen=True, eq=False)
class Context:
    """What may be written at a place.

    `flow` says that `it` and `input` exist and layers are applied; `reads` that `default.name` may stand here; `at` are
    the attributes of `at`; `then` that the line is repeated; `yields` collects the yields of the bound loop around;
    `hooks` are those that any rule may have and a model calls anyhow.
    """

    scope: Scope
    flow: bool = False
    it: bool = True
    model: bool = False
    reads: bool = False
    at: tuple[str, ...] = ()
    then: bool = False
    yields: list[nodes.Yield] | None = None
    labels: Labels | None = None
    hooks: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


class Expressions:
    """Checks the definitions of one module.

    `used` collects the file-level names that occur, `edges` what they mean with the first place; `taps` are the labels
    of all loaded models, `constants` the signatures of those that were looked at.
    """

    def __init__(
        self,
        module: Module,
        problems: Problems,
        taps: frozenset[str],
        constants: dict[nodes.Constant, Signature | None],
        depth: int = 0,
    ) -> None:
        self.module, self.problems, self.taps, self.constants = module, problems, taps, constants
        self.depth = depth
        self.used: set[str] = set()
        self.unknown: set[str] = set()
        self.edges: dict[nodes.Item, Span] = {}

    # Expressions

    def expressions(self, items: Iterable[nodes.Expr], context: Context) -> None:
        for item in items:
            self.expression(item, context)

    def expression(self, node: nodes.Expr, context: Context) -> Signature | None:
        """Check an expression; the signature of its value where that is a layer or function that is known."""
        match node:
            case nodes.Number() | nodes.Boolean() | nodes.String():
                pass
            case nodes.Name():
                return self._value(node, context)
            case nodes.Call():
                return self._call(node, context)
            case nodes.Attribute():
                return self._attribute(node, context)
            case nodes.Binary() | nodes.Compare() | nodes.Logic():
                self.expression(node.left, context)
                self.expression(node.right, context)
            case nodes.Unary():
                self.expression(node.operand, context)
            case nodes.List():
                self.expressions(node.items, context)
            case nodes.Index():
                self.expression(node.value, context)
                self.expression(node.index, context)
            case nodes.Range():
                self.expressions([end for end in (node.start, node.stop) if end is not None], context)
            case nodes.Ternary():
                self.expressions((node.condition, node.chosen, node.otherwise), context)
            case nodes.Comprehension():
                self.expression(node.iterable, context)
                inner = Scope(context.scope)
                self.bind_targets(node.targets, inner)
                self.expression(node.element, replace(context, scope=inner))
                report_unused(inner, self.problems)
            case nodes.Pipe():
                self._pipe(node, context)
            case nodes.DefaultRead():
                if not context.reads:
                    help = f"give the block a parameter: `{node.name} = default.{node.name}`"
                    message = "`default.name` is read only in the default of a block's parameter"
                    self.problems.add("E0218", message, node.span, help=help)
        return None

    def _value(self, node: nodes.Name, context: Context) -> Signature | None:
        """A name that stands for a value: functions are called, not passed."""
        signature = self.name(node, context)
        if signature is not None and signature.kind in ("fn", "hook", "function", "initialiser", "each", "scaling"):
            if signature.kind == "scaling":
                message, help = f"{node.id} is a scaling, not a value", f"write `with {node.id}` in the head of a model"
            else:
                message = f"the {signature.kind} `{node.id}` is called, not passed"
                help = f"write `{node.id}(...)`" if signature.required or signature.least else f"write `{node.id}()`"
            self.problems.add("E0221", message, node.span, help=help)
        return signature

    def name(self, node: nodes.Name, context: Context) -> Signature | None:
        """Resolve a name; unknown ones are reported."""
        name = node.id
        if name in ("it", "input"):
            if not context.flow or (name == "it" and not context.it):
                message = f"`{name}` exists only where layers are applied: in a block or model"
                self.problems.add("E0216", message, node.span)
            return None
        if name == "at":
            self.problems.add("E0210", "`at` is read by its parts", node.span, help=f"write at.{', at.'.join(AT)}")
            return None
        binding = context.scope.find(name)
        if binding is not None:
            binding.used = True
            return binding.signature
        if name in self.module.bound_at:
            self.used.add(name)
            if name in self.module.namespaces:
                space = self.module.namespaces[name].name
                message = f"`{name}` is the file {space}, not a value"
                self.problems.add("E0221", message, node.span, help=f"write `{name}.NAME`")
            definition = self.module.definitions.get(name)
            if definition is None:
                return None
            self.edges.setdefault(definition.node, node.span)
            return self._defined(definition)
        if name in PREDECLARED:
            return signatures.predeclared(name)
        if name in context.hooks:
            return signatures.Signature("hook", name, ("n",), frozenset({"n"}))
        self._unknown(node, context)
        return None

    def _unknown(self, node: nodes.Name, context: Context) -> None:
        name = node.id
        later = context.scope.find_later(name)
        if name == "_":
            self.problems.add("E0201", "`_` cannot be read", node.span, help="give it a name where it is bound")
        elif later is not None:
            first = Label(later, "bound here")
            self.problems.add(
                "E0201", f"`{name}` is read before it is bound", node.span, first=first, help="bind it first"
            )
        elif name in self.module.variants:
            help = "variants are visible in `variant` and `expect` lines only"
            self.problems.add("E0201", f"unknown name `{name}`: there is a variant of that name", node.span, help=help)
        else:
            flowing = ("it", "input") if context.flow else ()
            known = [*context.scope.visible(), *self.module.bound_at, *sorted(PREDECLARED), *context.hooks, *flowing]
            word = _OTHER_WORDS.get(name)
            self.unknown.add(name)
            help_text = f"in this language it is `{word}`" if word else importable(name, known)
            for other in context.scope.visible():
                if help_text == f"did you mean `{other}`?" and (meant := context.scope.find(other)) is not None:
                    meant.used = True  # one misspelling is one mistake
            self.problems.add("E0201", f"unknown name `{name}`", node.span, help=help_text)

    def _defined(self, definition: Definition) -> Signature | None:
        node = definition.node
        if not isinstance(node, nodes.Constant):
            return signatures.defined(definition)
        if definition.module is self.module and node not in self.constants:
            # Each constant once, and a cycle (which is reported elsewhere) or a long chain is not followed.
            self.constants[node] = None
            if self.depth < _FOLLOWED:
                quiet = Expressions(self.module, Problems(), self.taps, self.constants, self.depth + 1)
                self.constants[node] = quiet.expression(node.value, Context(Scope()))
        return self.constants.get(node)

    def _call(self, node: nodes.Call, context: Context) -> Signature | None:
        callee = node.function
        signature = self.name(callee, context) if isinstance(callee, nodes.Name) else self.expression(callee, context)
        if signature is not None and signature.kind == "scaling":
            self._value(callee, context) if isinstance(callee, nodes.Name) else None
            signature = None
        problems, result = signatures.check(node, signature)
        self.problems += problems
        layer = signature is None or signature.is_layer
        for argument in node.arguments:
            self.argument(argument, context, layer)
        return result

    def argument(self, argument: nodes.Argument, context: Context, layer: bool = True) -> None:
        """The value of an argument, and its `then`."""
        self.expression(argument.value, context)
        if argument.then is not None:
            self.expression(argument.then, context)
            if not layer:
                self.problems.add(
                    "E0211", "`then` belongs to an argument of a layer", argument.span, help=signatures.THEN_HELP
                )
            elif not context.then:
                message = "`then` is written on a line that is not repeated"
                self.problems.add("E0211", message, argument.span, help="add `x N` to the line, or delete `then`")

    def _attribute(self, node: nodes.Attribute, context: Context) -> Signature | None:
        word = node.name
        if isinstance(node.value, nodes.Name):
            name = node.value.id
            if name == "at":
                self._at(node, context)
                return None
            if context.scope.find(name) is None and name in self.module.namespaces:
                self.used.add(name)
                return self._member(self.module.namespaces[name], word)
        before = len(self.problems)
        signature = self.expression(node.value, context)
        if len(self.problems) > before:
            return None
        known = TENSOR_ATTRIBUTES
        if word.id == "taps":
            if signature is not None and signature.kind != "model":
                self.problems.add("E0508", f"only a model has taps, {signature.name} is none", word.span)
            return signature
        if word.id not in known and (word.id not in self.taps or _is_input(node.value)):
            message = f"unknown attribute `{word.id}`"
            text = f"a tensor has {', '.join(known)}"
            every = [*known, "taps", *sorted(self.taps)]
            joined = "lists are joined by `+`: `xs + [x]`" if word.id in ("append", "extend") else None
            self.problems.add("E0508", message, word.span, text, help=joined or suggest(word.id, every))
        return None

    def _member(self, module: Module, word: nodes.Identifier) -> Signature | None:
        """`alias.name`: a variant or a definition of an imported file."""
        variant = module.variants.get(word.id)
        definition = model_of(variant, module) if variant is not None else module.own(word.id)
        if variant is not None:
            self.edges.setdefault(variant, word.span)
        elif definition is not None:
            self.edges.setdefault(definition.node, word.span)
        else:
            self.problems.append(not_exported(module, word))
        if definition is None:
            return None
        signature = signatures.defined(definition)
        if variant is not None and signature is not None:
            return replace(signature, name=word.id, required=frozenset())
        return signature

    def _at(self, node: nodes.Attribute, context: Context) -> None:
        word = node.name
        if word.id not in AT:
            text = f"it has {', '.join(AT)}"
            self.problems.add("E0508", f"`at` has no `{word.id}`", word.span, text, help=suggest(word.id, AT))
        elif word.id not in context.at:
            if context.at:
                message, help = f"`at.{word.id}` counts the lines of a model", "a block's line has at.i and at.n"
            else:
                message, help = f"`at.{word.id}` is read where no line is repeated", _AT_HELP
            self.problems.add("E0210", message, node.span, help=help)

    def _pipe(self, node: nodes.Pipe, context: Context) -> None:
        source = self.expression(node.source, context)
        if source is not None and source.is_layer:
            message = f"`|>` applies a layer to tensors, {source.name} is a layer"
            self.problems.add("E0503", message, node.source.span, help=f"write `it |> {node.source.span.text}`")
        if not context.flow:
            message = "layers are applied in a block or model only"
            self.problems.add("E0216", message, node.span, help="a parameter may hold a layer, not its result")
        for step in node.steps:
            if isinstance(step.layer, nodes.Group):
                self.group(step.layer, context)
            else:
                if isinstance(step.layer, NO_LAYER):
                    self.problems.add("E0503", "`|>` applies a layer, this is none", step.layer.span)
                self._applied(step.layer, self.expression(step.layer, context), False)
            if step.label is not None:
                self.label(step.label, context, 0)

    def _applied(self, node: nodes.Expr, signature: Signature | None, arrow: bool) -> None:
        """A layer that is applied here needs all its arguments."""
        if signature is not None and signature.is_layer and signature.kind != "model":
            self.problems += signatures.missing(signature, frozenset({"out"} if arrow else ()), node.span)

    def label(self, label: nodes.Label, context: Context, repeat: int) -> None:
        """The label of a line (repeated or not) or of a step."""
        name, span = label.name, label.span
        self.expressions(label.indices, replace(context, at=()))
        if name in TORCH_ATTRIBUTES or name.startswith("_"):
            message = f"a torch module cannot hold a child called `{name}`"
            help = f"for example `{name.strip('_') or 'layer'}_layer`"
            self.problems.add("E0209", message, span, "labels become attributes of modules", help=help)
        elif name[0].isupper():
            message = f"the label `{name}` is capitalised like a block"
            self.problems.add("E0205", message, span, help="labels begin with a small letter")
        if context.labels is not None:
            context.labels.add(name, len(label.indices) + repeat, span, self.problems)

    def bind_targets(self, targets: tuple[nodes.Identifier, ...], scope: Scope) -> None:
        """Bind what a loop or comprehension runs over."""
        for target in targets:
            bind(target, scope, self.module, self.problems, "loop variable")

    def group(self, group: nodes.Group, context: Context) -> None:
        raise NotImplementedError  # pragma: no cover - bodies know their statements


def importable(name: str, known: Iterable[str]) -> str | None:
    """What to do about an unknown name: the standard library has it, one of `known` is meant, or one of the library."""
    places = library.standard()
    if name in places:
        return f'import it: `import {name} from "{places[name]}"`'
    if (near := suggest(name, known)) is not None:
        return near
    meant = closest(name, places)
    return f'did you mean `{meant}`? `import {meant} from "{places[meant]}"`' if meant is not None else None


def _is_input(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Name) and node.id == "input"
