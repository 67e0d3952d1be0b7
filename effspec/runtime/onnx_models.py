"""Runs ONNX models: in ONNX Runtime, and in float64 by the reference evaluator of the package `onnx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from effspec.runtime.runners import Artefact, Runner

if TYPE_CHECKING:
    from pathlib import Path

    from effspec.ops.meaning import Array


def _in_runtime(artefact: Artefact, inputs: Mapping[str, Array], seen: list[Array] | None = None) -> Sequence[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    path = artefact.path if seen is None else _opened(artefact.path)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return _split(session.run(None, dict(inputs)), artefact, seen)


def _in_evaluator(artefact: Artefact, inputs: Mapping[str, Array], seen: list[Array] | None = None) -> Sequence[Array]:
    from math import erf

    import onnx
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class Erf(OpRun):
        """The evaluator's own rounds to float32."""

        op_domain = ""

        def _run(self, x: Array) -> tuple[Array]:
            return (numpy.fromiter(map(erf, x.ravel().tolist()), x.dtype, x.size).reshape(x.shape),)

    model = onnx.load(artefact.path if seen is None else _opened(artefact.path))
    given = {name: array.astype(numpy.float64) for name, array in inputs.items()}
    return _split(list(ReferenceEvaluator(model, new_ops=[Erf]).run(None, given)), artefact, seen)


def _opened(path: Path) -> Path:
    """A copy of the model, beside it, whose outputs are followed by every tensor that it computes."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    model.graph.output.extend(model.graph.value_info)
    made = path.with_stem(path.stem + "_opened")
    made.write_bytes(model.SerializeToString())
    return made


def _split(found: Sequence[Any], artefact: Artefact, seen: list[Array] | None) -> list[Array]:
    from effspec.ir.graph import leaves

    count = sum(len(leaves(output.value)) for output in artefact.compiled.graph.outputs if not output.training)
    if seen is not None:
        seen.extend(found)
    return list(found[:count])


RUNNERS = (
    Runner("onnx", "ONNX Runtime", "onnxruntime", "onnxruntime", "float32", _in_runtime),
    Runner("onnx", "onnx.reference", "onnx", "onnx", "float64", _in_evaluator, {"dtype": "float64"}),
)
