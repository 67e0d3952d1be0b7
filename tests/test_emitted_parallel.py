"""Emitted models trained by two processes: the same gradients and weights as by one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from tests.emitted import CASES, TOLERANCE, built, frozen, lively, small, text_of

STEPS, BATCH = 2, 4

WORKER = """
import sys
import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import emitted

rank = int(sys.argv[1])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}/meeting", rank=rank, world_size=2)
torch.manual_seed(rank)
model = getattr(emitted, sys.argv[3])(drop_rate=0.0, drop_path_rate=0.0).double()
given = torch.load("given.pt")
if rank == 0:
    model.load_state_dict(given["state"])  # the other one gets its weights from this one
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.eval()
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.01, momentum=0.9)
for images, labels in zip(given["images"], given["labels"]):
    optimizer.zero_grad()
    F.cross_entropy(parallel(images[rank::2]), labels[rank::2]).backward()
    optimizer.step()
gradients = {name: p.grad for name, p in model.named_parameters()}
torch.save({"gradients": gradients, "state": model.state_dict()}, f"taken{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each of them has half of the batch; DDP looks for no unused parameters.  In float64, batch norm in evaluation."""
    compiled, x = small(CASES[0]), torch.Generator().manual_seed(0)
    state = {path: t.double() if t.is_floating_point() else t for path, t in lively(CASES[0]).state_dict().items()}
    images = [torch.randn(BATCH, *compiled.input_shape, generator=x, dtype=torch.float64) for _ in range(STEPS)]
    labels = [torch.randint(1000, (BATCH,), generator=x) for _ in range(STEPS)]
    torch.save({"state": state, "images": images, "labels": labels}, tmp_path / "given.pt")
    (tmp_path / "emitted.py").write_text(text_of(compiled))
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "worker.py"]
    workers = [
        subprocess.Popen([*command, rank, tmp_path, compiled.name], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]

    model = built(compiled, drop_rate=0.0, drop_path_rate=0.0).double()
    model.load_state_dict(state)
    optimizer = torch.optim.SGD(frozen(model).parameters(), lr=0.01, momentum=0.9)
    for pictures, answers in zip(images, labels, strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(pictures), answers).backward()
        optimizer.step()

    try:
        said = [worker.communicate(timeout=300)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    for taken in (torch.load(tmp_path / f"taken{rank}.pt") for rank in (0, 1)):
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            for found, expected in (
                (taken["gradients"][name], parameter.grad),
                (taken["state"][name], parameter.detach()),
            ):
                assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max().clamp_min(1e-9), name
