"""The target `ir`: the graph as text, for people and for comparing two specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from effspec.backend import Choice, File, Option, Unit, Weights
from effspec.diagnostics import Diagnostic
from effspec.ir.graph import Graph
from effspec.ir.text import graph_text


def emit_text(graph: Graph) -> str:
    """The graph as its stable text form."""
    return graph_text(graph)


class _TextBackend:
    name = "ir"
    doc = "the graph as text: one line a node, then outputs and tensors"
    suffix = ".ir.txt"
    binary = False
    options: Mapping[str, Option] = {}
    reads_weights = False

    def check(self, unit: Unit, options: Mapping[str, Choice]) -> list[Diagnostic]:
        """Every graph has a text."""
        return []

    def emit(
        self, unit: Unit, weights: Weights | None, options: Mapping[str, Choice], filename: str
    ) -> tuple[File, ...]:
        """One file."""

        def chunks() -> Iterator[bytes]:
            yield emit_text(unit.graph).encode()

        return (File(filename, chunks),)


BACKEND = _TextBackend()
