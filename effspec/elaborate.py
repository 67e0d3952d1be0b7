"""Resolved tree + parameters -> graph: runs bodies, applies layers, and records what each definition did.

The repeated lines of a model that asks for `at.blocks` are counted first (`effspec.counting`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from effspec.diagnostics import Diagnostic, EffspecError, Label, Span, fail, suggest
from effspec.frames import Cell, Frame, Given
from effspec.ir.graph import Graph, Output
from effspec.layers import Bound, Instance
from effspec.rescaling import Stated, rescaled
from effspec.resolve import Definition, Module
from effspec.scaling import Models
from effspec.signatures import Rule, rules_of
from effspec.syntax import nodes


@dataclass(frozen=True)
class ParameterValue:
    """What a model parameter came out as, what decided it ("default", "with", "variant", "setting"), and which other
    parameters it was computed from."""

    value: Any
    origin: str
    span: Span
    reads: frozenset[str] = frozenset()


class Tree:
    """The instances of an elaborated model, which are taken apart when nobody holds this any more.

    They know their parents and their children.  Apart, their memory is free at once: to find such rings, Python's
    collector would look through all that the process holds, for longer than a compilation takes.
    """

    def __init__(self, root: Instance) -> None:
        self.root = root

    def __del__(self) -> None:
        rest = [self.root]
        while rest:
            instance = rest.pop()
            rest += instance.children
            instance.take_apart()


@dataclass(eq=False)
class Elaborated:
    """A lowered model: its graph, and the record of its instances for backends that write source.

    `rules` are its scaling rules, `rescaled` says that they are not those that its text states;
    `steps` counts what was evaluated.
    """

    graph: Graph
    module: Module
    model: nodes.Model
    tree: Tree
    parameters: dict[str, ParameterValue]
    blocks: int
    preparation: dict[str, dict[str, Any]] = field(default_factory=dict)
    variant: str | None = None
    rules: tuple[Rule, ...] = ()
    rescaled: bool = False
    steps: int = 0

    @property
    def root(self) -> Instance:
        """The model's own instance; it is whole for as long as this record, or a copy of it, is there."""
        return self.tree.root


@dataclass(frozen=True)
class Setting:
    """`--set NAME=VALUE` or a keyword of the API: a value, or an expression to be evaluated in the file."""

    name: str
    value: Any
    span: Span


@dataclass(frozen=True)
class Request:
    """Which point of which model is wanted."""

    variant: str | None = None
    model: str | None = None
    settings: tuple[Setting, ...] = ()
    rules: tuple[Stated, ...] = ()
    places: Mapping[str, Span] = field(default_factory=dict, compare=False)
    """Where the variant and the model were written, for messages."""


def choose(module: Module, request: Request, elaborator: Models) -> tuple[Definition, dict[str, Given]]:
    """The model that a request means, under the rules that it states, and what its variant gives."""
    definition, given = _chosen(module, request, elaborator)
    if request.rules:
        variant = (module.variants[request.variant], module) if request.variant is not None else None
        definition = rescaled(definition, variant, request.rules, module)
    return definition, given


def _chosen(module: Module, request: Request, elaborator: Models) -> tuple[Definition, dict[str, Given]]:
    models = {name: d for name, d in module.definitions.items() if isinstance(d.node, nodes.Model) and d.home is module}
    if request.variant is not None:
        if request.variant not in module.variants:
            raise _unknown(module, request, "variant", request.variant, module.variants)
        return elaborator.variant_arguments(request.variant, module)
    if request.model is not None:
        if request.model not in models:
            raise _unknown(module, request, "model", request.model, models)
        return models[request.model], elaborator.inherited(models[request.model])
    if len(models) != 1:
        what = (
            f"{module.name} has {len(models)} models: {', '.join(models)}" if models else f"{module.name} has no model"
        )
        either = "--model NAME, or --variant NAME" if module.variants else f"--model {next(iter(models), '')}"
        help = f"choose one: {either}" if models else "compile the file that states the model"
        raise EffspecError((Diagnostic("E0603", what, help=help),))
    only = next(iter(models.values()))
    return only, elaborator.inherited(only)


def _unknown(module: Module, request: Request, what: str, name: str, known: Iterable[str]) -> EffspecError:
    names = list(known)
    return fail(
        "E0601",
        f"{module.name} has no {what} `{name}`",
        request.places.get(what),
        notes=(f"its {what}s: {', '.join(names) or 'none'}",),
        help=suggest(name, names),
    )


def _start(module: Module, request: Request) -> tuple[Models, Definition, dict[str, Given]]:
    """An elaborator, the model that is asked for, and what its variant and the settings give."""
    elaborator = Models("")
    elaborator.home = module.source.name
    elaborator.several = request.variant is not None and len(module.variants) > 1
    definition, given = choose(module, request, elaborator)
    seen: dict[str, Setting] = {}
    for setting in request.settings:
        if setting.name in seen and setting.span is not seen[setting.name].span:
            elaborator.fail(
                "E0604",
                f"{setting.name} is set twice",
                setting.span,
                "the second time",
                secondary=(Label(seen[setting.name].span, "the first time"),),
                help="keep one of them",
            )
        seen[setting.name] = setting
        value = setting.value
        if isinstance(value, nodes.Node):
            value = elaborator.evaluate(value, elaborator.file_frame(module))  # type: ignore[arg-type]
        given[setting.name] = Given(Bound(value), setting.span, "setting")
    return elaborator, definition, given


def header(module: Module, request: Request) -> dict[str, ParameterValue]:
    """The parameters of a requested point, without its body."""
    elaborator, definition, given = _start(module, request)
    node = definition.node
    assert isinstance(node, nodes.Model)
    instance = Instance(node, definition, "", None, None, ())
    return _parameter_values(elaborator.model_header(definition, given, instance, None, "", node.span)[1])


def _parameter_values(cells: Mapping[str, Cell]) -> dict[str, ParameterValue]:
    return {
        name: ParameterValue(
            cell.bound.value, cell.origin, cell.given or cell.span, frozenset(other.name for other in cell.reads)
        )
        for name, cell in cells.items()
        if cell.bound is not None
    }


def elaborate(
    module: Module,
    request: Request | None = None,
    rewrite: Callable[[nodes.Model], nodes.Model] = lambda model: model,
) -> Elaborated:
    """Lower the requested point of a loaded spec, its model first rewritten.  Raises EffspecError."""
    request = request or Request()
    elaborator, definition, given = _start(module, request)
    assert isinstance(definition.node, nodes.Model)
    definition = replace(definition, node=rewrite(definition.node))
    node = definition.node
    assert isinstance(node, nodes.Model)
    elaborator.graph = Graph(node.name.id)
    title = f"variant {request.variant}" if request.variant else node.name.id
    elaborator.trail = [title]
    elaborator.charge(1, elaborator.static_weight(definition), node.name.span)

    def start() -> Instance:
        return Instance(node, definition, "", None, None, (), variant=request.variant)

    def parameters() -> tuple[Frame, dict[str, Cell]]:
        return elaborator.model_header(definition, given, start(), None, "", node.span)

    def expand(blocks: int | None) -> tuple[Frame, dict[str, Cell]]:
        return elaborator.expand_model(definition, given, start(), blocks, "", None, node.span)

    total = elaborator.count_blocks(node, parameters, lambda: expand(None))
    elaborator.steps = 0
    frame, cells = expand(total)
    if total is not None and frame.context.block != total:
        elaborator.fail(
            "E0513",
            f"the model counts {total} repeated lines first and {frame.context.block} then",
            node.name.span,
            help="a repeat count may not depend on at.blocks",
        )
    graph = elaborator.graph
    if not graph.outputs or all(output.training for output in graph.outputs):
        graph.outputs.append(Output("output", elaborator._tree(frame.it, node.span)))
    frame.instance.output = frame.it
    return Elaborated(
        graph.live(),
        module,
        node,
        Tree(frame.instance),
        _parameter_values(cells),
        frame.context.block,
        elaborator.preparation,
        request.variant,
        rules_of(definition),
        definition.base is not None,
        elaborator.steps,
    )


__all__ = ["Elaborated", "ParameterValue", "Request", "Setting", "choose", "elaborate", "header"]
