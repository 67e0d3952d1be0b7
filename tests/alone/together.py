"""What several processes do with a model together, started with torchrun's variables: a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import torch.distributed as dist
from subject import Subject, equal, gradients, pictures
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel


def replicated(subject: Subject) -> None:
    """DDP by two processes, each with half of the batch; it looks for no unused parameters."""
    trained_together(subject, DistributedDataParallel)


def sharded(subject: Subject) -> None:
    """FSDP2: every block of the network wrapped, then the network."""
    blocks = importlib.import_module("blocks").blocks

    def wrap(model: nn.Module) -> nn.Module:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        parts = blocks(model)
        assert len(parts) > 1
        for part in parts:
            fully_shard(part, mesh=mesh)
        return fully_shard(model, mesh=mesh)

    trained_together(subject, wrap)


def trained_together(subject: Subject, wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Two steps from one process's weights: gradients, weights and buffers as of one process with the whole batch."""
    subject = subject.double()
    x = pictures(tuple(subject.pictures.shape[1:]), batch=2 * dist.get_world_size()).double()
    single, model = still(subject.copied()), still(subject.copied())
    net = wrap(model)
    optimizers = [torch.optim.SGD(part.parameters(), lr=1e-3, momentum=0.9) for part in (single, model)]
    for _ in range(2):
        expected = gradients(single, single, x)
        found = gradients(model, net, x[dist.get_rank() :: dist.get_world_size()])
        equal([whole(gradient) for gradient in found.values()], list(expected.values()))
        for optimizer in optimizers:
            optimizer.step()
    equal([whole(t) for t in model.state_dict().values()], list(single.state_dict().values()))


def still(model: nn.Module) -> nn.Module:
    """In training mode but for what is random or depends on the batch."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout) or type(module).__name__ == "DropPath":
            module.eval()
    return model


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


USES: dict[str, Callable[[Subject], None]] = {"ddp": replicated, "fsdp": sharded}
