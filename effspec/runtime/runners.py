"""What runs a target's artefact, whether it can run here, and the table of all of them.

A runtime is one object: a row of the module that knows it, and that module's name in `MODULES`.  A module imports its
runtime when a model runs, never before: to look whether a package is installed costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from effspec.backend import Choice, Weights
    from effspec.ops.meaning import Array
    from effspec.pipeline import Compiled

MODULES = ("effspec.runtime.pytorch", "effspec.runtime.onnx_models")


@dataclass(frozen=True)
class Artefact:
    """A model as a target wrote it: the first file, what it was compiled from, and the numbers that it stands for."""

    path: Path
    compiled: Compiled
    weights: Weights


class Run(Protocol):
    """Runs an artefact on inputs by name (float32, with a batch) and gives its outputs from left to right.

    Where `seen` is a list, every tensor that is computed on the way is added to it, in NCHW and in any order.
    """

    def __call__(
        self, artefact: Artefact, inputs: Mapping[str, Array], seen: list[Array] | None = None
    ) -> Sequence[Array]: ...


@dataclass(frozen=True)
class Runner:
    """One way to run a target.

    `package` is the distribution that it needs and `install` what to give pip; `dtype` is what it computes in, and
    `options` what the target is compiled with for it.  `tolerance` is, for float64, the largest difference over the
    largest value that is no difference.
    """

    target: str
    name: str
    package: str
    install: str
    dtype: Literal["float32", "float64"]
    run: Run = field(repr=False)
    options: Mapping[str, Choice] = field(default_factory=dict)
    tolerance: float = 1e-9

    @property
    def version(self) -> str | None:
        """The installed version; None where it cannot run here."""
        try:
            return metadata.version(self.package)
        except metadata.PackageNotFoundError:
            return None

    @property
    def title(self) -> str:
        """`ONNX Runtime 1.32.0, float32`."""
        return f"{self.name} {self.version}, {self.dtype}"

    @property
    def state(self) -> str:
        """Whether it can run here, in words: `runs here in ONNX Runtime 1.32.0 (float32)`."""
        if self.version is None:
            return f"would run in {self.name}: pip install {self.install}"
        return f"runs here in {self.name} {self.version} ({self.dtype})"


def runners(target: str | None = None) -> Iterator[Runner]:
    """All ways to run a target, or every target, installed or not."""
    for module in MODULES:
        for runner in import_module(module).RUNNERS:
            if target in (None, runner.target):
                yield runner
