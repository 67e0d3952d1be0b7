"""Processes that train together: `torchrun --nproc-per-node 8 train.py ...` starts them, on one machine or many."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from blocks import blocks
from settings import Mistake, Settings

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
_FROM_FIRST = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


class Processes:
    """All processes of a run, seen from one of them: alone, or started by torchrun."""

    def __init__(self, settings: Settings) -> None:
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        self.together = "WORLD_SIZE" in os.environ
        self.device = _device(settings.device)
        for name, wanted in (("--shard", settings.shard), ("--sync-batch-norm", settings.sync_batch_norm)):
            if wanted and not self.together:
                raise Mistake(
                    f"{name} has no effect in one process", "drop it, or start several: torchrun train.py ..."
                )
        if settings.sync_batch_norm and self.device.type != "cuda":
            raise Mistake("--sync-batch-norm works on GPUs only", "drop it")

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.together:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure the others may wait for this one: torchrun ends them, and to say goodbye would wait for them.
        if self.together and kind is None:
            dist.barrier()
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module, settings: Settings) -> nn.Module:
        """The model as it is called: with copies (DDP) or shares (FSDP2) of its parameters in all processes."""
        if not self.together:
            return model
        if settings.shard:
            mesh = init_device_mesh(self.device.type, (self.count,))
            for block in blocks(model):
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
            return model
        return DistributedDataParallel(model, device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean over all processes."""
        return self.sum(value) / self.count

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.together:
            dist.all_reduce(value)
        return value

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Give every process the first one's values."""
        if self.together:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def agree(self, step: int, folder: Path) -> None:
        """Stop where processes would go on from different steps: they do not see the same folder."""
        steps = torch.tensor([step, -step], device=self.device)
        if self.together:
            dist.all_reduce(steps, dist.ReduceOp.MAX)
        if steps.sum() != 0:
            raise Mistake(
                f"not every process finds the run in {folder}", "--output is a folder that all machines share"
            )


def _device(wanted: str) -> torch.device:
    """The device of this process: of several on a machine, each has its own GPU."""
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(wanted or (own if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise Mistake(f"there is no device called {wanted}", "give cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise Mistake(f"training runs on CPUs and CUDA devices, found --device {wanted}", "give cpu, cuda or cuda:1")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Mistake(f"--device {wanted}: PyTorch finds no GPU here", "drop it, or install PyTorch for CUDA")
    if (
        wanted
        and device.type == "cuda"
        and device.index is not None
        and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1
    ):
        raise Mistake(f"--device {wanted} would be the GPU of every process", "drop it: each process takes its own")
    return torch.device(own) if device.type == "cuda" and device.index is None else device


def leave(status: int) -> NoReturn:
    """End this process; one of several at once, for Python's own end may meet threads of gloo that are still there."""
    if "WORLD_SIZE" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def last_part(net: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """A context in which gradients are exchanged after the last part of a step only."""
    if isinstance(net, FSDPModule):
        net.set_requires_gradient_sync(last)
    if isinstance(net, DistributedDataParallel) and not last:
        return net.no_sync()
    return nullcontext()


# Whole tensors, wherever they are kept --------------------------------------------------------------------------------


def whole(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors without shares; every process has to ask."""
    return {name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor for name, tensor in state.items()}


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor as the other one is kept."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
    return tensor


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state without shares; every process has to ask."""
    if isinstance(model, FSDPModule):
        return get_optimizer_state_dict(model, optimizer, options=_FULL)
    return optimizer.state_dict()


def load_optimizer(model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    if isinstance(model, FSDPModule):
        set_optimizer_state_dict(model, optimizer, state, options=_FROM_FIRST)
    else:
        optimizer.load_state_dict(state)


def load_model(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    if isinstance(model, FSDPModule):
        set_model_state_dict(model, dict(state), options=_FROM_FIRST)
    else:
        model.load_state_dict(state)
