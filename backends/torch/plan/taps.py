"""Which labelled lines of a model used as a layer are read by the model around it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from effspec.layers import Instance, Taps
from effspec.syntax import nodes


def find_taps(root: Instance) -> dict[Instance, list[tuple[str, Any]]]:
    """For each model applied with `.taps`: the paths and tensors of its lines that something reads, in order."""
    found: dict[Instance, list[tuple[str, Any]]] = {}

    def visit(instance: Instance) -> None:
        for application in instance.applied.values():
            if application.child is not None and isinstance(application.output, Taps):
                read = {
                    id(v) for (node, _), v in instance.values.items() if isinstance(node, nodes.Attribute | nodes.Index)
                }
                found[application.child] = [(word, v) for word, v in _flat("", application.output) if id(v) in read]
        for child in instance.children:
            visit(child)

    visit(root)
    return found


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, Taps):
        yield prefix, value
        return
    for word, inner in value.entries.items():
        yield from _flat(f"{prefix}.{word}" if prefix else str(word), inner)
