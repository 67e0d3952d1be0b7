"""Whether scaling rules fit a model: what it needs of them, what would clash, and what was given to rules it had."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from effspec.diagnostics import CALL, COMMAND_LINE, Diagnostic, Label, Span, listed
from effspec.modules import Definition, Module, variant_named
from effspec.names import HOOKS
from effspec.signatures import Rule, defined, rules_of
from effspec.syntax import nodes


def clashes(rules: tuple[Rule, ...]) -> Iterator[Diagnostic]:
    """The error of two rules of one model that have parameters or hooks of the same names."""
    for position, rule in enumerate(rules):
        for other in rules[:position]:
            shared = [name for name in rule.names if name in other.names]
            if shared:
                name, words = shared[0], listed([f"`{name}`" for name in shared])
                places = (Label(other.names[name].span, "one"), Label(rule.names[name].span, "the other"))
                twice = rule.node is other.node
                yield Diagnostic(
                    "E0613",
                    f"{rule.node.name.id} is stated twice"
                    if twice
                    else f"{other.node.name.id} and {rule.node.name.id} both have {words}",
                    Label(rule.written.span),
                    () if twice else places,
                    help="state it once" if twice else "state one of the two rules, or rename what they share",
                )


def text_of(definition: Definition) -> Definition:
    """The model whose text another one is under other rules: it reads the names of its own rules."""
    while definition.base is not None:
        definition = definition.base.model
    return definition


def visible(definition: Definition) -> frozenset[str] | None:
    """The names of its rules that a model under other rules sees: those that it was written for.  None is all."""
    if definition.base is None:
        return None
    return frozenset(HOOKS).union(*(rule.names for rule in rules_of(text_of(definition))))


def misfits(definition: Definition) -> Iterator[Diagnostic]:
    """What is wrong with a model under other rules than its own."""
    assert definition.base is not None
    text, new = text_of(definition), rules_of(definition)
    node = text.node
    assert isinstance(node, nodes.Model)
    kept = {rule.node for rule in new}
    place = new[0].written.span if new else definition.base.site
    lacks = list(_lacks(text, node, new, kept, place))
    yield from lacks
    own = {name: rule.node for rule in rules_of(text) for name in rule.names}
    reads, binds = _reads(node), _binds(node)
    parameters = {parameter.name.id: parameter.name.span for parameter in node.parameters}
    for rule in new:
        for name in rule.names if rule.node not in own.values() else ():
            other = parameters.get(name)
            if rule.is_hook(name) and name in HOOKS:
                elsewhere = name in reads and name not in own
                other = binds.get(name) or (text.module.bound_at.get(name) if elsewhere else None)
            if other is not None:
                yield Diagnostic(
                    "E0613",
                    f"{rule.node.name.id} has {_what(rule, name)}, and in {node.name.id} `{name}` means something else",
                    Label(rule.written.span),
                    (Label(other, "this"), Label(rule.names[name].span, "and this")),
                    help="rename one of them",
                )
    if not lacks:
        yield from _orphans(definition, kept, place)


def _lacks(
    text: Definition, node: nodes.Model, new: tuple[Rule, ...], kept: set[nodes.Scaling], place: Span
) -> Iterator[Diagnostic]:
    """What a model reads of its own rules, and other rules do not have."""
    reads = _reads(node)
    known = {name: rule for rule in new for name in rule.names}
    for rule in rules_of(text):
        lost = [
            name
            for name in (rule.names if rule.node not in kept else ())
            if name in reads
            and not (name in HOOKS and rule.is_hook(name))
            and not (name in known and known[name].is_hook(name) == rule.is_hook(name))
        ]
        if lost:
            yield Diagnostic(
                "E0613",
                f"{node.name.id} needs {listed([f'`{name}`' for name in lost])} of its own rule {rule.node.name.id}, "
                f"which {listed([one.node.name.id for one in new])} {'lacks' if len(new) == 1 else 'lack'}",
                Label(place),
                tuple(Label(reads[name], "needed here") for name in lost[:2]),
                help=f"state both: {_both(rule, new)}",
            )


def _orphans(definition: Definition, kept: set[nodes.Scaling], place: Span) -> Iterator[Diagnostic]:
    """What the variants below a model under other rules give to a rule that is not there any more."""
    assert definition.base is not None
    found: dict[nodes.Variant, list[tuple[nodes.Argument, str, Rule]]] = {}
    for variant, argument, name, rule in _given(definition):
        if rule is not None and rule.node not in kept:
            found.setdefault(variant, []).append((argument, name, rule))
    for variant, orphans in found.items():
        names = listed([name for _, name, _ in orphans])
        argument, _, rule = orphans[0]
        yield Diagnostic(
            "E0614",
            f"variant {variant.name.id} gives {names} to {rule.node.name.id}, a rule that is replaced here",
            Label(place),
            (Label(argument.span, "given here"),),
            help=f"begin with another variant, or with {variant.call.function.span.text}, which it calls",
        )


def _given(definition: Definition) -> Iterator[tuple[nodes.Variant, nodes.Argument, str, Rule | None]]:
    """The arguments of the variants that a model is based on, each with the rule whose parameter it gives."""
    while definition.base is not None:
        model = definition.base.model
        signature = defined(model)
        assert signature is not None
        owners = {name: rule for rule in rules_of(model) for name in rule.names}
        seen: set[nodes.Variant] = set()
        step: tuple[nodes.Variant, Module] | None = definition.base.variant
        while step is not None and step[0] not in seen:
            variant, module = step
            seen.add(variant)
            for position, argument in enumerate(variant.call.arguments):
                positional = signature.parameters[position : position + 1]
                name = argument.name.id if argument.name is not None else "".join(positional)
                yield variant, argument, name, owners.get(name)
            step = variant_named(variant.call.function, module)
        definition = model


def _what(rule: Rule, name: str) -> str:
    return f"a hook `{name}`" if rule.is_hook(name) else f"a parameter `{name}`"


def _both(rule: Rule, new: tuple[Rule, ...]) -> str:
    """How a model's own rule is stated beside others: in a file, on a command line, in a call."""
    written = [rule.written.span.text, *(one.written.span.text for one in new)]
    name = new[0].written.span.source.name
    if name == COMMAND_LINE:
        return f"`{' '.join(f'--scaling {shlex.quote(text)}' for text in written)}`"
    if name == CALL:
        return f"`scaling={written!r}`"
    return f"`with {', '.join(written)}`"


def _parts(node: nodes.Model) -> Iterator[nodes.Node]:
    """Everything of a model but its rules."""
    for part in (*node.parameters, *node.inputs, node.body):
        yield from nodes.descend(part)


def _reads(node: nodes.Model) -> dict[str, Span]:
    """The names that a model reads, where it first does."""
    found: dict[str, Span] = {}
    for part in _parts(node):
        if isinstance(part, nodes.Name):
            found.setdefault(part.id, part.span)
    return found


def _binds(node: nodes.Model) -> dict[str, Span]:
    """The names that a model binds: parameters, inputs, and what its statements bind."""
    found: dict[str, Span] = {}
    for part in _parts(node):
        match part:
            case nodes.Parameter(name=name) | nodes.ModelInput(name=name) | nodes.Param(name=name):
                found.setdefault(name.id, name.span)
            case nodes.Bind(targets=targets) | nodes.For(targets=targets) | nodes.Comprehension(targets=targets):
                for target in targets:
                    found.setdefault(target.id, target.span)
    return found
