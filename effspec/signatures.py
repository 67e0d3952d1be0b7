"""What a call can be checked against before anything is evaluated: the parameters of what it calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from effspec.diagnostics import Diagnostic, Label, Span, suggest
from effspec.modules import Definition, named
from effspec.names import OPERATORS
from effspec.ops import OPS
from effspec.ops.base import REQUIRED
from effspec.params import INITIALIZERS
from effspec.syntax import nodes
from effspec.values import FUNCTIONS

Kind: TypeAlias = Literal["operator", "block", "model", "scaling", "fn", "hook", "function", "initialiser", "each"]
_OTHER_WORDS: dict[str, tuple[str, ...]] = {
    "kernel_size": ("k",), "kernel": ("k",), "ksize": ("k",), "filter_size": ("k",), "pool_size": ("k",),
    "stride": ("s",), "strides": ("s",), "padding": ("pad",), "pads": ("pad",), "dilation": ("dil",),
    "dilation_rate": ("dil",), "output_padding": ("out_pad",), "out_channels": ("out",), "out_features": ("out",),
    "filters": ("out",), "channels": ("out",), "units": ("out",), "features": ("out",), "use_bias": ("bias",),
    "num_groups": ("groups",), "group": ("groups",), "dim": ("axis", "axes"), "dims": ("axes", "order"),
    "axes": ("axis",), "axis": ("axes",), "p": ("rate",), "drop_prob": ("rate",), "scale_factor": ("scale",),
    "output_size": ("size",), "negative_slope": ("slope",), "epsilon": ("eps",), "ceil_mode": ("ceil",),
    "count_include_pad": ("count_pad",), "kernel_initializer": ("init",), "activation": ("act",),
    "act_layer": ("act",), "norm_layer": ("norm",), "expand_ratio": ("expand",), "expansion": ("expand",),
    "se_ratio": ("se",), "drop_path_rate": ("drop",), "min": ("low",), "max": ("high",),
}  # fmt: skip
_KNOWN_ANYHOW = ("in_channels", "in_features", "num_features", "input_channels", "in_planes")
_WITHOUT_NAMES: tuple[Kind, ...] = ("function", "each")

THEN_HELP = "it stands between whole values: `f(a) then f(b)`"


@dataclass(frozen=True)
class Signature:
    """The parameters of something that can be called.

    `required` have no default; `given` are bound already (a layer may be called again); `place` is where it is
    declared, "" for what is predeclared.  `least` and `most` count the arguments of what takes them by position only.
    """

    kind: Kind
    name: str
    parameters: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()
    place: str = ""
    given: frozenset[str] = frozenset()
    least: int = 0
    most: int | None = None

    @property
    def is_layer(self) -> bool:
        return self.kind in ("operator", "block", "model", "each")

    def __str__(self) -> str:
        takes = ", ".join(self.parameters) or "no arguments"
        return f"{self.name} takes {takes}" + (f" ({self.place})" if self.place else "")


def predeclared(name: str) -> Signature | None:
    """The signature of an operator, function or initialiser; None for a name that is not predeclared."""
    if name in OPERATORS:
        arguments, kind = OPS[name].arguments, "operator"
    elif name in INITIALIZERS:
        arguments, kind = INITIALIZERS[name], "initialiser"
    elif name in FUNCTIONS:
        _, kinds, optional = FUNCTIONS[name]
        any_number = kinds[0].startswith("*")
        most = None if any_number else len(kinds)
        return Signature("function", name, least=1 if any_number else len(kinds) - optional, most=most)
    elif name == "each":
        return Signature("each", name, least=1, most=1)
    else:
        return None
    required = frozenset(argument.name for argument in arguments if argument.default is REQUIRED)
    return Signature(kind, name, tuple(argument.name for argument in arguments), required)  # type: ignore[arg-type]


def declared(kind: Kind, name: str, parameters: Iterable[nodes.Parameter], place: str) -> Signature:
    """The signature of what a spec declares."""
    parameters = tuple(parameters)
    required = frozenset(parameter.name.id for parameter in parameters if parameter.default is None)
    return Signature(kind, name, tuple(parameter.name.id for parameter in parameters), required, place)


def defined(definition: Definition) -> Signature | None:
    """The signature of a file-level definition; None for a constant."""
    node = definition.node
    if isinstance(node, nodes.Constant):
        return None
    kind: Kind = {nodes.Fn: "fn", nodes.Block: "block", nodes.Scaling: "scaling", nodes.Model: "model"}[type(node)]  # type: ignore[assignment]
    parameters = node.parameters
    if isinstance(node, nodes.Model):
        parameters += tuple(parameter for rule in rules_of(definition) for parameter in rule.node.parameters)
    return declared(kind, node.name.id, parameters, node.span.place)


@dataclass(frozen=True, eq=False)
class Rule:
    """A scaling rule of a model: what is written after `with`, and what that names."""

    written: nodes.Expr
    definition: Definition

    @property
    def node(self) -> nodes.Scaling:
        assert isinstance(self.definition.node, nodes.Scaling)
        return self.definition.node

    @property
    def arguments(self) -> tuple[nodes.Argument, ...]:
        """What `with` gives to it."""
        return self.written.arguments if isinstance(self.written, nodes.Call) else ()

    @property
    def names(self) -> dict[str, nodes.Identifier]:
        """Its parameters and hooks, where they are declared."""
        declared = [parameter.name for parameter in self.node.parameters] + [hook.name for hook in self.node.hooks]
        return {name.id: name for name in declared}

    def is_hook(self, name: str) -> bool:
        """Whether a name is that of a hook."""
        return any(hook.name.id == name for hook in self.node.hooks)


def rules_of(definition: Definition) -> tuple[Rule, ...]:
    """The rules of a model; what names no rule is left out."""
    node = definition.node
    assert isinstance(node, nodes.Model)
    found = ((written, named(rule_name(written), definition.home)) for written in node.rules)
    return tuple(Rule(w, rule) for w, rule in found if rule is not None and isinstance(rule.node, nodes.Scaling))


def rule_name(written: nodes.Expr) -> nodes.Expr:
    """What a rule after `with` is called: without its arguments."""
    return written.function if isinstance(written, nodes.Call) else written


def check(call: nodes.Call, signature: Signature | None) -> tuple[list[Diagnostic], Signature | None]:
    """What is wrong with the arguments of a call, and the signature of its result where that is a layer."""
    problems: list[Diagnostic] = []
    given: dict[str, Span] = {}
    named = False
    positional = 0
    for argument in call.arguments:
        span = argument.name.span if argument.name else argument.span
        if argument.name is not None:
            named, name = True, argument.name.id
        elif named:
            help = "positional arguments come first"
            problems.append(Diagnostic("E0303", "this argument has no name", Label(span), help=help))
            continue
        else:
            positional += 1
            if signature is None or signature.kind in _WITHOUT_NAMES or positional > len(signature.parameters):
                continue
            name = signature.parameters[positional - 1]
        if signature is not None and argument.name is not None and name not in signature.parameters:
            problems.append(_unknown(name, span, signature))
        elif name in given:
            first = Label(given[name], "given here")
            problems.append(
                Diagnostic("E0302", f"{name} is given twice", Label(span), (first,), help="keep one of them")
            )
        given.setdefault(name, span)
    if signature is None:
        return problems, None
    if not problems:
        problems += _counted(call, signature, positional)
    if not problems and not signature.is_layer and signature.kind != "scaling":
        problems += missing(signature, frozenset(given), call.span)
    if not signature.is_layer:
        return problems, None
    # A wrong argument may be the one that would be missed next.
    required = frozenset[str]() if problems else signature.required
    result = replace(signature, required=required, given=signature.given | given.keys())
    return problems, result


def _unknown(name: str, span: Span, signature: Signature) -> Diagnostic:
    if signature.kind in _WITHOUT_NAMES:
        message, help = f"{signature.name} takes its arguments by position", f"delete `{name} =`"
        return Diagnostic("E0303", message, Label(span), help=help)
    message = f"unknown argument `{name}` of {signature.name}"
    return Diagnostic("E0301", message, Label(span, str(signature)), help=meant(name, signature.parameters))


def meant(name: str, parameters: Iterable[str]) -> str | None:
    """What to do about an unknown argument: other libraries have other words for the same."""
    known = tuple(parameters)
    if name in _KNOWN_ANYHOW:
        return "delete it: how many channels come in is known"
    for word in _OTHER_WORDS.get(name, ()):
        if word in known:
            return f"did you mean `{word}`?"
    return suggest(name, known)


def _counted(call: nodes.Call, signature: Signature, positional: int) -> list[Diagnostic]:
    """The error of too many arguments, or of too few where they go by position."""
    by_position = signature.kind in _WITHOUT_NAMES
    most = signature.most if by_position else len(signature.parameters)
    least = signature.least if by_position else 0
    if least <= positional and (most is None or positional <= most):
        return []
    count = f"at least {least}" if most is None else str(most) if least in (most, 0) else f"{least} to {most}"
    noun = "argument" if count.endswith("1") else "arguments"
    extra = call.arguments[most] if most is not None and positional > most else call
    text = str(signature) if signature.parameters else ""
    message = f"{signature.name} takes {count} {noun}, found {positional}"
    return [Diagnostic("E0303", message, Label(extra.span, text), help=_piped(call, signature))]


def _piped(call: nodes.Call, signature: Signature) -> str | None:
    """How a layer is applied, where its inputs seem to be among its arguments: `add(it, image)`."""
    values = [argument.value for argument in call.arguments if argument.name is None]
    if signature.parameters or not signature.is_layer or any(isinstance(value, nodes.Number) for value in values):
        return None
    texts = ", ".join(value.span.text for value in values)
    source = texts if len(values) == 1 else f"[{texts}]"
    return f"tensors flow by `|>`: `{source} |> {signature.name}()`"


def missing(signature: Signature, given: frozenset[str], span: Span) -> list[Diagnostic]:
    """The error of arguments that have no default and are not given."""
    absent = [name for name in signature.parameters if name in signature.required - signature.given - given]
    if not absent:
        return []
    names = " and ".join(f"`{name}`" for name in absent)
    help = "`-> C` gives `out`" if absent == ["out"] else None
    message = f"{signature.name} needs its argument{'s' if len(absent) > 1 else ''} {names}"
    return [Diagnostic("E0304", message, Label(span, str(signature)), help=help)]
