"""The target `torch`: readable, stand-alone PyTorch source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from effspec.backend import Choice, File, Option, Unit, Weights
from effspec.diagnostics import Diagnostic, Label


class _TorchBackend:
    name = "torch"
    doc = "PyTorch source: one readable file that imports torch alone"
    suffix = ".py"
    binary = False
    options: Mapping[str, Option] = {}
    reads_weights = False

    def check(self, unit: Unit, options: Mapping[str, Choice]) -> list[Diagnostic]:
        """Operators that PyTorch has no row for (none of ours), several inputs, and a name that is taken."""
        from effspec.backends.torch.rules import ROWS

        from effspec.elaborate import Elaborated

        missing = {
            node.op: node for node in unit.graph if node.op not in ROWS and node.op not in ("input", "parameter")
        }
        several = [
            Diagnostic(
                "E0704",
                f"target `torch` writes models of one input, and this one has {len(unit.graph.inputs)}",
                Label(node.span) if node.span is not None else None,
                help="compile it to another target",
            )
            for node in unit.graph.inputs[1:2]
        ]
        if unit.name == "F" and isinstance(unit.elaborated, Elaborated):
            message = "target `torch` calls the functions of PyTorch `F`, and this model has the same name"
            span = unit.elaborated.model.name.span
            several.append(Diagnostic("E0704", message, Label(span), help="give the model another name"))
        return several + [
            Diagnostic(
                "E0704",
                f"the target torch cannot express the operator {op}",
                Label(node.span) if node.span is not None else None,
                help="write it with other operators, or choose another target",
            )
            for op, node in missing.items()
        ]

    def emit(
        self, unit: Unit, weights: Weights | None, options: Mapping[str, Choice], filename: str
    ) -> tuple[File, ...]:
        """One file."""
        from effspec.backends.torch.emit import emit

        text = emit(unit)

        def chunks() -> Iterator[bytes]:
            yield text.encode()

        return (File(filename, chunks),)


BACKEND = _TorchBackend()
