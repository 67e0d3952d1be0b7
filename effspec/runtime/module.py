"""The emitted PyTorch source as a live module, with its weights."""

from __future__ import annotations

import hashlib
import linecache
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import torch

from effspec.ir.graph import Graph

if TYPE_CHECKING:
    from effspec.backend import Weights


def module(text: str, class_name: str, stem: str, graph: Graph, weights: Weights) -> torch.nn.Module:
    """An instance of the class that the source defines, at its compiled point, in training mode as any new module.

    Every tensor of the graph is loaded by its path from `weights`.  The source is imported once a process under a name
    of its content, and is in `linecache`: tracebacks show it, `copy.deepcopy` and pickling within the process work.
    """
    made: torch.nn.Module = getattr(_imported(text, stem), class_name)()
    tensors = made.state_dict()
    with torch.no_grad():
        for parameter in graph.parameters(training=True, buffers=True):
            # A memory-mapped tensor is read-only, and PyTorch warns of it even though it is only read here.
            tensors.pop(parameter.path).copy_(torch.tensor(weights.tensor(parameter)))
    # What is left counts batches, which no other target has.
    unknown = [name for name in tensors if not name.endswith("num_batches_tracked")]
    if unknown:
        raise RuntimeError(f"the emitted module has tensors that its graph lacks: {', '.join(unknown)}")
    return made


def _imported(text: str, stem: str) -> ModuleType:
    name = f"effspec_{stem}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        filename = f"<{name}>"
        found = ModuleType(name)
        found.__file__ = filename
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        sys.modules[name] = found
        try:
            exec(compile(text, filename, "exec"), found.__dict__)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
