"""The ONNX backend: `effspec compile SPEC --target onnx`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import ref

from effspec.backend import Choice, File, Option, Unit, Weights
from effspec.diagnostics import Diagnostic, EffspecError, fail

if TYPE_CHECKING:
    from effspec.backends.onnx.parts import Plan
    from effspec.backends.onnx.plan import Settings

OPSETS = range(13, 23)

# A side file's name is read back from the model by runtimes: nothing in it may lead to another folder.
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")


class Onnx:
    """An `effspec.backend.Backend`.  The `onnx` package is imported when a file is made, not before."""

    name = "onnx"
    doc = "an ONNX model with its weights, for ONNX Runtime and others"
    suffix = ".onnx"
    binary = True
    reads_weights = True
    options: Mapping[str, Option] = {
        "opset": Option(18, "ONNX operator set", tuple(OPSETS)),
        "fold": Option(
            "batch_norm",
            "what is folded into convolutions: nothing (initializers then are named as in the state dict), batch norm, "
            "or also parallel linear branches",
            ("batch_norm", "none", "linear"),
        ),
        "batch": Option(0, "images in a batch; 0 leaves it to the caller"),
        "dynamic_size": Option(False, "leave height and width to the caller, too"),
        "dtype": Option("float32", "type of inputs, weights and outputs", ("float32", "float64")),
    }

    def __init__(self) -> None:
        self._latest: tuple[ref[Unit], Settings, Plan] | None = None

    def check(self, unit: Unit, options: Mapping[str, Choice]) -> list[Diagnostic]:
        """What of the model ONNX cannot express with these options."""
        try:
            self._planned(unit, options)
        except EffspecError as error:
            return list(error.diagnostics)
        return []

    def emit(
        self, unit: Unit, weights: Weights | None, options: Mapping[str, Choice], filename: str
    ) -> tuple[File, ...]:
        """The model, with its weights in a second file if they exceed 2 GiB; raises what `check` would find."""
        from effspec.backends.onnx.emit import files

        if weights is None:
            raise ValueError("an ONNX model has weights: give a source of them")
        made = files(self._planned(unit, options), weights, filename)
        if len(made) > 1 and not _PLAIN.fullmatch(filename):
            raise fail(
                "E0705",
                f"a model above 2 GiB has a second file, which cannot be named after `{filename}`",
                help="choose an output name of letters, digits, dots, dashes and underscores",
            )
        return made

    def _planned(self, unit: Unit, options: Mapping[str, Choice]) -> Plan:
        """The plan; the latest is kept while its unit lives, since `check` and `emit` follow each other."""
        from effspec.backends.onnx.plan import Settings, plan

        settings = Settings.of(options)
        if self._latest is not None:
            latest, chosen, made = self._latest
            if latest() is unit and chosen == settings:
                return made
        made = plan(unit, settings)
        self._latest = (ref(unit), settings, made)
        return made


BACKEND = Onnx()
