"""Training scripts for tests: small pictures, a folder that `--with-training` writes, and how its script is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image, ImageDraw

import effspec
from effspec.commands.train import write

CLASSES = ("box", "cross", "disc")
# What the files of a script are called: modules of one folder must not serve another.
_NAMES = (
    "blocks", "checkpoint", "data", "evaluate", "journal", "model", "parallel", "point", "recipe", "settings", "train",
    "training_model",
)  # fmt: skip


class Said(NamedTuple):
    status: int
    out: str
    err: str


def pictures(folder: Path, train: int = 16, val: int = 8, mode: str = "RGB") -> Path:
    """Boxes, crosses and discs, `train` and `val` of each, none of them square or of the network's size."""
    draws = numpy.random.default_rng(0)
    for part, count in (("train", train), ("val", val)):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (40, 36), tuple(map(int, draws.integers(0, 100, 3))))
                x, y, r = (int(draws.integers(*limits)) for limits in ((8, 28), (8, 26), (4, 9)))
                colour = tuple(map(int, draws.integers(120, 255, 3)))
                draw = ImageDraw.Draw(picture)
                if name == "disc":
                    draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
                elif name == "box":
                    draw.rectangle([x - r, y - r, x + r, y + r], fill=colour)
                else:
                    draw.line([x - r, y - r, x + r, y + r], fill=colour, width=3)
                    draw.line([x - r, y + r, x + r, y - r], fill=colour, width=3)
                picture.convert(mode).save(folder / part / name / f"{number:02d}.png")
    return folder


SMALL: dict[str, dict[str, Any]] = {
    "b0": {"size": 32, "width": 0.25, "depth": 0.3},
    "convnext": {"size": 32, "depths": [1, 1, 2, 1], "widths": [8, 16, 24, 32]},
    "efficientnet_v2": {"size": 32, "widths": [8, 8, 16, 16, 24, 24], "depths": [1, 1, 1, 1, 1, 1]},
    "googlenet": {"size": 64},
}
_VARIANTS = {"b0": None, "convnext": "tiny", "efficientnet_v2": "s", "googlenet": "googlenet"}


def compiled(spec: str = "b0", classes: int = 3, **more: Any) -> effspec.Compiled:
    return effspec.compile(spec, variant=_VARIANTS[spec], set=SMALL[spec] | {"classes": classes} | more)


def script(folder: Path, spec: str = "b0", train_size: tuple[int, int] | None = None, **more: Any) -> Path:
    """A training script for a small network of a spec."""
    return write(compiled(spec, **more), str(folder), train_size=train_size)


def defaults(words: tuple[str, ...]) -> list[str]:
    """Short runs, in this process alone, unless the words say otherwise."""
    given = {"--batch-size": "24", "--workers": "0", "--epochs": "2", "--warmup-epochs": "1", "--device": "cpu"}
    return [part for name, value in given.items() if name not in words for part in (name, value)]


def process(folder: Path, *words: str, processes: int = 1, **more: Any) -> subprocess.Popen[str]:
    """`python train.py` as a process of its own, with effspec out of reach; with torchrun for several processes."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.Popen(
        [*start, str(folder / "train.py"), *defaults(words), *words],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"},
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


def train_apart(folder: Path, *words: str, processes: int = 1) -> Said:
    done = process(folder, *words, processes=processes)
    out, err = done.communicate(timeout=300)
    return Said(done.returncode, out, err)


def train(folder: Path, *words: str) -> Said:
    """The same in this process: its imports are there already."""
    return run(folder, "train.py", *defaults(words), *words)


def run(folder: Path, name: str, *words: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    status: Any = 0
    deterministic = torch.are_deterministic_algorithms_enabled()
    with own_modules(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        before, sys.argv = sys.argv, [name, *words]
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            runpy.run_path(str(folder / name), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
        finally:
            sys.argv = before
            torch.use_deterministic_algorithms(deterministic)
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Said(int(status or 0), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """The modules of a script's folder by their plain names, here and nowhere else."""
    kept = {name: sys.modules.pop(name) for name in _NAMES if name in sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


@contextlib.contextmanager
def modules(folder: Path, *names: str) -> Iterator[list[ModuleType]]:
    """Modules of a script's folder, imported."""
    with own_modules(folder):
        yield [__import__(name) for name in names]


def curve(run: Path, name: str = "loss") -> list[float]:
    """A value at each step at which it was logged."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def arrays(path: Path) -> Mapping[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: Mapping[str, torch.Tensor] = load_file(path)
    return found
