"""`--new-head`: everything but the last layers from a checkpoint of another number of classes, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import effspec
from effspec.cli import main
from effspec.diagnostics import EffspecError
from effspec.weights import checkpoint
from effspec.weights.convert import convert
from effspec.weights.head import head
from tests import parity


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    def command(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main(words)
        return (status, *capfd.readouterr())

    return command


def small(**settings: Any) -> effspec.Compiled:
    return effspec.compile("b0", phi=-2, set={"size": 64, **settings})


WORDS = ("b0", "--phi", "-2", "--set", "size=64")


def test_another_number_of_classes_of_a_peer(run: Any) -> None:
    """timm's model with 1000 classes becomes one of 10: the features are timm's, the head is the seed's."""
    peer = parity.awaken(timm.create_model("efficientnet_b0"))
    torch.save(peer.state_dict(), "timm.pth")
    words = ("weights", "convert", "timm.pth", "--spec", "b0", "--variant", "b0", "--set", "classes=10")
    status, _, said = run(*words, "-o", "x.safetensors")
    assert status == 1 and said == (
        "error[E0805]: the checkpoint is not of this model: 311 tensors against 311, "
        "in 1 place of different kind or shape\n"
        "  = the checkpoint has `classifier.weight` (1000, 1280), `classifier.bias` (1000,), "
        "the model `classifier.weight` (10, 1280), `classifier.bias` (10,)\n"
        "  = help: choose the variant and settings that it was trained with (`--set classes=N` for another head); "
        "or `--new-head` takes all else, and starts `classifier` from initial values\n"
    )
    status, _, said = run(*words, "--new-head", "--seed", "4", "-o", "x.safetensors")
    assert status == 0 and said.splitlines()[:-1] == [
        "matched 309 of 311 tensors by structure and shape; 49 counters (num_batches_tracked) ignored",
        "new head, from the initial values of seed 4:",
        "  classifier.weight (10, 1280); the checkpoint has `classifier.weight` (1000, 1280)",
        "  classifier.bias (10,); the checkpoint has `classifier.bias` (1000,)",
    ]
    found = json.loads(run(*words, "--new-head", "--seed", "4", "-o", "x.safetensors", "--json")[1])
    assert found["schema"] == "effspec.weights-convert/1" and found["outputs"] == "first" and found["counters"] == 49
    assert found["tensors"]["stage1.0.dw.conv.weight"] == "blocks.0.0.conv_dw.weight" and len(found["tensors"]) == 309
    assert found["new_head"][0] == {
        "path": "classifier.weight", "shape": [10, 1280],
        "source": "classifier.weight", "source_shape": [1000, 1280],
    }  # fmt: skip
    net = effspec.compile("b0", variant="b0", set={"classes": 10})
    ours, x = net.to_torch(weights="x.safetensors").double().eval(), parity.picture(224).double()
    fresh = net.to_torch(seed=4).double()
    with torch.no_grad():
        features = peer.double().global_pool(peer.forward_features(x))
        assert parity.distance(ours(x), fresh.classifier(features)) < parity.TOLERANCE


def test_compiling_with_a_new_head(run: Any) -> None:
    assert run("weights", "init", *WORDS, "--seed", "1", "-o", "a.safetensors")[0] == 0
    words = ("compile", *WORDS, "--set", "classes=10", "--weights", "a.safetensors", "--target", "onnx", "-o", "x.onnx")
    status, _, said = run(*words)
    width = small(classes=10).checkpoint("a.safetensors", new_head=True).new[0].found[1]
    count = len(load_file("a.safetensors"))
    assert status == 1 and said == (
        f"error[E0804]: a.safetensors does not fit the model: of {count} tensors 2 of another shape\n"
        f"  = `classifier.weight` is (1000, {width}), the model wants (10, {width})\n"
        "  = `classifier.bias` is (1000,), the model wants (10,)\n"
        f"  = help: `--new-head` takes the other {count - 2} and starts these from initial values\n"
    )
    status, _, said = run(*words, "--new-head", "--seed", "2")
    assert status == 0 and said.splitlines()[-4:-1] == [
        "  new head, from the initial values of seed 2:",
        f"    classifier.weight (10, {width}); the checkpoint has `classifier.weight` (1000, {width})",
        "    classifier.bias (10,); the checkpoint has `classifier.bias` (1000,)",
    ]
    _, out, _ = run(*words, "--new-head", "--seed", "2", "--json")
    assert json.loads(out)["new_head"] == ["classifier.weight", "classifier.bias"]
    # The file says what a model of both sources computes.
    net = small(classes=10)
    whole, fresh = small().to_torch(seed=1).state_dict(), net.to_torch(seed=2).state_dict()
    state = {path: (fresh if "classifier" in path else whole)[path].numpy() for path in parity.shapes(net)}
    x = parity.picture(64)
    expected = parity.forward(parity.emitted(net, state), x)
    assert parity.distance(parity.runtime(Path("x.onnx").read_bytes(), x), expected) < 1e-4
    wrong = parity.forward(parity.emitted(net, state | {"classifier.bias": np.ones(10, np.float32)}), x)
    assert parity.distance(wrong, expected) > 1e-2


def test_a_head_of_the_same_size_is_taken_and_that_is_said(run: Any) -> None:
    assert run("weights", "init", *WORDS, "-o", "a.safetensors")[0] == 0
    line = "--new-head changed nothing: the head of the checkpoint has the model's size, and is taken"
    spec = ("--spec", *WORDS)
    status, _, said = run("weights", "convert", "a.safetensors", *spec, "--new-head", "-o", "b.safetensors")
    assert status == 0 and said.splitlines()[1] == line
    words = ("compile", *WORDS, "--weights", "a.safetensors", "--target", "onnx", "--new-head", "-o", "x.onnx")
    assert f"  {line}" in run(*words)[2].splitlines()
    assert run("weights", "diff", "a.safetensors", "b.safetensors")[0] == 0


@pytest.mark.parametrize("settings", [{"in_channels": 1}, {"phi": -1}])
def test_what_is_no_head_has_to_fit(settings: dict[str, int]) -> None:
    """Grey pictures, or another width: the first layer differs, and a new head does not help."""
    save_file({name: value.contiguous() for name, value in small().to_torch().state_dict().items()}, "a")
    file, phi = checkpoint.load("a"), settings.pop("phi", -2)
    net = effspec.compile("b0", phi=phi, set={"size": 64, "classes": 10, **settings})
    with pytest.raises(EffspecError) as caught:
        net.checkpoint("a", new_head=True)
    assert caught.value.diagnostics[0].code == "E0804" and "--new-head" not in str(caught.value)
    if phi == -2:
        assert "`stem.conv.weight` is (24, 3, 3, 3), the model wants (24, 1, 3, 3)" in str(caught.value)
    with pytest.raises(EffspecError) as caught:
        convert(file.shapes, net.graph, new_head=True)
    assert caught.value.diagnostics[0].code == "E0805" and "--new-head" not in str(caught.value)


def test_every_head_of_a_network() -> None:
    """Inception has a second classifier, which exists in training only."""
    import torchvision

    spec = str(Path(__file__).parent / "examples" / "10_inception.eff")
    with torch.device("meta"):
        peer = torchvision.models.inception_v3(weights=None, init_weights=False, aux_logits=True)
    shapes = {name: tuple(value.shape) for name, value in peer.state_dict().items()}
    net = effspec.compile(spec, variant="v3", set={"classes": 7})
    matching = convert(shapes, net.graph, new_head=True)
    assert sorted(one.name for one in matching.new) == [
        "AuxLogits.fc.bias",
        "AuxLogits.fc.weight",
        "fc.bias",
        "fc.weight",
    ]
    assert not matching.absent and len(matching.names) == matching.sources - 4
    assert {one.parameter.path for one in matching.new} == head(net.graph)


def test_which_layer_is_the_head_has_to_be_plain(tmp_path: Path) -> None:
    """A layer of the head's old contents that is found again elsewhere: either could be the old head."""
    (tmp_path / "net.eff").write_text(
        "effspec 1\nmodel Net(classes = 4) on image: [4, 8, 8] { a: conv(4); b: conv(4); c: conv(classes) }\n"
    )
    old, new = (effspec.compile("net.eff", set={"classes": classes}) for classes in (4, 5))
    shapes = {parameter.path: parameter.shape for parameter in old.graph.parameters()}
    with pytest.raises(EffspecError) as caught:
        convert(shapes, new.graph, new_head=True)
    assert caught.value.diagnostics[0].code == "E0805" and "--new-head" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--target", "onnx"), "no --weights are given"),
        (
            ("--target", "torch", "--weights", "a.safetensors"),
            "target torch holds no numbers; `effspec weights convert --new-head` makes a file that fits",
        ),
    ],
)
def test_an_option_without_effect_is_an_error(run: Any, words: tuple[str, ...], why: str) -> None:
    status, _, said = run("compile", "b0", "--variant", "b0", *words, "--new-head")
    assert status == 2 and said.splitlines()[-1] == f"Error: --new-head has no effect: {why}"
