"""What one process does with a model: a table."""

from __future__ import annotations

import importlib
import io
import pickle
from collections.abc import Callable, Iterator

import torch
from subject import SINGLE, Subject, equal, gradients, pictures, same, tensors
from torch import nn
from torch.nn import functional as F

HALF = 0.85  # bfloat16: the cosine between outputs, over up to a hundred blocks of random weights


def compiled(subject: Subject, backend: str = "aot_eager") -> None:
    """`torch.compile(fullgraph=True)`: outputs, and gradients in training mode."""
    torch.compiler.reset()
    subject = subject.double()
    run = torch.compile(subject.copied(), fullgraph=True, backend=backend)
    with torch.no_grad():
        equal(tensors(run(subject.pictures)), subject.outputs)
    plain, model = subject.copied().train(), subject.copied().train()
    for module in [*plain.modules(), *model.modules()]:  # drawn, and never dropped: compiled code draws other numbers
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif type(module).__name__ == "DropPath":
            module.rate = 1e-12
    run = torch.compile(model, fullgraph=True, backend=backend)
    expected = gradients(plain, plain, subject.pictures)
    equal(list(gradients(model, run, subject.pictures).values()), list(expected.values()))


def inductor(subject: Subject) -> None:
    """torch's own code generator."""
    compiled(subject, "inductor")


def exported(subject: Subject) -> None:
    """`torch.export`: one graph, with a free batch size."""
    subject = subject.double()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(subject.copied(), (subject.pictures,), dynamic_shapes=({0: batch},))
    x = pictures(tuple(subject.pictures.shape[1:]), batch=3).double()
    with torch.no_grad():
        equal(tensors(program.module()(x)), tensors(subject.model(x)))


def bfloat16(subject: Subject) -> None:
    """By autocast and throughout: nothing falls back, and outputs point where they did; autocast trains."""
    model, x = subject.copied(), subject.pictures
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            found = tensors(model(x))
        found += tensors(subject.copied().bfloat16()(x.bfloat16()))
    for one, other in zip(found, subject.outputs * 2, strict=True):
        assert one.dtype == torch.bfloat16, f"an output is {one.dtype}"
        cosine = F.cosine_similarity(one.float().flatten(), other.flatten(), dim=0)
        assert cosine > HALF, f"cosine {cosine:.3f}"
    with torch.autocast("cpu", torch.bfloat16):
        trained = gradients(model.train(), model, x)
    for name, gradient in trained.items():
        assert gradient.dtype == torch.float32 and gradient.isfinite().all(), f"gradient of {name}"


def channels_last(subject: Subject) -> None:
    """Every convolution's map has its channels last in memory, and most of them are given such maps.

    What is shuffled, attended to, or filtered by weights of each picture lies otherwise, here as in the peers.
    """
    model, given, made = subject.copied().to(memory_format=torch.channels_last), [], []

    def look(module: nn.Module, inputs: tuple[torch.Tensor, ...], y: torch.Tensor) -> None:
        given.append(inputs[0].stride(1) == 1)  # some channels of a larger map, too
        made.append(y.is_contiguous(memory_format=torch.channels_last))

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(look)
    with torch.no_grad():
        equal(tensors(model(subject.pictures.to(memory_format=torch.channels_last))), subject.outputs, SINGLE)
    assert all(made) and 2 * sum(given) > len(given), f"channels first at {len(given) - sum(given)} of {len(given)}"


def recomputed(subject: Subject) -> None:
    """Activation checkpointing by stage: gradients and statistics of a pass that keeps everything."""
    plain, model = subject.copied().train(), subject.copied().train()
    calls = []
    parts = dict(stages(model))
    for name, stage in parts.items():
        leaf = next(module for module in stage.modules() if not list(module.children()))
        leaf.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        importlib.import_module("blocks").recompute(stage)
    expected = gradients(plain, plain, subject.pictures)
    equal(list(gradients(model, model, subject.pictures).values()), list(expected.values()), SINGLE)
    equal(list(model.state_dict().values()), list(plain.state_dict().values()), SINGLE)
    # The call of a stage that is one layer is not repeated, only its forward.
    once = [name for name, stage in parts.items() if list(stage.children()) and calls.count(name) < 2]
    assert once == [], f"computed once: {once}"


def stages(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A model's children that hold parameters; those of its lists and dictionaries in their place."""
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList | nn.ModuleDict):
            yield from stages(part, f"{prefix}{name}.")
        elif any(True for _ in part.parameters()):
            yield f"{prefix}{name}", part


def meta(subject: Subject) -> None:
    """Built without memory, and moved there; weights come afterwards."""
    with torch.device("meta"):
        born = subject.cls().eval()
    moved = subject.copied().to("meta")
    for model in (born, moved):
        assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    born.load_state_dict(subject.copied().state_dict(), assign=True)
    moved.to_empty(device="cpu").load_state_dict(subject.model.state_dict())
    for model in (born, moved):
        same(model, subject)


def state(subject: Subject) -> None:
    """`state_dict` through a file that is read without pickle, into another model."""
    file = io.BytesIO()
    torch.save(subject.model.state_dict(), file)
    file.seek(0)
    other = subject.cls().eval()
    assert str(other.load_state_dict(torch.load(file, weights_only=True))) == "<All keys matched successfully>"
    same(other, subject)


def copied(subject: Subject) -> None:
    """`copy.deepcopy`: the same, and another one."""
    other = subject.copied()
    same(other, subject)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    same(subject.model, subject)


def pickled(subject: Subject) -> None:
    same(pickle.loads(pickle.dumps(subject.model)), subject)


def another_head(subject: Subject) -> None:
    """The last layer that is called can be replaced by one of another width."""
    model, called = subject.copied(), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    with torch.no_grad():
        model(subject.pictures)
        last = model.get_submodule(called[-1])
        conv = isinstance(last, nn.Conv2d)
        own = nn.Conv2d(last.in_channels, 29, last.kernel_size) if conv else nn.Linear(last.in_features, 29)
        model.set_submodule(called[-1], own)
        assert any(29 in y.shape for y in tensors(model(subject.pictures))), f"{called[-1]} is not the last"


def subclassed(subject: Subject) -> None:
    """Blocks can be replaced by subclasses of theirs: whatever the file builds, it builds by name."""
    file = importlib.import_module(subject.cls.__module__)
    blocks = {
        name: kind
        for name, kind in vars(file).items()
        if isinstance(kind, type) and kind.__module__ == file.__name__ and kind is not subject.cls
    }
    mine = {name: type(f"My{name}", (kind,), {}) for name, kind in blocks.items()}
    try:
        vars(file).update(mine)
        model = subject.cls().eval()
    finally:
        vars(file).update(blocks)
    model.load_state_dict(subject.model.state_dict())
    same(model, subject)
    assert {type(module) for module in model.modules()}.isdisjoint(blocks.values())


USES: dict[str, Callable[[Subject], None]] = {
    "compile": compiled,
    "inductor": inductor,
    "export": exported,
    "bfloat16": bfloat16,
    "channels_last": channels_last,
    "recompute": recomputed,
    "meta": meta,
    "state_dict": state,
    "deepcopy": copied,
    "pickle": pickled,
    "head": another_head,
    "subclass": subclassed,
}
