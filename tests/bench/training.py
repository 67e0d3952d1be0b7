"""Training an emitted module beside timm's own model: time of a step, of inference, to compile, and peak memory.

    python tests/bench/training.py [--models resnet50 ...] [--work train] [--pairs 20] [--no-compile]

Both sides have the same weights, drop rates, pictures and settings, and are checked to compute the same.  A pair is one
measurement of each, and who comes first takes turns; a row is the median ratio of the pairs (above 1: ours is faster)
with the interval that holds 95% of its resamplings.  A step is forward, cross entropy, backward, SGD with momentum.

On CUDA: batch 256 of 224 x 224, bfloat16 autocast, channels last, time by the GPU's clock.  On a CPU: one thread,
float32, batch 16 of 96 x 96 (PyTorch gives 1x1 convolutions of smaller batches on one thread to another library); the
ratio of CPU time stands beside that of wall time, because a busy machine disturbs it less.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # read at import: nothing comes from an earlier compilation

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402


@dataclass(frozen=True)
class Pair:
    """A variant of a spec and the model of timm that it is, with the drop rates that both are given."""

    spec: str
    variant: str
    peer: str
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0


MODELS = {
    "b0": Pair("b0", "b0", "efficientnet_b0", 0.2, 0.2),
    "resnet50": Pair("resnet", "resnet50", "resnet50"),
    "convnext_tiny": Pair("convnext", "tiny", "convnext_tiny", 0.0, 0.1),
    "regnety_4gf": Pair("regnet", "y_4gf", "regnety_040"),
}


@dataclass(frozen=True)
class Settings:
    device: str
    batch: int
    size: int
    channels_last: bool
    steps: int

    def ready(self, model: nn.Module) -> nn.Module:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def pictures(self) -> torch.Tensor:
        x = torch.randn(self.batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.device, memory_format=layout)

    def labels(self) -> torch.Tensor:
        return (torch.arange(self.batch) * 37 % 1000).to(self.device)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")


# The two sides -------------------------------------------------------------------------------------------------------


def write(pair: Pair, path: Path) -> None:
    """The emitted file, and timm's initial weights under its names beside it."""
    import timm

    import effspec
    from tests.parity import move

    compiled = effspec.compile(str(ROOT / "specs" / f"{pair.spec}.eff"), variant=pair.variant)
    path.write_text(str(compiled.emit("torch")))
    torch.manual_seed(0)
    peer = timm.create_model(pair.peer)
    ours = {name: torch.from_numpy(array) for name, array in move(peer, compiled).items()}
    torch.save({"name": compiled.name, "ours": ours, "theirs": peer.state_dict()}, path.with_suffix(".pt"))


def build(pair: Pair, side: str, path: Path) -> nn.Module:
    """One side with the common weights; a process that builds ours alone imports neither timm nor effspec."""
    saved = torch.load(path.with_suffix(".pt"))
    rates = {"drop_rate": pair.drop_rate, "drop_path_rate": pair.drop_path_rate}
    if side == "ours":
        spec = importlib.util.spec_from_file_location("emitted", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model: nn.Module = getattr(module, saved["name"])(**rates)
    else:
        import timm

        model = timm.create_model(pair.peer, **rates)
    model.load_state_dict(saved[side], strict=side == "theirs")  # ours lacks the counters of batch norm
    return model


def same(ours: nn.Module, theirs: nn.Module, size: int) -> None:
    """Stop unless both compute the same and drop the same."""
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = theirs.eval()(x), ours.eval()(x)
    rates = [
        [rate for m in model.modules() if type(m).__name__ == "DropPath" and (rate := getattr(m, name)) > 0]
        for model, name in ((ours, "rate"), (theirs, "drop_prob"))
    ]
    dropouts = [m.p for m in ours.modules() if isinstance(m, nn.Dropout)]
    close = torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    if not close or [round(r, 6) for r in rates[0]] != [round(r, 6) for r in rates[1]] or len(dropouts) != 1:
        raise SystemExit("the two models are not the same function: nothing to compare")


# Measuring -----------------------------------------------------------------------------------------------------------


class Trainer:
    """One side in training: `train` and `infer` do the steps of one measurement."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.model, self.settings = model.train(), settings
        self.run: Callable[[torch.Tensor], torch.Tensor] = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        self.x, self.labels = settings.pictures(), settings.labels()

    def train(self) -> None:
        self.model.train()
        for _ in range(self.settings.steps):
            with self.settings.autocast():
                loss = F.cross_entropy(self.run(self.x), self.labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def infer(self) -> None:
        self.model.eval()
        with torch.no_grad(), self.settings.autocast():
            for _ in range(self.settings.steps):
                self.run(self.x)


def processor() -> float:
    """CPU seconds of this process and of the compilers that it ran."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(work: Callable[[], None], device: str) -> tuple[float, float]:
    """Wall seconds, by the device's own clock where it has one, and CPU seconds."""
    busy = processor()
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        wall = start.elapsed_time(end) / 1000
    else:
        begun = time.perf_counter()
        work()
        wall = time.perf_counter() - begun
    return wall, processor() - busy


def pairs(ours: Callable[[], None], theirs: Callable[[], None], count: int, device: str) -> list[list[float]]:
    """`count` rows of our wall and CPU time, and theirs; who comes first takes turns."""
    rows = []
    for n in range(count):
        if n % 2:
            second = timed(theirs, device)
            first = timed(ours, device)
        else:
            first = timed(ours, device)
            second = timed(theirs, device)
        rows.append([*first, *second])
    return rows


def median(ratios: list[float]) -> str:
    """The median, and the middle 95% of the medians of 2,000 resamplings."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return f"{statistics.median(ratios):.3f} [{medians[50]:.3f}, {medians[1949]:.3f}]"


def show(name: str, rows: list[list[float]], images: int) -> None:
    """A line of the table: our time and theirs, and how many times as fast ours is."""
    ours, theirs = (1000 * statistics.median(row[n] for row in rows) / images for n in (0, 2))
    wall, cpu = (median([row[n + 2] / row[n] for row in rows]) for n in (0, 1))
    print(f"{name:32}{ours:11.2f} {theirs:11.2f}   {wall:22} {cpu:22}", flush=True)


def peak(pair: Pair, side: str, path: Path, settings: Settings) -> list[float]:
    """Megabytes at most in a step of training and in inference, beyond what stood before them (in a fresh process)."""
    if settings.device == "cpu":
        torch.set_num_threads(1)
    trainer = Trainer(settings.ready(build(pair, side, path)), settings)
    found = []
    for work in (trainer.train, trainer.infer):
        work()  # what is loaded at the first use does not count
        if settings.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            work()
            found.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the maximum resident set starts again from now
            before = resident("VmRSS")
            work()
            found.append(resident("VmHWM") - before)
    return found


def resident(field: str) -> float:
    """A line of what Linux says of this process's memory, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def steps(name: str, trainers: list[Trainer], given: argparse.Namespace, settings: Settings) -> None:
    for work in given.work:
        functions = [getattr(trainer, work) for trainer in trainers]
        pairs(*functions, count=2, device=settings.device)  # not counted
        rows = pairs(*functions, count=given.pairs, device=settings.device)
        show(f"{name}, {work}", rows, settings.batch * settings.steps)


def compiling(name: str, trainers: list[Trainer], count: int, device: str) -> None:
    """Compile ours and theirs by turns, up to the end of a first measurement; those of the last pair stay."""

    def work(trainer: Trainer) -> Callable[[], None]:
        def compile_and_train() -> None:
            trainer.run = torch.compile(trainer.model, fullgraph=True)
            trainer.train()

        return compile_and_train

    small = torch.compile(nn.Linear(2, 2).to(device))
    small(torch.ones(1, 2, device=device)).sum().backward()  # what is loaded at the first use is nobody's
    rows = []
    for n in range(count):
        torch.compiler.reset()
        sides = trainers if n % 2 == 0 else trainers[::-1]
        found = [timed(work(trainer), device) for trainer in sides]
        ours, theirs = found if n % 2 == 0 else found[::-1]
        rows.append([*ours, *theirs])
    show(name, rows, 1000)


def memory(name: str, pair: Pair, path: Path, settings: Settings) -> None:
    """A process for each side, in which freed tensors go back to the kernel at once: resident is what is needed."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        found = [pool.submit(peak, pair, side, path, settings).result() for side in ("ours", "theirs")]
    for work, ours, theirs in zip(("train", "infer"), *found, strict=True):
        print(f"{f'{name}, {work}, peak (MB)':32}{ours:11.0f} {theirs:11.0f}   {theirs / ours:.3f}", flush=True)


def main() -> None:
    given = _arguments()
    cuda = given.device == "cuda"
    settings = Settings(given.device, given.batch, given.size, channels_last=cuda, steps=given.steps)
    if not cuda:
        torch.set_num_threads(1)
    machine = torch.cuda.get_device_name() if cuda else "CPU, one thread"
    print(
        f"torch {torch.__version__}, {machine}; batch {given.batch}, {given.size} x {given.size}, {given.pairs} pairs"
    )
    print(f"{'milliseconds an image':32}{'effspec':>11} {'timm':>11}   {'times as fast (wall)':22} {'by CPU time':22}")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models:
            pair, path = MODELS[name], Path(folder) / f"{name}.py"
            write(pair, path)
            models = [build(pair, side, path) for side in ("ours", "theirs")]
            same(*models, size=settings.size)
            trainers = [Trainer(settings.ready(model), settings) for model in models]
            steps(f"{name}, eager", trainers, given, settings)
            if not given.no_compile:
                compiling(f"{name}, to compile (s)", trainers, given.compiles, settings.device)
                steps(f"{name}, compiled", trainers, given, settings)
            if not given.no_memory:
                memory(f"{name}, eager", pair, path, settings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--work", nargs="+", choices=("train", "infer"), default=["train", "infer"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, help="256 on CUDA, 16 on a CPU")
    parser.add_argument("--size", type=int, help="224 on CUDA, 96 on a CPU")
    parser.add_argument("--steps", type=int, help="in one measurement: 10 on CUDA, 1 on a CPU")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--compiles", type=int, help="pairs of compilations: 4 on CUDA, 1 on a CPU, where it is slow")
    parser.add_argument("--no-compile", action="store_true", help="eager only")
    parser.add_argument("--no-memory", action="store_true", help="no peak memory (which needs CUDA or Linux)")
    given = parser.parse_args()
    cuda = given.device == "cuda"
    for name, gpu, cpu in (("batch", 256, 16), ("size", 224, 96), ("steps", 10, 1), ("compiles", 4, 1)):
        if getattr(given, name) is None:
            setattr(given, name, gpu if cuda else cpu)
    return given


if __name__ == "__main__":
    main()
