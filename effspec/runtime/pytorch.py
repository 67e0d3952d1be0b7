"""Runs emitted PyTorch source: in float64, so that what differs is no rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from effspec.runtime.runners import Artefact, Runner

if TYPE_CHECKING:
    from effspec.ops.meaning import Array


def _run(artefact: Artefact, inputs: Mapping[str, Array], seen: list[Array] | None = None) -> Sequence[Array]:
    import torch

    from effspec.runtime.module import module

    compiled = artefact.compiled
    text = artefact.path.read_text(encoding="utf-8")
    model = module(text, compiled.name, compiled.stem, compiled.graph, artefact.weights).eval().double()
    given = [torch.from_numpy(inputs[name].astype(numpy.float64)) for name in compiled.input_shapes]
    with torch.no_grad():
        if seen is None:
            found = model(*given)
        else:
            with _recorder(seen):
                found = model(*given)
    return [tensor.numpy() for tensor in _flat(found)]


def _recorder(seen: list[Array]) -> Any:
    """A context in which the results of every operator, down to those inside of modules, are kept."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            seen.extend(tensor.detach().numpy().copy() for tensor in _flat(result))
            return result

    return Recorder()  # type: ignore[no-untyped-call]


def _flat(value: Any) -> list[Any]:
    """The floating tensors of a result."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, dict):
        value = value.values()
    return [tensor for item in value for tensor in _flat(item)] if not isinstance(value, int | float | None) else []


RUNNERS = (Runner("torch", "PyTorch", "torch", "'effspec[torch]'", "float64", _run),)
