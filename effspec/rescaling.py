"""The scaling rules that a request states in place of a model's own: found by their names, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effspec import library, signatures
from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, fail, suggest
from effspec.modules import Based, Definition, Module, named, under
from effspec.resolve import load
from effspec.rules import clashes, misfits
from effspec.signatures import Rule, declared, rule_name
from effspec.syntax import nodes


@dataclass(frozen=True)
class Stated:
    """A rule of a request: what would stand after `with`, or None for the one rule of the file `path`.

    Its name is looked up in that file; without one in the spec, then in the standard library.
    """

    written: nodes.Expr | None
    path: str | None
    span: Span


def rescaled(
    model: Definition, variant: tuple[nodes.Variant, Module] | None, rules: Sequence[Stated], module: Module
) -> Definition:
    """A model, chosen by itself or by a variant of `module`, under the rules that a request states.

    Raises EffspecError: E0601 where there is no such rule, E0613 and E0614 where one does not fit, and what is wrong
    with its arguments.
    """
    home = _home(module)
    written = tuple(_find(rule, home) for rule in rules)
    span = Span(rules[0].span.source, rules[0].span.start, rules[-1].span.end)
    assert isinstance(model.node, nodes.Model)
    made = under(Based(model, variant, span, home), model.node.name, written)
    found = signatures.rules_of(made)
    problems = [problem for rule in found for problem in _arguments(rule)]
    problems = problems or list(clashes(found)) or list(misfits(made))
    if problems:
        raise EffspecError(tuple(problems))
    return made


def stated(rules: Sequence[Stated], module: Module) -> tuple[Rule, ...]:
    """The rules that a request states for models of `module`.  Raises EffspecError E0601."""
    home = _home(module)
    written = [_find(rule, home) for rule in rules]
    found = [(one, named(rule_name(one), home)) for one in written]
    return tuple(Rule(one, definition) for one, definition in found if definition is not None)


def _home(module: Module) -> Module:
    """A file as `module`, which takes the rules in that a request names."""
    return Module(
        module.name, module.source, module.file, dict(module.definitions), module.namespaces, bound_at=module.bound_at
    )


def known(module: Module) -> list[str]:
    """The rules that a request may state by name: those of the file, and the standard library's."""
    own = [name for name, found in module.definitions.items() if isinstance(found.node, nodes.Scaling)]
    return list(dict.fromkeys([*own, *library.standard("scaling")]))


def _find(stated: Stated, home: Module) -> nodes.Expr:
    """The rule's expression, after its name was made known to `home`."""
    if stated.path is not None:
        written = _of_file(stated, load(stated.path), home)
    else:
        assert stated.written is not None
        written = stated.written
    name = rule_name(written)
    found = named(name, home)
    if isinstance(name, nodes.Name) and found is None and name.id in (places := library.standard("scaling")):
        found = home.definitions[name.id] = load(places[name.id]).definitions[name.id]
    if found is not None and isinstance(found.node, nodes.Scaling):
        return written
    rules = known(home)
    is_name = isinstance(name, nodes.Name)
    raise fail(
        "E0601",
        f"there is no scaling rule `{name.span.text}`",
        name.span,
        notes=(f"known by name: {', '.join(rules)}",),
        help=(suggest(name.span.text, rules) if is_name else None) or "of another file: FILE.eff, or FILE.eff:Name",
    )


def _of_file(stated: Stated, file: Module, home: Module) -> nodes.Expr:
    """The rule that a request takes from a file."""
    there = [name for name in file.exports() if isinstance(file.definitions[name].node, nodes.Scaling)]
    if stated.written is None:
        if len(there) != 1:
            has = f"{len(there)} scaling rules: {', '.join(there)}" if there else "no scaling rule"
            help = f"choose one: {stated.path}:{there[0]}" if there else None
            raise fail("E0601", f"{file.name} has {has}", stated.span, help=help)
        written: nodes.Expr = nodes.Name(stated.span, there[0])
    else:
        written = stated.written
    name = rule_name(written)
    if not isinstance(name, nodes.Name) or name.id not in there:
        raise fail(
            "E0601",
            f"{file.name} has no scaling rule `{name.span.text}`",
            name.span,
            notes=(f"it has {', '.join(there) or 'none'}",),
            help=suggest(name.span.text, there),
        )
    home.definitions[name.id] = file.definitions[name.id]
    return written


def _arguments(rule: Rule) -> list[Diagnostic]:
    if not isinstance(rule.written, nodes.Call):
        return []
    signature = declared("scaling", rule.node.name.id, rule.node.parameters, rule.node.span.place)
    problems, _ = signatures.check(rule.written, signature)
    problems += [
        Diagnostic("E0211", "`then` belongs to an argument of a layer", Label(argument.span), help=signatures.THEN_HELP)
        for argument in rule.written.arguments
        if argument.then is not None
    ]
    return problems
