"""A model with its preprocessing baked in computes of a picture what the plain one computes of the prepared picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

import effspec
from effspec.cli import main
from effspec.preparation import preparation
from effspec.runtime import pictures
from effspec.runtime.reference import Awake
from tests import parity

skimage = pytest.importorskip("skimage.data")
v2 = pytest.importorskip("torchvision.transforms.v2")
torch.set_num_threads(1)

BY_NAME = """\
effspec 1
model Small(size = 20) on image: [3, size, size] {
    prepare image(mean = [0.5, 0.25, 0.1], std = [0.25, 0.5, 2], range = [-1, 1])
    red = image |> slice(0, 0, 1)
    prepared = input |> first: conv(4, k = 3)
    [prepared, red, image |> second: conv(2, k = 3)] |> concat()
}
variant base = Small()
"""
TWO = """\
effspec 1
model Two() on left: [3, 20, 20], right: [1, 20, 20], extra: [5] {
    prepare left(mean = [0.5, 0.25, 0.1], std = [0.25, 0.5, 2])
    prepare right(mean = [0.5], std = [0.25])
    a, b, c = it
    [a, right] |> concat() |> conv(4, k = 3)
    global_avg_pool()
    flatten()
    [it, c, b |> flatten()] |> concat()
}
variant base = Two()
"""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "b0": ("b0", {"size": 64}),
    "a range of its own": ("tf_lite0", {"size": 64}),
    "grey": ("mobilenet", {"size": 64, "in_channels": 1}),
    "five channels": ("mobilenet", {"size": 64, "in_channels": 5}),
    "asked for by name": ("by_name", {}),
}


def compiled(name: str, given: dict[str, Any], folder: Path, **more: Any) -> effspec.Compiled:
    texts = {"by_name": BY_NAME, "two": TWO}
    if name in texts:
        (folder / "spec.eff").write_text(texts[name])
        return effspec.compile(folder / "spec.eff", variant="base", set=given, **more)
    spec, variant = {
        "b0": ("b0", "b0"), "tf_lite0": ("efficientnet_lite", "tf_lite0"), "mobilenet": ("mobilenet_v3", "small"),
    }[name]  # fmt: skip
    return effspec.compile(spec, variant=variant, set=given, **more)


def picture(channels: int, height: int, width: int) -> torch.Tensor:
    """A part of a photograph, with as many channels as it takes: uint8."""
    pixels = numpy.concatenate([skimage.chelsea(), skimage.coffee()[50:350, 100:551]], axis=2)
    return torch.from_numpy(pixels[60 : 60 + height, 90 : 90 + width, :channels].transpose(2, 0, 1).copy())


@pytest.mark.parametrize(("name", "given"), CASES.values(), ids=CASES)
def test_the_same_outputs_in_float64(name: str, given: dict[str, Any], tmp_path: Path) -> None:
    """torchvision's transforms prepare the picture for the plain model."""
    plain, baked = (compiled(name, given, tmp_path, with_preprocessing=choice) for choice in (False, True))
    stated = plain.elaborated.preparation["image"]
    low, high = stated.get("range", (0, 1))
    image = picture(*plain.input_shape)
    how = v2.Compose(
        [
            v2.ToDtype(torch.float64, scale=True),
            v2.Lambda(lambda x: low + x * (high - low)),
            v2.Normalize(list(map(float, stated["mean"])), list(map(float, stated["std"]))),
        ]
    )
    weights = Awake(plain.graph)
    assert [p.path for p in plain.graph.parameters(buffers=True)] == [
        p.path for p in baked.graph.parameters(buffers=True)
    ]
    prepared, raw = how(image)[None], image[None].double()
    expected = parity.forward(plain.to_torch(weights).eval().double(), prepared)
    assert parity.distance(parity.forward(baked.to_torch(weights).eval().double(), raw), expected) < 1e-12
    data = baked.emit("onnx", weights, dtype="float64")
    assert isinstance(data, bytes)
    assert parity.distance(parity.reference(data, raw), expected) < 1e-12
    # It does something: the raw picture is another one.
    assert parity.distance(parity.forward(plain.to_torch(weights).eval().double(), raw), expected) > 1e-3


def test_several_inputs(tmp_path: Path) -> None:
    """Each input that states its preparation is prepared; another one is left as it is."""
    plain, baked = (compiled("two", {}, tmp_path, with_preprocessing=choice) for choice in (False, True))
    source = numpy.random.default_rng(0)
    raw = {name: 255 * source.random((2, *shape)) for name, shape in plain.input_shapes.items()}
    mean, std = (numpy.reshape(numbers, (-1, 1, 1)) for numbers in ([0.5, 0.25, 0.1], [0.25, 0.5, 2]))
    prepared = raw | {"left": (raw["left"] / 255 - mean) / std, "right": (raw["right"] / 255 - 0.5) / 0.25}
    weights = Awake(plain.graph)

    def run(net: effspec.Compiled, inputs: dict[str, Any]) -> Any:
        data = net.emit("onnx", weights, dtype="float64")
        assert isinstance(data, bytes)
        return ReferenceEvaluator(onnx.load_from_string(data)).run(None, inputs)[0]

    assert parity.distance(run(baked, raw), run(plain, prepared)) < 1e-12


def test_a_target_that_takes_one_input_says_so(tmp_path: Path) -> None:
    with pytest.raises(effspec.EffspecError) as caught:
        compiled("two", {}, tmp_path).emit("torch")
    [found] = caught.value.diagnostics
    assert (found.code, found.message) == ("E0704", "target `torch` writes models of one input, and this one has 3")
    assert found.primary is not None and found.primary.span.text == "right: [1, 20, 20]"


def test_every_artefact_says_so(tmp_path: Path) -> None:
    """What is left to do is to resize and crop: mean, std and range are those of the picture itself."""
    plain, baked = (compiled("b0", {"size": 64}, tmp_path, with_preprocessing=choice) for choice in (False, True))
    assert plain.hash != baked.hash and plain.hashes["weights"] == baked.hashes["weights"]
    data = baked.emit("onnx")
    assert isinstance(data, bytes)
    about = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
    assert {key: json.loads(about[f"image.{key}"]) for key in ("mean", "std", "range")} == {
        "mean": [0, 0, 0], "std": [1, 1, 1], "range": 255,
    }  # fmt: skip
    assert (about["image.interpolation"], about["image.crop"]) == ("bicubic", plain.metadata["image.crop"])
    text = str(baked.emit("torch"))
    said = "\nPrepare image: mean [0, 0, 0], std [1, 1, 1], interpolation bicubic, crop"
    assert said in text and said not in str(plain.emit("torch"))
    assert "\nPrepare image: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], interpolation" in str(
        plain.emit("torch")
    )
    # Whoever follows what the artefact says gives it the pixels themselves.
    image = skimage.chelsea()
    values = pictures.pixels(image, plain.prepared("image"))
    assert (pictures.normalised(values, baked.prepared("image")) == values).all()
    assert baked.prepared("image") == preparation({"range": 255, "crop": plain.prepared("image").crop,
                                                   "interpolation": "bicubic"}, (3, 64, 64))  # fmt: skip
    assert baked.stem == plain.stem + "_with_preprocessing"


def test_a_model_that_does_not_say_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.eff").write_text("effspec 1\nmodel M() on image: [3, 8, 8] { relu() }\nvariant m = M()\n")
    assert main(["compile", "plain.eff", "--variant", "m", "--with-preprocessing"]) == 1
    assert capsys.readouterr().err == (
        "error[E0719]: M does not say how a picture becomes its input `image`\n"
        " --> plain.eff:2:14\n"
        "  |\n"
        "2 | model M() on image: [3, 8, 8] { relu() }\n"
        "  |              ^^^^^^^^^^^^^^^^\n"
        "  = help: state it in the model's body, for example: prepare image(mean = [0.485, 0.456, 0.406], "
        'std = [0.229, 0.224, 0.225], interpolation = "bicubic", crop = 0.875)\n'
    )


PREPARED = [
    ("mean = [0.5]", "mean is a list of 3 numbers, one a channel; found [0.5]"),
    ("std = [1, 0, 1]", "values are divided by std, found [1, 0, 1]"),
    ("range = 0", "range is a number above 0, or [low, high], found 0"),
    ("range = [1, 0]", "range is a number above 0, or [low, high], found [1, 0]"),
    ("crop = 87.5", "crop is a number above 0 and at most 1, found 87.5"),
    ('interpolation = "cubic"', 'interpolation cannot be "cubic"'),
    ('fit = "stretch"', 'fit cannot be "stretch"'),
    ("train_size = 0.5", "train_size is a size or [height, width], found 0.5"),
]


@pytest.mark.parametrize(("argument", "message"), PREPARED)
def test_preparations_that_cannot_be(argument: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.eff"
    path.write_text(f"effspec 1\nmodel M() on image: [3, 8, 8] {{ prepare image({argument}); relu() }}\n")
    with pytest.raises(effspec.EffspecError) as caught:
        effspec.compile(path)
    [found] = caught.value.diagnostics
    assert (found.code, found.message) == ("E0514", message)
    assert found.primary is not None and found.primary.span.text == argument


def test_a_backbone_prepares_what_the_model_around_it_is_given(tmp_path: Path) -> None:
    """Unless that one says how itself, or gives it something else than its input."""
    inner = """\
effspec 1
model Inner() on image: [3, 8, 8] { prepare image(mean = [0.5, 0.5, 0.5]); a: conv(4) }
model Plain() on picture: [3, 8, 8] { backbone: Inner() }
model Own() on picture: [3, 8, 8] { prepare picture(mean = [0, 0, 1]); backbone: Inner() }
model Late() on picture: [3, 8, 8] { backbone: Inner(); prepare picture(mean = [0, 0, 1]) }
model Other() on picture: [3, 8, 8] { relu(); backbone: Inner() }
"""
    (tmp_path / "spec.eff").write_text(inner)
    metadata = {
        name: effspec.compile(tmp_path / "spec.eff", model=name).metadata for name in ("Plain", "Own", "Late", "Other")
    }
    assert metadata == {
        "Plain": {"picture.mean": "[0.5, 0.5, 0.5]"},
        "Own": {"picture.mean": "[0, 0, 1]"},
        "Late": {"picture.mean": "[0, 0, 1]"},
        "Other": {},
    }
