"""What goes wrong in training is said in a sentence, with what to do; and no checkpoint is lost."""

from __future__ import annotations

import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from effspec.cli import main
from tests import training


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.script(tmp_path_factory.mktemp("script"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training.pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def data(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def empty_class(data: Path) -> None:
    (data / "train" / "empty").mkdir()
    (data / "val" / "empty").mkdir()


def truncated(data: Path) -> None:
    picture = data / "train" / "disc" / "00.png"
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    noise.save(picture.with_suffix(".jpg"), quality=95)
    whole = picture.with_suffix(".jpg").read_bytes()
    for path in (data / "train").glob("*/*.png"):
        path.unlink()
    for name in training.CLASSES:
        for number in range(8):
            (data / "train" / name / f"{number}.jpg").write_bytes(whole)
    picture.with_suffix(".jpg").write_bytes(whole[: len(whole) // 2])


def no_picture(data: Path) -> None:
    for path in (data / "train" / "box").glob("*.png"):
        path.write_text("no picture")


def floats(data: Path) -> None:
    Image.fromarray(numpy.full((30, 30), 0.5, dtype=numpy.float32)).save(data / "val" / "box" / "zz.tiff")


def fourth_class(data: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(data / part / "box", data / part / "square")


def other_classes(data: Path) -> None:
    (data / "val" / "box").rename(data / "val" / "boxes")


def no_val(data: Path) -> None:
    shutil.rmtree(data / "val")


def bad_shard(data: Path) -> None:
    shutil.rmtree(data / "train")
    (data / "train-0000.tar").write_bytes(b"no archive" * 100)


def unchanged(data: Path) -> None:
    pass


CASES: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    (
        empty_class,
        (),
        "error: the class folder DATA/train/empty has no picture (.jpg, .jpeg, .png, .bmp ...)\n"
        "  = help: remove the folder, or put the pictures of that class there\n",
    ),
    (
        truncated,
        (),
        "error: cannot read the picture DATA/train/disc/00.jpg: image file is truncated (... bytes not processed)\n"
        "  = help: repair or remove it, or leave such out with --broken skip\n",
    ),
    (
        no_picture,
        ("--broken", "skip", "--batch-size", "3"),
        "",
    ),
    (
        floats,
        (),
        "error: DATA/val/box/zz.tiff has values beyond 16 bits (mode F)\n  = help: save it with 8 bits a channel\n",
    ),
    (
        fourth_class,
        (),
        "error: DATA has 4 classes, and the network 3\n  = help: compile it for them: --set classes=4\n",
    ),
    (
        other_classes,
        (),
        "error: train and val have different classes: box, boxes in one of them only\n"
        "  = help: the folders of train/ and val/ have the same names\n",
    ),
    (
        no_val,
        (),
        "error: there are no pictures in DATA/val\n"
        "  = help: it holds val/CLASS/PICTURE (folders), or val-*.tar (WebDataset)\n",
    ),
    (
        bad_shard,
        (),
        "error: cannot read the shard DATA/train-0000.tar: ...\n"
        "  = help: it is an uncompressed tar file of pictures and .cls texts\n",
    ),
    (
        unchanged,
        ("--batch-size", "1000"),
        "error: a step takes 1000 pictures, and there are 48\n  = help: give --batch-size 48 or less\n",
    ),
    (
        unchanged,
        ("--accumulate", "5"),
        "error: --batch-size 24 is no multiple of 1 processes x 5 parts\n  = help: change it, or --accumulate\n",
    ),
    (
        unchanged,
        ("--shard",),
        "error: --shard has no effect in one process\n  = help: drop it, or start several: torchrun train.py ...\n",
    ),
    (
        unchanged,
        ("--device", "gpu"),
        "error: there is no device called gpu\n  = help: give cpu, cuda or cuda:1\n",
    ),
    (
        unchanged,
        ("--device", "mps"),
        "error: training runs on CPUs and CUDA devices, found --device mps\n  = help: give cpu, cuda or cuda:1\n",
    ),
    (
        unchanged,
        ("--weights", "missing.safetensors"),
        "error: cannot read the weights missing.safetensors: ...",
    ),
]


def fits(pattern: str, text: str) -> bool:
    parts = (re.escape(part) for part in pattern.split("..."))
    return re.fullmatch(".*?".join(parts), text, re.DOTALL) is not None


@pytest.mark.parametrize(
    ("spoil", "words", "message"), CASES, ids=[f"{spoil.__name__}{''.join(words)}" for spoil, words, _ in CASES]
)
def test_said_in_a_sentence(
    spoil: Callable[[Path], None], words: tuple[str, ...], message: str, data: Path, script: Path, tmp_path: Path
) -> None:
    spoil(data)
    done = training.train(script, "--data", str(data), "--output", str(tmp_path / "run"), *words)
    said = done.err.replace(str(data), "DATA")
    if not message:
        assert done.status == 0 and "note: left out: cannot read the picture DATA/train/box/" in said
        return
    assert done.status == 1
    assert fits(message, said), said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--epocs", "3"), "there is no option --epocs: did you mean --epochs?"),
        (("--optimizer", "adam"), "--optimizer cannot be adam: did you mean adamw?; it is one of sgd, adamw, rmsprop"),
        (("--flip", "1.5"), "--flip is from 0 to 1, found 1.5"),
        (("--epochs", "0"), "--epochs is 1 or more, found 0"),
        (("--lr", "nan"), "--lr is 0 or more, found nan"),
        (("--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
        ((), "--data is missing: give the folder of the pictures"),
    ],
)
def test_the_command_line_of_the_script(words: tuple[str, ...], message: str, script: Path) -> None:
    data = ("--data", "x") if words else ()
    done = training.run(script, "train.py", *data, *words)
    assert done.status == 2
    assert done.err == f"error: {message}\n  = help: `python train.py --help` lists every option\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        # Two steps an epoch: the first leaves weights with which the second has no loss.
        (("--batch-size", "24", "--log-every", "1"), "the loss became nan by step 4 (learning rate ...)"),
        # One step an epoch: its evaluation sees it.
        (("--batch-size", "48"), "the held-out loss became nan by step 2 (learning rate ...)"),
    ],
)
def test_a_loss_that_is_no_number_keeps_the_checkpoint(
    words: tuple[str, ...], message: str, data: Path, script: Path, tmp_path: Path
) -> None:
    """Stopped where the loss is first seen to be none, and nothing of it is written."""
    run = tmp_path / "run"
    words = ("--data", str(data), "--output", str(run), "--warmup-epochs", "0", *words)
    assert training.train(script, *words, "--epochs", "1", "--schedule", "constant").status == 0
    before = {path.name: path.read_bytes() for path in run.glob("*.*") if path.suffix in (".pt", ".safetensors")}
    settings = run / "settings.json"
    settings.write_text(settings.read_text().replace('"lr": null', '"lr": 1e+30').replace('"epochs": 1', '"epochs": 9'))
    done = training.train(script, *words, "--epochs", "9", "--schedule", "constant", "--lr", "1e30")
    assert done.status == 1
    help = (
        f"{run}/last.safetensors is as it was before; start a run with a smaller --lr, a longer --warmup-epochs, "
        "or --clip-norm 1"
    )
    assert fits(f"error: {message}\n  = help: {help}\n", done.err), done.err
    assert before == {name: (run / name).read_bytes() for name in before}


def test_a_picture_that_breaks_later_costs_nothing(data: Path, script: Path, tmp_path: Path) -> None:
    """The run stops at it; when it is mended, it goes on, and gives the weights of a run without the trouble."""
    words = ("--data", str(data), "--epochs", "4", "--save-every", "1")
    assert training.train(script, *words, "--output", str(tmp_path / "whole")).status == 0
    picture = data / "val" / "cross" / "03.png"
    mended = picture.read_bytes()
    picture.write_bytes(mended[:60])
    done = training.train(script, *words, "--output", str(tmp_path / "run"))
    assert done.status == 1 and "cannot read the picture" in done.err
    picture.write_bytes(mended)
    assert training.train(script, *words, "--output", str(tmp_path / "run")).status == 0
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_full_disk_keeps_the_last_checkpoint(data: Path, script: Path, tmp_path: Path) -> None:
    """No file may grow beyond what fits: the old checkpoint is whole, and the run goes on from it."""
    run = tmp_path / "run"
    words = ("--data", str(data), "--output", str(run), "--epochs", "3", "--save-every", "1", "--batch-size", "16")
    room = 300_000  # less than the weights
    limits = (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    started = training.process(script, *words, preexec_fn=lambda: _limit(limits))
    _, err = started.communicate(timeout=120)
    assert started.returncode == 1
    assert fits(
        f"error: cannot write {run}/last.safetensors: file too large\n"
        "  = help: make room and start again: the run goes on from its last checkpoint\n", err
    ), err  # fmt: skip
    assert not list(run.glob("*.tmp")) and not list(run.glob(".*"))
    assert training.train(script, *words).status == 0


def _limit(limits: tuple[int, int]) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(data: Path, script: Path, tmp_path: Path) -> None:
    done = training.train(script, "--data", str(data), "--output", str(tmp_path / "run"), "--device", "cuda")
    assert (done.status, done.err) == (
        1,
        "error: --device cuda: PyTorch finds no GPU here\n  = help: drop it, or install PyTorch for CUDA\n",
    )


def test_too_little_memory(data: Path, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch.nn.Linear, "forward", full)
    done = training.train(script, "--data", str(data), "--output", str(tmp_path / "run"))
    assert (done.status, done.err) == (
        1,
        "error: the GPU has too little memory for a step\n  = help: a smaller --batch-size, or more parts of it "
        "(--accumulate), --recompute or --precision bfloat16\n",
    )


def test_another_run_is_not_mixed_with_one(data: Path, script: Path, tmp_path: Path) -> None:
    words = ("--data", str(data), "--output", str(tmp_path / "run"), "--epochs", "1")
    assert training.train(script, *words).status == 0
    done = training.train(script, *words, "--lr", "0.3", "--seed", "2")
    assert (done.status, done.err) == (
        1,
        f"error: the run in {tmp_path}/run has other settings: seed was 0 and is 2, lr was None and is 0.3\n"
        "  = help: give the same, or another --output\n",
    )
    other = training.script(tmp_path / "other", "b0", size=48)
    done = training.train(other, *words)
    assert done.err == f"error: the run in {tmp_path}/run is of another network\n  = help: give another --output\n"


def test_weights_of_other_classes(data: Path, script: Path, tmp_path: Path) -> None:
    weights = tmp_path / "ten.safetensors"
    point = ["b0", "--set", "size=32", "--set", "width=0.25", "--set", "depth=0.3", "--set", "classes=10"]
    assert main(["weights", "init", *point, "-o", str(weights)]) == 0
    done = training.train(script, "--data", str(data), "--weights", str(weights), "--output", str(tmp_path / "run"))
    assert done.err == (
        f"error: {weights} does not fit: classifier.bias is [10] there, and [3] in the model\n"
        "  = help: `effspec weights convert` moves checkpoints of other programs; with --new-head, to other classes\n"
    )


# effspec train and compile --with-training ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (
            ["compile", "b0", "--with-training", "--target", "onnx"],
            2,
            "Error: --with-training writes PyTorch code: drop --target onnx",
        ),
        (
            ["compile", "b0", "--with-training", "-o", "-"],
            2,
            "Error: --with-training writes a folder, which `-o -` has no use for: drop one of them",
        ),
        (
            ["compile", "b0", "--with-training", "--weights", "x.safetensors"],
            2,
            "Error: --weights has no effect: give them to the script, python train.py --weights FILE",
        ),
        (["compile", "b0", "--train-size", "24"], 2, "Error: --train-size has no effect without --with-training"),
        (
            ["compile", "b0", "--with-training", "--train-size", "24by3"],
            2,
            "Error: Invalid value for '--train-size': '24by3' is no size: write N, or HEIGHTxWIDTH",
        ),
        (["train", "b0"], 2, "Error: Missing option '--data'"),
        (["train", "b0", "--data", "x", "--epocs", "3"], 2, "Error: No such option...--epocs...--epochs"),
        (
            ["train", "unet", "--data", "x", "-o", "run"],
            1,
            "error[E0722]: UNet gives something else than a score for each class\n..."
            " = help: effspec trains classifiers: one picture in, and one score for each class out\n",
        ),
    ],
)
def test_commands(
    words: list[str], status: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == status
    said = capsys.readouterr().err
    assert fits(f"...{message.rstrip()}...", said), said
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_another_model_keeps_its_code(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point = ["b0", "--set", "width=0.25", "--set", "depth=0.3", "--set", "classes=3"]
    more = ["--data", str(data), "-o", str(tmp_path / "run"), "--epochs", "1", "--batch-size", "24", "--workers", "0"]
    assert main(["train", *point, "--set", "size=32", *more]) == 0
    code = (tmp_path / "run" / "code" / "model.py").read_bytes()
    capsys.readouterr()
    assert main(["train", *point, "--set", "size=48", *more]) == 1
    assert f"error[E0711]: {tmp_path}/run holds the run of another model" in capsys.readouterr().err
    assert (tmp_path / "run" / "code" / "model.py").read_bytes() == code
