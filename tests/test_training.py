"""The training script that `--with-training` writes: whose it is, what it computes, what it keeps."""

from __future__ import annotations

import json
import math
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import effspec
from effspec.cli import main
from effspec.commands.train import write
from effspec.runtime import pictures as reading
from tests import training
from tests.emitted import TOLERANCE
from tests.test_emitted import mypy, ruff
from tests.test_onnx import distance

PLAIN = ("--crop-scale", "1", "--flip", "0", "--drop-rate", "0", "--drop-path-rate", "0")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.script(tmp_path_factory.mktemp("script"))


# The folder -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "train_size"), [("b0", None), ("efficientnet_v2", (24, 40))])
def test_the_script_is_clean(
    spec: str, train_size: tuple[int, int] | None, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Formatted, without a warning of ruff, typed; and nothing in it imports effspec."""
    more = {"size": [32, 32]} if train_size else {}
    folder = training.script(tmp_path / "script", spec, train_size, **more)
    assert ruff(folder) == ""
    complaints = [line for line in mypy(folder, pytestconfig) if line and not re.search("import-untyped|: note:", line)]
    assert complaints == []
    for path in folder.glob("*.py"):
        assert not re.search(r"^\s*(import|from) effspec", path.read_text(), re.MULTILINE), path
    assert all(f"`{path.name}`" in (folder / "README.md").read_text() for path in folder.glob("*.py"))


def test_written_once_and_never_over_an_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compile", "b0", "--variant", "b0", "--with-training", "-o", str(tmp_path / "mine")]
    assert main(words) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    assert main(words) == 0
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    recipe = tmp_path / "mine" / "recipe.py"
    recipe.write_text(recipe.read_text().replace("nesterov=momentum > 0", "nesterov=False"))
    capsys.readouterr()
    assert main([*words[:3], "b1", *words[4:]]) == 1
    said = capsys.readouterr().err
    assert f"error[E0711]: {recipe} was edited after effspec wrote it" in said
    assert (tmp_path / "mine" / "model.py").read_bytes() == before["model.py"]
    assert main([*words, "--force"]) == 0
    assert recipe.read_bytes() == before["recipe.py"]


def test_two_sizes_share_one_network_where_padding_allows(tmp_path: Path) -> None:
    """The pads of B0 do not depend on the size."""
    folder = training.script(tmp_path / "same", "b0", (24, 24))
    assert not (folder / "training_model.py").exists()
    with training.modules(folder, "point") as [point]:
        assert point.TrainingNetwork is point.Network
        assert (point.SIZE, point.TRAINING_SIZE) == ((32, 32), (24, 24))


SIZED = """effspec 1
import ConvNormAct from "std/conv.eff"

# Its padding is written for each size.
model Sized(classes = 3, size = 48) on image: [3, size, size] {
    prepare image(mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25], train_size = 32)
    default norm = batch_norm(), act = relu
    stem: conv(8, k = 5, s = 2, pad = size / 16)
    head: ConvNormAct(k = 3, s = 2) -> 16
    global_avg_pool()
    flatten()
    classifier: linear(classes)
}
"""


def test_another_size_in_training_has_its_own_padding(data: Path, tmp_path: Path) -> None:
    """The spec's train_size; the weights that are evaluated are those that are trained."""
    (tmp_path / "sized.eff").write_text(SIZED)
    folder = write(effspec.compile(tmp_path / "sized.eff"), str(tmp_path / "script"))
    words = ("--data", str(data), "--output", str(tmp_path / "run"))
    assert training.train(folder, *words).status == 0
    with training.modules(folder, "point") as [point]:
        trained, used = point.TrainingNetwork(), point.Network()
        assert (point.TRAINING_SIZE, trained.stem.padding) == ((32, 32), (2, 2))
        assert (point.SIZE, used.stem.padding) == ((48, 48), (3, 3))
        used.load_state_dict(trained.state_dict())
    done = training.run(folder, "evaluate.py", str(tmp_path / "run" / "best.safetensors"), "--data", str(data))
    assert done.out.startswith(f"top-1 {max(training.curve(tmp_path / 'run', 'top1')):.2f} %")


# What it computes -----------------------------------------------------------------------------------------------------


def test_the_loss_of_every_step_is_that_of_a_plain_loop(data: Path, tmp_path: Path) -> None:
    """In float64, with torchvision's pictures, torch's optimiser, loss and weights that start the same."""
    script = training.script(tmp_path / "script", "convnext")
    words = ("--batch-size", "48", "--epochs", "12", "--warmup-epochs", "3", "--lr", "0.05", "--precision", "float64")
    more = ("--log-every", "1", "--data", str(data), "--output", str(tmp_path / "run"), "--seed", "5", *PLAIN)
    assert training.train(script, *words, *more).status == 0
    with training.modules(script, "point", "data") as [point, ours]:
        torch.manual_seed(ours.stream(5))
        model = point.Network(drop_rate=0, drop_path_rate=0).double()
        prepare = v2.Compose([
            v2.Resize(point.RESIZED[0], v2.InterpolationMode.BICUBIC), v2.CenterCrop(point.SIZE), v2.PILToTensor(),
            v2.ToDtype(torch.float64, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ])  # fmt: skip
    theirs = ImageFolder(str(data / "train"), prepare)
    x, labels = torch.stack([item[0] for item in theirs]), torch.tensor([item[1] for item in theirs])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decayed}, {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-4, nesterov=True)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 4, 1, 3)
    cool = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [3])
    expected = []
    for _ in range(12):
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        expected.append(loss.item())
    assert training.curve(tmp_path / "run") == pytest.approx(expected, rel=TOLERANCE)
    assert expected[-1] < expected[0]
    trained = training.arrays(tmp_path / "run" / "last.safetensors")
    for name, tensor in model.state_dict().items():
        assert distance([trained[name].double().numpy()], [tensor.double().numpy()]) < 1e-6, name


def test_auxiliary_heads_train(tmp_path: Path) -> None:
    """GoogLeNet's heads exist in training only, and in no weights' absence."""
    data = training.pictures(tmp_path / "pictures", 3, 1)
    folder = training.script(tmp_path / "script", "googlenet")
    words = ("--batch-size", "3", "--epochs", "1", "--data", str(data), "--output", str(tmp_path / "run"))
    assert training.train(folder, *words).status == 0
    assert any(name.startswith("aux") for name in training.arrays(tmp_path / "run" / "last.safetensors"))


@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "bfloat16", "--channels-last"),
        ("--precision", "float16", "--clip-norm", "1"),
        ("--optimizer", "rmsprop", "--schedule", "exponential", "--decay-epochs", "0.5"),
        ("--optimizer", "adamw", "--decay-all", "--schedule", "constant", "--drop-path-rate", "0.4"),
        ("--mixup", "0.2", "--cutmix", "1", "--augment", "rand", "--erase", "0.5"),
        ("--augment", "trivial", "--jitter", "0.3", "--recompute", "--accumulate", "2"),
    ],
    ids=lambda words: words[0][2:] + "-" + words[1].strip("-"),
)
def test_every_setting_trains(words: tuple[str, ...], data: Path, script: Path, tmp_path: Path) -> None:
    done = training.train(script, "--data", str(data), "--output", str(tmp_path / "run"), *words)
    assert (done.status, done.err) == (0, "")
    assert all(map(math.isfinite, training.curve(tmp_path / "run")))
    assert "best top-1" in done.out


def test_recomputing_and_compiling_change_nothing(data: Path, script: Path, tmp_path: Path) -> None:
    curves = []
    for name, words in {"plain": (), "recompute": ("--recompute",), "compile": ("--compile",)}.items():
        if name == "compile":
            torch.compiler.reset()
        more = ("--epochs", "1", "--precision", "float64", "--log-every", "1", *PLAIN)
        done = training.train(script, "--data", str(data), "--output", str(tmp_path / name), *words, *more)
        assert done.status == 0, done.err
        curves.append(training.curve(tmp_path / name))
    plain, again = (training.arrays(tmp_path / name / "last.safetensors") for name in ("plain", "recompute"))
    assert all(torch.equal(plain[name], again[name]) for name in plain), "batch norms saw something twice"
    assert curves[1] == pytest.approx(curves[0], rel=TOLERANCE)
    assert curves[2] == pytest.approx(curves[0], rel=TOLERANCE)


# Interrupted ----------------------------------------------------------------------------------------------------------

MOVING = (
    "--epochs", "6", "--save-every", "2", "--ema", "0.9", "--mixup", "0.2", "--cutmix", "1", "--augment", "rand",
    "--erase", "0.3", "--drop-path-rate", "0.3", "--deterministic", "--batch-size", "8",
)  # fmt: skip


def interrupted(script: Path, run: Path, words: tuple[str, ...], after: float, number: signal.Signals) -> bool:
    """Start a run and stop it so many seconds after its first steps; whether it had come to its end before."""
    started = training.process(script, *words, "--output", str(run))
    begun = (run / "log.jsonl").stat().st_size if (run / "log.jsonl").exists() else 0
    end = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < end:
        if (run / "log.jsonl").exists() and (run / "log.jsonl").stat().st_size != begun:
            break
        time.sleep(0.01)
    try:
        started.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        started.send_signal(number)
        started.communicate(timeout=120)
        # A signal before the first step, or after the last one, is Python's or nobody's.
        assert started.returncode in ((-9,) if number == signal.SIGKILL else (130, -number, 0))
        return started.returncode == 0
    assert started.returncode == 0
    return True


def check_interruptions(script: Path, data: Path, folder: Path, count: int, seed: int) -> None:
    words = (*MOVING, "--data", str(data), "--log-every", "1")
    assert training.train_apart(script, *words, "--output", str(folder / "whole")).status == 0
    draws = random.Random(seed)
    ended = 0
    for number in range(count):
        kind = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3] if number else signal.SIGKILL
        ended += interrupted(script, folder / "broken", words, draws.random() * 0.6, kind)
    assert ended < count, "nothing was interrupted"
    assert training.train_apart(script, *words, "--output", str(folder / "broken")).status == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert (folder / "broken" / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    keep = [[{**json.loads(line), "images_per_second": 0} for line in (folder / run / "log.jsonl").open()]
            for run in ("whole", "broken")]  # fmt: skip
    assert [line for line in keep[0] if "top1" in line] == [line for line in keep[1] if "top1" in line]


def test_interrupted_runs_end_with_the_same_weights(data: Path, script: Path, tmp_path: Path) -> None:
    check_interruptions(script, data, tmp_path, 3, seed=random.randrange(1 << 32))


@pytest.mark.campaign
def test_ten_interruptions(data: Path, script: Path, tmp_path: Path) -> None:
    check_interruptions(script, data, tmp_path, 10, seed=random.randrange(1 << 32))


# To other targets -----------------------------------------------------------------------------------------------------


def test_trained_weights_are_as_good_in_onnx_picture_for_picture(data: Path, tmp_path: Path) -> None:
    """`effspec train`, `compile --weights --target onnx`, and evaluation of both."""
    point = ["b0", "--set", "size=32", "--set", "width=0.25", "--set", "depth=0.3", "--set", "classes=3"]
    words = ["--data", str(data), "--epochs", "20", "--batch-size", "16", "--workers", "0", "--device", "cpu"]
    words += ["--optimizer", "adamw", "--lr", "0.003", "--crop-scale", "0.7"]
    run = tmp_path / "run"
    assert main(["train", *point, "-o", str(run), *words]) == 0
    onnx = tmp_path / "best.onnx"
    assert (
        main(["compile", *point, "--weights", str(run / "best.safetensors"), "--target", "onnx", "-o", str(onnx)]) == 0
    )
    told = []
    for model in (run / "best.safetensors", onnx):
        answers = tmp_path / f"{model.suffix}.jsonl"
        done = training.run(run / "code", "evaluate.py", str(model), "--data", str(data), "--predictions", str(answers))
        assert done.status == 0, done.err
        told.append((done.out, [json.loads(line) for line in answers.open()]))
    assert told[0] == told[1]
    best = max(json.loads(line).get("top1", 0) for line in (run / "log.jsonl").open())
    assert told[0][0].startswith(f"top-1 {best:.2f} %")
    assert len({row["found"] for row in told[0][1]}) > 1, "it always says the same"
    import onnx as package

    names = {entry.key: entry.value for entry in package.load(onnx).metadata_props}["class_names"]
    assert json.loads(names) == list(training.CLASSES)


def test_pictures_are_prepared_as_effspec_prepares_them(tmp_path: Path) -> None:
    """Every fit and proportion: what the script gives the network is what `effspec verify --image` does."""
    from PIL import Image

    for spec, size in (("b0", 32), ("b0", [24, 40]), ("efficientnet_v2", 32)):
        compiled = training.compiled(spec, size=size)
        folder = training.script(tmp_path / f"{spec}{size}", spec, compiled.input_shape[1:], size=size)
        for width, height in ((61, 47), (47, 61), (300, 20), (32, 32)):
            name = tmp_path / f"{width}.png"
            Image.effect_noise((width, height), 80).convert("RGB").save(name)
            expected = reading.read(name, compiled.prepared("image"))
            with training.modules(folder, "data") as [data]:
                found = data.normalise(data.prepare(data.decode(name.read_bytes(), "x")))
            assert distance([found.numpy()], [expected]) < 1e-6


def test_weights_of_effspec_start_a_run(data: Path, script: Path, tmp_path: Path) -> None:
    start = tmp_path / "seed7.safetensors"
    point = ["b0", "--set", "size=32", "--set", "width=0.25", "--set", "depth=0.3", "--set", "classes=3"]
    assert main(["weights", "init", *point, "--seed", "7", "-o", str(start)]) == 0
    words = ("--data", str(data), "--weights", str(start), "--lr", "0", "--weight-decay", "0", "--epochs", "1")
    assert training.train(script, *words, "--output", str(tmp_path / "run")).status == 0
    last = training.arrays(tmp_path / "run" / "last.safetensors")
    for name, tensor in training.arrays(start).items():
        assert "running" in name or torch.equal(last[name], tensor), name


def test_tensorboard(data: Path, script: Path, tmp_path: Path) -> None:
    """The package's own reader finds what the log holds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = ("--data", str(data), "--output", str(tmp_path / "run"), "--tensorboard", "--log-every", "1")
    assert training.train(script, *words).status == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("loss", "lr", "val_loss", "top1"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx(training.curve(tmp_path / "run", name))
