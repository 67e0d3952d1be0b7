"""The blocks of a network: what several processes share as one, and what is computed again to save memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts that hold parameters and are called as one: blocks, and what stands between stages."""
    return _blocks(model, sum(parameter.numel() for parameter in model.parameters()) / 2)


def _blocks(model: nn.Module, most: float) -> list[nn.Module]:
    found: list[nn.Module] = []
    for part in model.children():
        size, inner = sum(parameter.numel() for parameter in part.parameters()), list(part.children())
        row = isinstance(part, nn.Sequential) and any(True for child in inner for _ in child.children())
        whole = bool(inner) and size > most  # a backbone: it holds most of the parameters, so it is no block itself
        if row or whole or isinstance(part, nn.ModuleList | nn.ModuleDict):
            found += _blocks(part, most)
        elif size:
            found.append(part)
    return found


def recompute(block: nn.Module) -> None:
    """Keep no activation within a block: its backward pass computes them again."""
    forward = block.forward

    def again(*inputs: Any) -> Any:
        # Compiled, statistics are updated once anyway, and this context cannot be.
        once: Any = {} if torch.compiler.is_compiling() else {"context_fn": lambda: (nullcontext(), _still(block))}
        return checkpoint(forward, *inputs, use_reentrant=False, **once)

    block.forward = again


@contextmanager
def _still(block: nn.Module) -> Iterator[None]:
    """Batch norms count what they see once: not when it is computed again."""
    norms = [module for module in block.modules() if isinstance(module, _BATCH_NORMS)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, seen) in zip(norms, kept, strict=True):
        norm.momentum, norm.num_batches_tracked = 0.0, None if seen is None else seen.clone()
    try:
        yield
    finally:
        for norm, (momentum, seen) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, seen
