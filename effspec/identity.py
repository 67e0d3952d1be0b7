"""The three hashes of a compiled model: what it computes, which checkpoints fit, and what exactly was written.

Each is the SHA-256 of a canonical text, as 64 hexadecimal digits; `short` shows the first 12.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from effspec.ir.graph import Graph, Initializer, Node, Tree, Value, leaves
from effspec.ir.text import attribute_text

# How numbers came about, beside the numbers: `pad = "half"` and `pad = 1` of a 3 x 3 kernel are one function.
_PROVENANCE = frozenset({"pad_mode", "scale"})


def function(graph: Graph) -> str:
    """The hash of the lowered graph: operators, attributes, wiring, shapes and rates.

    Names, initialisers and spans do not count, nor does the order of statements that do not depend on each other:
    nodes are numbered as they are met from the outputs.
    """
    return _digest("function", _function_lines(graph))


def weights(graph: Graph) -> str:
    """The hash of whether a checkpoint fits: paths, shapes and dtypes of all tensors, those of training included."""
    parameters = graph.parameters(training=True, buffers=True)
    return _digest("weights", sorted(f"{p.path} {p.shape} float32{' buffer' if p.buffer else ''}" for p in parameters))


def hashes(
    graph: Graph,
    *,
    target: str = "",
    options: Mapping[str, bool | int | str] | None = None,
    metadata: Mapping[str, str] | None = None,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All three by name; `artefact` is of both others, input sizes, target, options, initialisers and `metadata`.

    `metadata` is what travels in the artefact beside the graph: preprocessing and class names.  `known` holds the
    graph's other two, if they were made.
    """
    known = known or {}
    found = {
        "function": known.get("function") or function(graph),
        "weights": known.get("weights") or weights(graph),
    }
    lines = [*found.values(), f"target {target!r}"]
    lines += [f"input {node.path} {node.types[0].shape}" for node in graph.inputs]
    lines += [f"output {output.name}" for output in graph.outputs]
    lines += [f"option {name!r} {value!r}" for name, value in sorted((options or {}).items())]
    parameters = graph.parameters(training=True, buffers=True)
    words = {init: _initializer(init) for init in {parameter.init for parameter in parameters}}
    lines += sorted(f"init {parameter.path} {words[parameter.init]}" for parameter in parameters)
    lines += [f"metadata {name!r} {value!r}" for name, value in sorted((metadata or {}).items())]
    return found | {"artefact": _digest("artefact", lines)}


def short(digest: str) -> str:
    """The 12 digits that people see."""
    return digest[:12]


def _digest(kind: str, lines: Iterator[str] | list[str]) -> str:
    return hashlib.sha256("\n".join([f"effspec {kind} 1", *lines]).encode()).hexdigest()


def _function_lines(graph: Graph) -> Iterator[str]:
    order = _from_outputs(graph)
    number = {node.id: position for position, node in enumerate(order)}
    tensors: dict[str, int] = {}

    def value(place: Value) -> str:
        return f"{number[place.node]}.{place.output}"

    def tree(branch: Tree) -> str:
        return value(branch) if isinstance(branch, Value) else "[" + " ".join(map(tree, branch)) + "]"

    # Operators that a model applies alike share their attributes: each is put into words once.
    words: dict[int, str] = {}
    for node in order:
        attributes = words.get(id(node.attributes))
        if attributes is None:
            attributes = words[id(node.attributes)] = " ".join(
                f"{name}={attribute_text(attribute)}"
                for name, attribute in sorted(node.attributes.items())
                if name not in _PROVENANCE and not isinstance(attribute, Initializer)
            )
        # Two nodes that share a tensor differ from two that have one each, whatever the tensors are called.
        held = " ".join(
            f"{name}:{tensors.setdefault(parameter.path, len(tensors))}"
            for name, parameter in sorted(node.parameters.items())
        )
        types = " ".join(f"{t.shape}{'' if t.batched else '-'}" for t in node.types)
        yield f"{node.op} ({' '.join(map(value, node.inputs))}) {attributes} @({held}) {types}"
    for output in graph.outputs:
        yield f"{'training ' if output.training else ''}output {tree(output.value)}"


def _from_outputs(graph: Graph) -> list[Node]:
    """The inputs, then every node that an output needs, each after what it reads, as met from the first output on."""
    order = {node.id: node for node in graph.inputs}
    for output in graph.outputs:
        for leaf in leaves(output.value):
            stack = [leaf.node]
            while stack:
                node = graph[stack[-1]]
                waiting = [value.node for value in node.inputs if value.node not in order]
                if waiting:
                    # The first operand is expanded first, so it goes on top.
                    stack.extend(reversed(waiting))
                else:
                    order.setdefault(node.id, node)
                    stack.pop()
    return list(order.values())


def _initializer(init: Initializer) -> str:
    arguments = " ".join(f"{name}={attribute_text(value)}" for name, value in sorted(init.args.items()))
    return f"{init.kind} {arguments}"
