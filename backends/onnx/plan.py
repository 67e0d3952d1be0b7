"""Takes every decision about the ONNX model of a graph: names, operators, shapes, and whether it can be written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from effspec.backends.onnx.dynamic import free_axes
from effspec.backends.onnx.parts import Builder, Dimension, Plan, Port, Unsupported, place
from effspec.backends.onnx.rules import ROWS

from effspec.backend import Choice, Unit
from effspec.diagnostics import Diagnostic, EffspecError, Label
from effspec.ir.graph import Graph, Node, Tree, Value
from effspec.passes import FOLDS, run

# The oldest IR version that allows each opset: what reads the opset reads the file.
IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10}
SAFE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
_AXES = ("height", "width")


@dataclass(frozen=True)
class Settings:
    """The options of a compilation, typed; `batch` is 0 for one that the caller chooses."""

    opset: int = 18
    fold: str = "batch_norm"
    batch: int = 0
    dynamic: bool = False
    double: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Choice]) -> Settings:
        return cls(
            opset=int(options["opset"]),
            fold=str(options["fold"]),
            batch=int(options["batch"]),
            dynamic=bool(options["dynamic_size"]),
            double=options["dtype"] == "float64",
        )


def plan(unit: Unit, settings: Settings) -> Plan:
    """The model as plain parts; EffspecError E0704 names every node that cannot be written with these settings."""
    graph = run(unit.graph, FOLDS[settings.fold])
    problems: list[Diagnostic] = []
    free: Mapping[Value, frozenset[int]] = {}
    if settings.dynamic:
        free, fixed = free_axes(graph)
        problems += [_problem(node, f"height and width cannot be dynamic: {reason}") for node, reason in fixed]

    def port(name: str, value: Value, chosen: bool = False) -> Port:
        kind = graph.type(value)
        axes = free.get(value, frozenset())
        shape: list[Dimension] = [settings.batch or "batch"] if kind.batched else []
        for axis, size in enumerate(kind.shape):
            # Only the input's sizes are the caller's to choose; the others follow from them.
            shape.append(size if axis not in axes else _AXES[axis - 1] if chosen else None)
        return Port(name, tuple(shape))

    names, outputs = _names(graph)
    builder = Builder(graph, settings.opset, settings.double, settings.fold != "none")
    builder.taken.update(names.values(), (name for name, _ in outputs))
    builder.taken.update(parameter.path for parameter in graph.parameters(buffers=True))
    for node in graph:
        results = tuple(names[Value(node.id, output)] for output in range(len(node.types)))
        builder.start(node, results)
        try:
            if node.op == "parameter":
                builder.weight(node.parameters["value"])
            elif node.op != "input":
                ROWS[node.op](builder, node, tuple(names[value] for value in node.inputs))
        except Unsupported as reason:
            problems.append(_problem(node, reason.message, reason.help))
        except KeyError:
            if node.op in ROWS:
                raise
            problems.append(_problem(node, f"target `onnx` cannot express the operator `{node.op}`"))
    for name, value in outputs:
        # A result that has another name already: an input, a parameter, or what is exported twice.
        if names[value] != name:
            builder.alias(name, names[value])
    inputs = [port(names[Value(node.id)], Value(node.id), chosen=True) for node in graph.inputs]
    problems += _clashes(graph, [*(i.name for i in inputs), *(name for name, _ in outputs)])
    if problems:
        raise EffspecError(tuple(problems))
    ends = {i.name for i in inputs} | {name for name, _ in outputs}
    return Plan(
        name=unit.variant or unit.name,
        opset=settings.opset,
        ir_version=IR_VERSIONS[settings.opset],
        double=settings.double,
        calls=tuple(builder.calls),
        initializers=tuple(builder.initializers.values()),
        inputs=tuple(inputs),
        outputs=tuple(port(name, value) for name, value in outputs),
        values=tuple(
            port(name, value)
            for value, name in names.items()
            if name not in ends and graph[value.node].op != "parameter"
        ),
        metadata=_metadata(unit),
    )


def _names(graph: Graph) -> tuple[dict[Value, str], list[tuple[str, Value]]]:
    """The name of every value, and the outputs in order."""
    names: dict[Value, str] = {}
    for node in graph:
        for output in range(len(node.types)):
            if node.op == "input":
                name = node.path
            elif node.op == "parameter":
                name = node.parameters["value"].path
            else:
                name = place(node) + (f".{output}" if len(node.types) > 1 else "")
            names[Value(node.id, output)] = name
    outputs = [pair for output in graph.outputs for pair in _flat(output.name, output.value)]
    for name, value in outputs:
        if graph[value.node].op not in ("input", "parameter") and names[value].startswith("/"):
            names[value] = name
    return names, outputs


def _flat(name: str, tree: Tree) -> list[tuple[str, Value]]:
    if isinstance(tree, Value):
        return [(name, tree)]
    return [pair for position, branch in enumerate(tree) for pair in _flat(f"{name}.{position}", branch)]


def _clashes(graph: Graph, ends: list[str]) -> list[Diagnostic]:
    """Names that ONNX, where inputs, outputs and parameters share one space, would confuse."""
    weights = {parameter.path for parameter in graph.parameters(buffers=True)}
    found = sorted(name for name in set(ends) if ends.count(name) > 1 or name in weights)
    return [
        Diagnostic(
            "E0704",
            f"target `onnx` needs one name for one tensor: `{name}` names an input or output and something else",
            help="rename the input, the output or the parameter",
        )
        for name in found
    ]


def _problem(node: Node, message: str, help: str | None = None) -> Diagnostic:
    label = Label(node.span, f"this is `{node.path}`") if node.span else None
    return Diagnostic("E0704", message if label else f"{message} (at `{node.path}`)", label, help=help)


def _metadata(unit: Unit) -> dict[str, str]:
    """What the file says about itself: the model, never who made it or where."""
    facts = {
        "effspec.spec": unit.spec,
        "effspec.model": unit.name,
        "effspec.variant": unit.variant or "",
        "effspec.scale": unit.scale,
        "effspec.scaling": unit.scaling,
        "effspec.params": str(unit.params or ""),
        "effspec.macs": str(unit.macs or ""),
        "effspec.hash": unit.hashes.get("function", ""),
    }
    return {key: value for key, value in facts.items() if value} | dict(sorted(unit.metadata.items()))
