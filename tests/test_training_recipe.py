"""The parts of the training script against what none of us wrote: timm's optimisers, torch's schedules, WebDataset."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from tests import training
from tests.emitted import TOLERANCE
from tests.test_onnx import distance


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.script(tmp_path_factory.mktemp("script"))


@pytest.fixture(scope="module")
def parts(script: Path) -> SimpleNamespace:
    names = ("settings", "recipe", "data", "point", "checkpoint", "parallel")
    with training.modules(script, *names) as found:
        return SimpleNamespace(**dict(zip(names, found, strict=True)))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 5)).double()


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 20) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=draws)).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_rmsprop_is_that_of_tensorflow(decay: float, parts: SimpleNamespace) -> None:
    from timm.optim.rmsprop_tf import RMSpropTF

    first, second = net(), net()
    options = {"lr": 0.01, "momentum": 0.9, "eps": 1e-3, "weight_decay": decay}
    ours = steps(first, parts.recipe.RMSprop(first.parameters(), **options))
    theirs = steps(second, RMSpropTF(second.parameters(), alpha=0.9, **options))
    assert distance([p.numpy() for p in ours], [p.numpy() for p in theirs]) < TOLERANCE


def test_averages_are_those_of_torch(parts: SimpleNamespace) -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = net()
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    ours = parts.recipe.Average(model.state_dict(), 0.9)
    ours.updates = 1000  # beyond where its decay is still growing
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        steps(model, optimizer, 1)
        theirs.update_parameters(model)
        ours.update(model.state_dict())
    for name, tensor in theirs.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(ours.state[name], tensor, rtol=1e-12, atol=1e-14), name
    assert ours.state["1.num_batches_tracked"] == model[1].num_batches_tracked


def test_averages_follow_quickly_at_first(parts: SimpleNamespace) -> None:
    """The decay of TensorFlow's averages: min(decay, (1 + updates) / (10 + updates))."""
    ours = parts.recipe.Average({"w": torch.zeros(1)}, 0.9999)
    for update in range(1, 4):
        before = float(ours.state["w"])
        ours.update({"w": torch.ones(1)})
        decay = (1 + update) / (10 + update)
        assert float(ours.state["w"]) == pytest.approx(decay * before + 1 - decay)


def test_learning_rates(parts: SimpleNamespace) -> None:
    Settings, rate = parts.settings.Settings, parts.recipe.learning_rate
    paper = Settings(schedule="exponential", lr=0.256, warmup_epochs=0, epochs=350)
    # Tan & Le 2019, section 5.2: 0.256, which decays by 0.97 every 2.4 epochs.
    assert [rate(paper, step, 10) for step in (0, 23, 24, 47, 48)] == pytest.approx(
        [0.256, 0.256, 0.256 * 0.97, 0.256 * 0.97, 0.256 * 0.97**2]
    )
    warm = Settings(schedule="cosine", lr=1.0, warmup_epochs=2, epochs=10)
    rates = [rate(warm, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0 and rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert Settings(batch_size=1024).learning_rate == pytest.approx(0.4)  # Goyal et al. 2017


def test_norms_and_biases_do_not_decay(parts: SimpleNamespace) -> None:
    model = net()
    made = parts.recipe.optimizer(model, parts.settings.Settings(optimizer="adamw"))
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.05, 0, 0, 0, 0.05, 0]
    made = parts.recipe.optimizer(model, parts.settings.Settings(optimizer="adamw", decay_all=True))
    assert [group["weight_decay"] for group in made.param_groups] == [0.05]


# Data -----------------------------------------------------------------------------------------------------------------


def shards(data: Path, folder: Path) -> Path:
    """The pictures of a folder in the package's own shards, in the order of their names."""
    from webdataset import ShardWriter

    folder.mkdir()
    for part in ("train", "val"):
        with ShardWriter(str(folder / f"{part}-%04d.tar"), maxcount=20, verbose=0) as writer:
            paths = sorted((data / part).glob("*/*.png"))
            for number, path in enumerate(paths):
                label = training.CLASSES.index(path.parent.name)
                writer.write({"__key__": f"{number:05d}", "png": path.read_bytes(), "cls": label})
    (folder / "classes.txt").write_text("\n".join(training.CLASSES) + "\n")
    return folder


def test_shards_train_as_folders_do(script: Path, tmp_path: Path) -> None:
    """What the package webdataset writes is read as it reads it, and gives the weights that the folder gives."""
    import webdataset

    data = training.pictures(tmp_path / "pictures")
    tars = shards(data, tmp_path / "shards")
    assert len(list(tars.glob("train-*.tar"))) > 1
    with training.modules(script, "data") as [ours]:
        found = ours.find(str(tars), "train")
        urls = [str(path) for path in sorted(tars.glob("train-*.tar"))]
        theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
        assert [(found.read(i), found.label(i)) for i in range(len(found))] == [
            (item["png"], int(item["cls"])) for item in theirs
        ]
    for name in (data, tars):
        assert training.train(script, "--data", str(name), "--output", str(tmp_path / f"run_{name.name}")).status == 0
    same = [(tmp_path / f"run_{name}" / "last.safetensors").read_bytes() for name in ("pictures", "shards")]
    assert same[0] == same[1]


def test_readers_change_nothing(script: Path, tmp_path: Path) -> None:
    """Two reading processes, none: the same pictures, the same weights."""
    data = training.pictures(tmp_path / "pictures")
    for workers in ("0", "2"):
        words = ("--workers", workers, "--augment", "rand", "--data", str(data), "--output", str(tmp_path / workers))
        assert training.train(script, *words).status == 0
    assert (tmp_path / "0/last.safetensors").read_bytes() == (tmp_path / "2/last.safetensors").read_bytes()


def decoded(parts: SimpleNamespace, picture: Image.Image, path: Path) -> list[tuple[int, ...]]:
    picture.save(path)
    found = parts.data.decode(path.read_bytes(), path.name)
    assert found.mode == "RGB"
    return [found.getpixel((x, 0)) for x in range(found.width)]


def test_pictures_of_every_mode(parts: SimpleNamespace, tmp_path: Path) -> None:
    """Grey, palettes, transparency, CMYK and 16 bits become RGB of 8 bits."""
    import numpy

    rgb = Image.new("RGB", (2, 1))
    rgb.putdata([(255, 0, 0), (10, 200, 30)])
    assert decoded(parts, rgb, tmp_path / "rgb.png") == [(255, 0, 0), (10, 200, 30)]
    assert decoded(parts, rgb.convert("RGBA"), tmp_path / "rgba.png") == [(255, 0, 0), (10, 200, 30)]
    assert decoded(parts, rgb.convert("P"), tmp_path / "p.png")[0] == (255, 0, 0)
    assert decoded(parts, rgb.convert("CMYK"), tmp_path / "cmyk.tif") == [(255, 0, 0), (10, 200, 30)]
    assert decoded(parts, rgb.convert("L"), tmp_path / "l.png") == [(76,) * 3, (124,) * 3]
    wide = Image.fromarray(numpy.array([[0, 65535, 257 * 100]], dtype=numpy.uint16))
    assert decoded(parts, wide, tmp_path / "wide.png") == [(0,) * 3, (255,) * 3, (100,) * 3]


def test_every_picture_once_an_epoch_whatever_the_processes(parts: SimpleNamespace) -> None:
    """And the pictures of a step are the same for one process as for three with two parts each."""
    settings = parts.settings.Settings(batch_size=12, seed=3)

    def epoch(processes: int, accumulate: int) -> list[list[int]]:
        split = parts.settings.Settings(batch_size=12, seed=3, accumulate=accumulate)
        each = [list(parts.data.Parts(50, split, rank, processes)) for rank in range(processes)]
        flat = [[index for _, index in part] for together in zip(*each, strict=True) for part in together]
        rows = [index for part in flat for index in part]
        return [rows[begin : begin + 12] for begin in range(0, len(rows), 12)]

    whole = epoch(1, 1)
    assert len(whole) == 4 and len({index for step in whole for index in step}) == 48
    assert epoch(3, 2) == whole
    sampler = parts.data.Parts(50, settings, 0, 1)
    sampler.first = 2
    assert [[index for _, index in part] for part in sampler] == whole[2:]
    sampler.epoch, sampler.first = 1, 0
    assert [[index for _, index in part] for part in sampler] != whole


def test_silhouettes_are_not_cut(parts: SimpleNamespace) -> None:
    """--crop-scale 1: the picture in training is the one in evaluation, at the training size."""
    picture = Image.effect_noise((61, 47), 80).convert("RGB")
    augment = parts.data.augmentation(parts.settings.Settings(crop_scale=1, flip=0))
    assert torch.equal(augment(picture), parts.data.prepare(picture))


def test_blocks_hold_all_parameters_once(script: Path) -> None:
    for spec in ("b0", "convnext", "googlenet"):
        text = training.compiled(spec).to_torch()
        with training.modules(script, "blocks") as [module]:
            held = [id(p) for block in module.blocks(text) for p in block.parameters()]
        assert len(held) == len(set(held))
        assert set(held) == {id(p) for p in text.parameters()}


def test_modules_are_apart(script: Path, parts: SimpleNamespace) -> None:
    """The helper of these tests leaves no module of a script behind."""
    import sys

    assert isinstance(parts.data, ModuleType) and "data" not in sys.modules
