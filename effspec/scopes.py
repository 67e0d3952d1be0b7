"""Names in bodies and expressions: what is visible where, what is bound twice, and what is never used."""

from __future__ import annotations

from dataclasses import dataclass, field

from effspec.diagnostics import Diagnostic, Label, Span
from effspec.modules import Module, bound_twice
from effspec.names import PREDECLARED, RESERVED
from effspec.signatures import Signature
from effspec.syntax import nodes


@dataclass(eq=False)
class Binding:
    """A name bound inside a definition.

    `what` is how messages call it; `signature` is known where the name stands for a layer or function whose parameters
    are known.
    """

    what: str
    span: Span
    signature: Signature | None = None
    used: bool = False


@dataclass(eq=False)
class Scope:
    """The names bound in one pair of braces, and the scope around it; `later` are those that are still to come."""

    parent: Scope | None = None
    names: dict[str, Binding] = field(default_factory=dict)
    later: dict[str, Span] = field(default_factory=dict)

    def find(self, name: str) -> Binding | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def find_later(self, name: str) -> Span | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.later:
                return scope.later[name]
            scope = scope.parent
        return None

    def visible(self) -> list[str]:
        return [*self.names, *(self.parent.visible() if self.parent else ())]


class Problems(list[Diagnostic]):
    """What was found wrong so far."""

    def add(
        self,
        code: str,
        message: str,
        span: Span,
        text: str = "",
        *,
        first: Label | None = None,
        help: str | None = None,
    ) -> None:
        self.append(Diagnostic(code, message, Label(span, text), (first,) if first else (), help=help))


@dataclass(eq=False)
class Labels:
    """The labels of one body: each stands for one layer, or for a list of one depth."""

    depths: dict[str, tuple[int, Span, bool]] = field(default_factory=dict)

    def add(self, name: str, depth: int, span: Span, problems: Problems, parameter: bool = False) -> None:
        first = self.depths.setdefault(name, (depth, span, parameter))
        if first[2] != parameter:
            label = Label(first[1], "a param" if first[2] else "a label")
            message = f"`{name}` is both a param and a label"
            problems.add("E0220", message, span, first=label, help="rename one of them: both are paths of parameters")
        elif first[0] != depth:
            kinds = ("one layer", "a list of layers", "a list of lists of layers")
            label = Label(first[1], kinds[min(first[0], 2)])
            message = f"label `{name}` stands for two kinds of things"
            problems.add("E0220", message, span, kinds[min(depth, 2)], first=label, help="rename one of them")


def check_word(identifier: nodes.Identifier, problems: Problems, what: str = "name") -> bool:
    """Whether a word may be bound: not reserved, not predeclared, not Capitalised."""
    name, span = identifier.id, identifier.span
    if name in RESERVED:
        problems.add(
            "E0204", f"`{name}` is a word of the language and cannot be bound", span, help="choose another name"
        )
    elif name in PREDECLARED:
        problems.add("E0204", f"`{name}` is predeclared and cannot be bound again", span, help="choose another name")
    elif name[0].isupper():
        small = name[0].lower() + name[1:]
        message = f"the {what} `{name}` is capitalised like a block"
        problems.add("E0205", message, span, help=f"write `{small}`: only blocks, models and scalings are capitalised")
    else:
        return True
    return False


def bind(
    identifier: nodes.Identifier,
    scope: Scope,
    module: Module,
    problems: Problems,
    what: str,
    signature: Signature | None = None,
    *,
    unused: bool = True,
) -> None:
    """Bind a name in a scope, unless it is visible already; `unused` says that it is to be read somewhere."""
    name = identifier.id
    if name == "_":
        return
    legal = check_word(identifier, problems, what)
    previous = scope.find(name)
    first = previous.span if previous is not None else module.bound_at.get(name)
    if first is not None:
        problems.append(bound_twice(identifier, first))
        if previous is not None:
            previous.used = True
    scope.names[name] = Binding(what, identifier.span, signature, used=not (unused and legal and first is None))
    scope.later.pop(name, None)


def report_unused(scope: Scope, problems: Problems) -> None:
    """The names of a scope that nothing reads."""
    for name, binding in scope.names.items():
        if not binding.used:
            help = {"loop variable": "write `_`", "binding": "delete it, or write `_` for a part"}.get(binding.what)
            if binding.what == "binding" and binding.signature is not None and binding.signature.is_layer:
                help = f"a layer is applied by a line of its own, its label before it: `{name}: ...`"
            help = help or "delete it"
            problems.add("E0202", f"the {binding.what} `{name}` is never used", binding.span, help=help)
