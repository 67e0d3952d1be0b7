"""Applies a model's scaling rule and variants: the value of each parameter, where it comes from, whether it matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from effspec import values
from effspec.counting import Counting
from effspec.diagnostics import CALL, COMMAND_LINE, Diagnostic, EffspecError, Label, Span, listed, suggest
from effspec.frames import Cell, Frame, Given, HookValue, ModelContext, Place, Scope
from effspec.ir.graph import Value
from effspec.ir.types import TensorType
from effspec.layers import Application, Bound, Instance, Layer, Taps, Tensor
from effspec.modules import model_named, variant_named
from effspec.ops.base import show
from effspec.origins import Head
from effspec.resolve import Definition, Module
from effspec.rules import visible
from effspec.signatures import Rule, rules_of
from effspec.syntax import nodes

_Trial: TypeAlias = Callable[[], tuple[Frame, dict[str, Cell]]]


class Models(Counting):
    """`Counting` with models: their parameters, scaling rules, variants and inputs."""

    def _apply_model(
        self, layer: Layer, definition: Definition, value: Any, place: Place, application: Application
    ) -> Any:
        node, prefix = definition.node, place.path + "."
        assert isinstance(node, nodes.Model)
        given = {name: Given(bound, (bound.node or place.site).span, "variant") for name, bound in layer.bound.items()}
        inputs = list(value) if isinstance(value, tuple) else [value]

        def start() -> Instance:
            instance = self._new_instance(node, definition, place.path, place, application)
            instance.variant = layer.variant
            instance.input = value
            return instance

        def expand(blocks: int | None) -> tuple[Frame, dict[str, Cell]]:
            return self.expand_model(definition, given, start(), blocks, prefix, inputs, place.span)

        def parameters() -> tuple[Frame, dict[str, Cell]]:
            return self.model_header(definition, given, start(), None, prefix, place.span)

        total = self.count_blocks(node, parameters, lambda: expand(None))
        inner, _ = expand(total)
        inner.instance.output = inner.it
        if layer.taps:
            return self._taps(inner)
        return inner.it

    def count_blocks(self, node: nodes.Model, parameters: _Trial, expand: _Trial) -> int | None:
        """The number of repeated lines of a model that asks for it, found without a trace.

        Numbers alone tell it, or, where tensors have a say, a trial expansion.
        """
        if not any(isinstance(part, nodes.Attribute) and part.name.id == "blocks" for part in nodes.descend(node)):
            return None
        saved = (self.graph, self.next_id, self.paths, self.owners, self.recording, dict(self.preparation))
        trial = self.graph.copy()
        self.graph, self.paths, self.owners, self.recording = trial, dict(saved[2]), dict(saved[3]), False
        try:
            frame, _ = parameters()
            count = self.counted_alone(node.body, frame)
            return count if count is not None else int(expand()[0].context.block)
        finally:
            (self.graph, self.next_id, self.paths, self.owners, self.recording, self.preparation) = saved

    def _taps(self, frame: Frame) -> Taps:
        entries: dict[Any, Any] = {}
        for (site, _), application in frame.instance.applied.items():
            if not isinstance(site, nodes.Line) or site.label is None:
                continue
            name, indices = application.label
            if not indices:
                entries[name] = application.output
                continue
            level = entries.setdefault(name, {})
            for index in indices[:-1]:
                level = level.setdefault(index, {})
            level[indices[-1]] = application.output

        def freeze(value: Any) -> Any:
            return Taps({k: freeze(v) for k, v in value.items()}) if isinstance(value, dict) else value

        return Taps({name: freeze(value) for name, value in entries.items()})

    def variant_layer(self, name: str, module: Module, span: Span) -> Layer:
        """A variant as a layer: its model with the arguments of the whole chain."""
        definition, given = self.variant_arguments(name, module)
        bound = {key: value.bound for key, value in given.items()}
        return Layer(bound, definition=definition, variant=name, weight=self.static_weight(definition))

    def variant_arguments(self, name: str, module: Module) -> tuple[Definition, dict[str, Given]]:
        """The model behind a variant, and what the chain of variants gives it (the base first)."""
        chain: list[tuple[nodes.Variant, Module]] = []
        step: tuple[nodes.Variant, Module] | None = (module.variants[name], module)
        while step is not None:
            if step in chain:
                self.fail("E0206", f"variant {name} leads back to itself", step[0].name.span)
            chain.append(step)
            step = variant_named(step[0].call.function, step[1])
        last, module = chain[-1]
        definition = model_named(last.call.function, module)
        if definition is None:
            where = last.call.function.span
            self.fail(
                "E0201", f"`{where.text}` is neither a model nor a variant", where, help=suggest(name, module.variants)
            )
        given = self.inherited(definition)
        base = Layer({}, definition=definition)
        for variant, module in reversed(chain):
            bound = self._bind_arguments(base, variant.call, self.file_frame(module)).bound
            for key, value in bound.items():
                span = value.node.span if value.node is not None else variant.span
                given[key] = Given(value, span, "variant", variant.name.id)
        return definition, given

    def inherited(self, definition: Definition) -> dict[str, Given]:
        """What the variant gives that a model under other rules is made of, if it is made of a variant."""
        base = definition.base
        if base is None:
            return {}
        if base.variant is None:
            return self.inherited(base.model)
        variant, module = base.variant
        return self.variant_arguments(variant.name.id, module)[1]

    def model_header(
        self,
        definition: Definition,
        given: Mapping[str, Given],
        instance: Instance,
        blocks: int | None,
        prefix: str,
        span: Span,
    ) -> tuple[Frame, dict[str, Cell]]:
        """Evaluate a model's parameters, those of its scaling first, and the scaling's `require`s."""
        node = definition.node
        assert isinstance(node, nodes.Model)
        rules = rules_of(definition)
        cells: dict[str, Cell] = {}
        frame = Frame(definition.module, Scope(), instance, ModelContext(blocks), prefix=prefix, is_model=True)
        self.heads[instance] = Head(cells, rules)
        self.running.append(instance)
        self.readers.append(None)
        try:
            frames = [self._rule_cells(rule, definition, given, frame, cells) for rule in rules]
            self._cells(node.parameters, frame, given, {}, cells, node.name.id)
            self._unknown_settings(given, cells, node, span)
            for cell in cells.values():
                self.read(cell)
            for rule, hook_frame in zip(rules, frames, strict=True):
                for require in rule.node.requires:
                    self.require(require, hook_frame)
        finally:
            self.readers.pop()
            self.running.pop()
        for name, cell in cells.items():
            assert cell.bound is not None
            instance.arguments[name] = cell.bound
        return frame, cells

    def expand_model(
        self,
        definition: Definition,
        given: Mapping[str, Given],
        instance: Instance,
        blocks: int | None,
        prefix: str,
        inputs: list[Any] | None,
        span: Span,
    ) -> tuple[Frame, dict[str, Cell]]:
        """Evaluate a model's parameters and run its body; `inputs` are None for the compiled model itself."""
        node = definition.node
        assert isinstance(node, nodes.Model)
        frame, cells = self.model_header(definition, given, instance, blocks, prefix, span)
        root = Cell("", node.span, None)
        self.readers.append(root)
        self.running.append(frame.instance)
        try:
            self._model_inputs(node, frame, inputs)
            self.run_body(node.body, frame)
        finally:
            self.readers.pop()
            self.running.pop()
        if inputs is None:
            self._check_effect(given, cells, root, node, [rule.node for rule in rules_of(definition)])
        return frame, cells

    def _rule_cells(
        self, rule: Rule, model: Definition, given: Mapping[str, Given], frame: Frame, cells: dict[str, Cell]
    ) -> Frame:
        """The parameters and hooks of a model's rule, visible to the model; the frame of its hooks."""
        node, name = rule.node, rule.node.name.id
        rule_frame = Frame(rule.definition.module, Scope(), frame.instance, frame.context)
        defaults: dict[str, Given] = {}
        file, seen = self.file_frame(model.home), visible(model)
        names = [parameter.name.id for parameter in node.parameters]
        for position, argument in enumerate(rule.arguments):
            # What is unknown or given twice has been refused: `resolve` reads files, `rescaling` requests.
            word = argument.name.id if argument.name else names[position]
            defaults[word] = Given(Bound(self.evaluate(argument.value, file), argument), argument.span, "with")
        self._cells(node.parameters, rule_frame, given, defaults, cells, name, rule.written)
        for hook in node.hooks:
            rule_frame.scope.names[hook.name.id] = HookValue(hook, rule_frame)
        names_seen = rule.names if seen is None else rule.names.keys() & seen
        frame.scope.names.update((name, rule_frame.scope.names[name]) for name in names_seen)
        return rule_frame

    def _cells(
        self,
        parameters: tuple[nodes.Parameter, ...],
        frame: Frame,
        given: Mapping[str, Given],
        defaults: Mapping[str, Given],
        cells: dict[str, Cell],
        owner: str,
        rule: nodes.Expr | None = None,
    ) -> None:
        absent = [p for p in parameters if p.default is None and p.name.id not in given and p.name.id not in defaults]
        for parameter in parameters:
            name = parameter.name.id
            if name in cells:
                self.fail("E0203", f"{owner} and its scaling both have a parameter `{name}`", parameter.span)
            source = given.get(name) or defaults.get(name)
            if source is not None:
                cell = Cell(name, parameter.span, None, source.bound, source.origin)
                cell.given = source.span
            elif parameter.default is not None:
                cell = Cell(name, parameter.span, self._lazy(parameter, parameter.default, frame))
            elif rule is not None:
                self.fail(
                    "E0304",
                    f"{owner} needs its {_parameters(absent)}",
                    rule.span,
                    secondary=tuple(Label(one.span, "it has no default") for one in absent),
                    help=_required(owner, absent, rule),
                )
            else:
                self.fail(
                    "E0304",
                    f"{owner} needs its {_parameters(absent)}",
                    parameter.span,
                    help=f"give {'it' if len(absent) == 1 else 'them'}: `{_set(absent)}`, or choose a variant",
                )
            cells[name] = cell
            frame.scope.names[name] = cell

    def _lazy(self, parameter: nodes.Parameter, default: nodes.Expr, frame: Frame) -> Any:
        return lambda: Bound(self.evaluate(default, frame), default, frame.instance, (), how="default")

    def _unknown_settings(
        self, given: Mapping[str, Given], cells: dict[str, Cell], node: nodes.Model, span: Span
    ) -> None:
        problems = []
        for name, source in given.items():
            if name not in cells:
                label = Label(source.span, f"{node.name.id} takes {', '.join(cells)}")
                help = suggest(name, cells)
                if name == "phi" and help is None:
                    help = "this model has no compound coefficient; its scaling takes other parameters"
                problems.append(Diagnostic("E0602", f"{node.name.id} has no parameter `{name}`", label, help=help))
        if problems:
            raise EffspecError(tuple(problems))

    def _model_inputs(self, node: nodes.Model, frame: Frame, inputs: list[Any] | None) -> None:
        made: list[Any] = []
        for position, declared in enumerate(node.inputs):
            shape = self.evaluate(declared.shape, frame)
            if not isinstance(shape, tuple) or not all(
                isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape
            ):
                small = isinstance(shape, tuple) and any(values.is_number(n) and n <= 0 for n in shape)
                self.fail(
                    "E0502",
                    f"the sizes of an input are positive, this came out as {values.show(shape)}"
                    if small
                    else f"an input's shape is a list of sizes, found {values.show(shape)}",
                    declared.shape.span,
                    help=None if small else "round what is not an integer",
                )
            if any(n > 2**31 for n in shape):
                self.fail("E0505", f"a size is at most 2^31, found {values.show(shape)}", declared.shape.span)
            if inputs is None:
                kind = TensorType(shape)
                new = self.add_node("input", declared.name.id, (), {"shape": shape}, (kind,), declared.span)
                tensor = Tensor(Value(new.id), kind, declared.span, declared.name.id)
            else:
                if position >= len(inputs) or len(inputs) != len(node.inputs):
                    self.fail(
                        "E0409", f"{node.name.id} takes {len(node.inputs)} inputs, found {len(inputs)}", declared.span
                    )
                tensor = inputs[position]
                if not isinstance(tensor, Tensor) or tensor.type.shape != shape:
                    found = self.describe(tensor)
                    self.fail(
                        "E0414",
                        f"{node.name.id} is compiled for an input {show(shape)}, found {found}",
                        declared.span,
                        help="pass the size: `backbone(size = ...)`",
                    )
            frame.scope.names[declared.name.id] = tensor
            if self.recording:
                frame.instance.values[declared, ()] = tensor
            made.append(tensor)
        frame.input = frame.it = made[0] if len(made) == 1 else tuple(made)
        if inputs is None:
            frame.instance.input = frame.input

    def _check_effect(
        self,
        given: Mapping[str, Given],
        cells: dict[str, Cell],
        root: Cell,
        node: nodes.Model,
        rules: Sequence[nodes.Scaling],
    ) -> None:
        """An argument from a variant or the command line that nothing evaluated reads is an error."""
        reached: set[int] = set()
        stack = [root]
        while stack:
            cell = stack.pop()
            for other in cell.reads:
                if id(other) not in reached:
                    reached.add(id(other))
                    stack.append(other)
        problems = []
        for name, source in given.items():
            if id(cells[name]) in reached:
                continue
            blockers = [other for other in given if other != name and _mentions(node, rules, other, name, set())]
            notes: tuple[str, ...] = ()
            who = "the request"
            if blockers:
                origin = given[blockers[0]]
                who = f"variant {origin.name}" if origin.name else who
                where = f" ({origin.span.place})" if origin.origin == "variant" else ""
                notes = (f"{who}{where} gives {listed(blockers)}, so nothing is left that reads {name}",)
            problems.append(
                Diagnostic(
                    "E0612",
                    f"{name} has no effect",
                    Label(source.span),
                    notes=notes or (f"nothing that is evaluated reads {name}",),
                    help=_either(name, who, blockers) if blockers else f"drop {name}",
                )
            )
        if problems:
            raise EffspecError(tuple(problems))


def _parameters(absent: Sequence[nodes.Parameter]) -> str:
    return f"parameter{'s' * (len(absent) > 1)} {listed([f'`{one.name.id}`' for one in absent])}"


def _set(absent: Sequence[nodes.Parameter]) -> str:
    return " ".join(f"--set {one.name.id}=..." for one in absent)


def _required(owner: str, absent: Sequence[nodes.Parameter], rule: nodes.Expr) -> str:
    """How to give a rule the parameters that it needs: where it is stated, in a file or in a request."""
    more = "..., " if isinstance(rule, nodes.Call) and rule.arguments else ""
    call = f"{owner}({more}{', '.join(f'{one.name.id} = ...' for one in absent)})"
    it = "it" if len(absent) == 1 else "them"
    if rule.span.source.name not in (COMMAND_LINE, CALL):
        return f"give {it} here: `with {call}`"
    return f"give {it}: `{_set(absent)}`, or `{call}`"


def _either(name: str, who: str, blockers: list[str]) -> str:
    """What to drop where `who` gives what `name` would decide."""
    if who == "the request":
        return f"drop {listed(blockers)}, or drop {name}"
    return f"drop {who} to have {listed(blockers)} computed from {name}, or drop {name} to keep {who} as it is"


def _mentions(node: nodes.Model, rules: Sequence[nodes.Scaling], parameter: str, name: str, seen: set[str]) -> bool:
    """Whether the default of `parameter` would, directly or through hooks and other defaults, read `name`."""
    if parameter in seen:
        return False
    seen.add(parameter)
    every = [*node.parameters, *(parameter for rule in rules for parameter in rule.parameters)]
    texts: list[nodes.Node] = [p.default for p in every if p.name.id == parameter and p.default is not None]
    texts += [hook.result for rule in rules for hook in rule.hooks if hook.name.id == parameter]
    words = [part.id for text in texts for part in nodes.descend(text) if isinstance(part, nodes.Name)]
    return name in words or any(_mentions(node, rules, word, name, seen) for word in words)
