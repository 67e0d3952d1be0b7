"""The target `torch`: readable, stand-alone PyTorch source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from effspec.backend import Choice, File, Option, Unit, Weights
from effspec.diagnostics import Diagnostic


class _TorchBackend:
    name = "torch"
    doc = "PyTorch source: one readable file that imports torch alone"
    suffix = ".py"
    binary = False
    needs: tuple[str, ...] = ("jinja2",)
    options: Mapping[str, Option] = {}
    reads_weights = False

    def check(self, unit: Unit, options: Mapping[str, Choice]) -> list[Diagnostic]:
        """Every operator of the table has a text."""
        return []

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
