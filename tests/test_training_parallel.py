"""Several processes train as one: DDP and FSDP2 on the CPU (gloo), in float64."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests import training
from tests.emitted import TOLERANCE

SAME = (
    "--precision", "float64", "--log-every", "1", "--epochs", "3", "--optimizer", "adamw", "--lr", "0.002",
    "--augment", "trivial", "--ema", "0.9", "--deterministic",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.pictures(tmp_path_factory.mktemp("pictures"))


def check(first: Path, second: Path) -> None:
    for name in ("loss", "val_loss", "top1"):
        found, expected = training.curve(second, name), training.curve(first, name)
        assert len(found) > 2 and found == pytest.approx(expected, rel=TOLERANCE), name
    ours, theirs = (training.arrays(run / "best.safetensors") for run in (first, second))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        if "running" not in name:  # each process has its own pictures for them
            assert tensor.numpy() == pytest.approx(theirs[name].numpy(), rel=1e-5, abs=1e-6), name


@pytest.fixture(scope="module")
def layer_norm(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, Path]:
    """A network with layer norm, and its run in one process."""
    folder = training.script(tmp_path_factory.mktemp("script"), "convnext")
    words = ("--data", str(data), "--drop-path-rate", "0", "--output", str(folder / "one"))
    assert training.train(folder, *SAME, *words).status == 0
    return folder, folder / "one"


@pytest.mark.parametrize("words", [(), ("--shard",), ("--shard", "--recompute")], ids=["ddp", "fsdp", "fsdp-recompute"])
def test_two_processes_of_a_layer_norm_net_are_one(
    words: tuple[str, ...], layer_norm: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    """The batch is the same, and half of it in each process gives the same loss, step by step."""
    folder, one = layer_norm
    more = ("--data", str(data), "--drop-path-rate", "0", "--output", str(tmp_path / "two"), *words)
    done = training.train_apart(folder, *SAME, *more, processes=2)
    assert done.status == 0, done.err
    check(one, tmp_path / "two")


@pytest.mark.parametrize("more", [(), ("--shard",)], ids=["ddp", "fsdp"])
def test_two_processes_of_a_batch_norm_net_are_two_parts(more: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    """Each half of a batch is normalised by itself, in two processes as in two parts; what is dropped is the same."""
    folder = training.script(tmp_path / "script", "b0")
    words = ("--data", str(data), "--drop-path-rate", "0.2", "--drop-rate", "0.2", "--mixup", "0.2")
    done = training.train(folder, *SAME, *words, "--accumulate", "2", "--output", str(tmp_path / "parts"))
    assert done.status == 0, done.err
    done = training.train_apart(folder, *SAME, *words, *more, "--output", str(tmp_path / "two"), processes=2)
    assert done.status == 0, done.err
    best = max(training.curve(tmp_path / "two", "top1"))
    told = training.run(folder, "evaluate.py", str(tmp_path / "two" / "best.safetensors"), "--data", str(data))
    assert told.out.startswith(f"top-1 {best:.2f} %"), "what is kept is not what was judged"
    assert training.curve(tmp_path / "two") == pytest.approx(training.curve(tmp_path / "parts"), rel=TOLERANCE)


def test_a_sharded_run_goes_on(layer_norm: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    """Killed in its second epoch, a sharded run of two goes on, and ends where it would have."""
    folder, one = layer_norm
    words = (*SAME, "--data", str(data), "--drop-path-rate", "0", "--shard", "--save-every", "1")
    run = tmp_path / "run"
    started = training.process(folder, *words, "--output", str(run), processes=2)
    end = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < end:
        if (run / "log.jsonl").exists() and len(training.curve(run)) >= 3:
            break
        time.sleep(0.01)
    # torchrun's processes have sessions of their own: what ends it does not end them.
    for child in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)
    started.communicate(timeout=120)
    assert len(training.curve(run)) < len(training.curve(one)), "it came to its end"
    done = training.train_apart(folder, *words, "--output", str(run), processes=2)
    assert done.status == 0, done.err
    check(one, run)
