"""Pictures are prepared as timm's and torchvision's own evaluation pipelines do it, pixel for pixel."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import effspec
from effspec.diagnostics import EffspecError
from effspec.preparation import INTERPOLATIONS, Preparation, preparation
from effspec.runtime import pictures

PIL = pytest.importorskip("PIL.Image")
skimage = pytest.importorskip("skimage.data")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

# Broad, high, square, grey, and small enough to be enlarged.
PICTURES: dict[str, Callable[[], Any]] = {
    "chelsea": skimage.chelsea,
    "rocket, on its side": lambda: skimage.rocket().transpose(1, 0, 2),
    "astronaut": skimage.astronaut,
    "camera": skimage.camera,
    "a corner of coffee": lambda: skimage.coffee()[:101, :67],
}


def saved(name: str, folder: Path) -> Path:
    path = folder / "picture.png"
    PIL.fromarray(numpy.ascontiguousarray(PICTURES[name]())).save(path)
    return path


def wanted(spec: str, variant: str, **given: Any) -> Preparation:
    net = effspec.compile(spec, variant=variant, set=given)
    return preparation(net.elaborated.preparation["image"], net.input_shape)


TIMM = [
    ("b0", "b0", "efficientnet_b0", {}),
    ("b0", "tf_b3", "tf_efficientnet_b3", {}),
    ("b0", "b0", "efficientnet_b0", {"size": 193}),
    ("nfnet", "dm_f0", "dm_nfnet_f0", {}),
    ("mobilenet_v3", "large", "mobilenetv3_large_100", {}),
    ("resnet_v2", "resnetv2_50x1_bit", "resnetv2_50x1_bit", {}),
]


@pytest.mark.parametrize(("spec", "variant", "peer", "given"), TIMM, ids=lambda value: str(value))
def test_as_timm(spec: str, variant: str, peer: str, given: dict[str, Any], tmp_path: Path) -> None:
    """The configuration is timm's own; its crop is rounded where the spec's is the rule: size / (size + 32)."""
    import timm

    ours, config = wanted(spec, variant, **given), timm.get_pretrained_cfg(peer)
    assert ours.crop == pytest.approx(Fraction(config.crop_pct), abs=1e-3) or given
    transform = timm.data.create_transform(
        input_size=ours.shape, interpolation=config.interpolation, mean=config.mean, std=config.std,
        crop_pct=float(ours.crop), crop_mode=config.crop_mode,
    )  # fmt: skip
    for name in PICTURES:
        path = saved(name, tmp_path)
        expected = transform(PIL.open(path).convert("RGB")).numpy()
        found = pictures.read(path, ours)
        assert found.dtype == numpy.float32 and found.shape == expected.shape
        # A whole value apart would be 1 / 128 or more.
        assert numpy.abs(found - expected).max() < 2e-6, name


TORCHVISION = [
    ("b0", "tv_b0", "EfficientNet_B0_Weights"),
    ("b0", "tv_b1", "EfficientNet_B1_Weights.IMAGENET1K_V2"),
    ("b0", "tv_b2", "EfficientNet_B2_Weights"),
    ("efficientnet_v2", "tv_s", "EfficientNet_V2_S_Weights"),
    ("resnet", "tv_resnet50", "ResNet50_Weights.IMAGENET1K_V2"),
    ("convnext", "tv_tiny", "ConvNeXt_Tiny_Weights"),
]


@pytest.mark.parametrize(("spec", "variant", "peer"), TORCHVISION, ids=lambda value: str(value))
def test_as_torchvision(spec: str, variant: str, peer: str, tmp_path: Path) -> None:
    """The presets that come with torchvision's weights, which give the sizes, too."""
    import torchvision

    weights = torchvision.models.get_weight(peer if "." in peer else f"{peer}.IMAGENET1K_V1")
    transform, ours = weights.transforms(), wanted(spec, variant)
    for name in PICTURES:
        path = saved(name, tmp_path)
        expected = transform(PIL.open(path).convert("RGB")).numpy()
        found = pictures.read(path, ours)
        assert found.shape == expected.shape
        assert numpy.abs(found - expected).max() < 2e-6, name


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(9, 90), st.integers(9, 90)),
    st.tuples(st.integers(7, 40), st.integers(7, 40)) | st.integers(7, 40).map(lambda n: (n, n)),
    st.integers(60, 100).map(lambda n: Fraction(n, 100)),
    st.sampled_from([name for name in INTERPOLATIONS if name not in ("hamming", "box")]),
    st.sampled_from(["crop", "squash"]),
)
def test_sizes_crops_and_filters_as_timm(picture: Any, size: Any, crop: Fraction, filter: str, fit: str) -> None:
    """Any picture, any size and rectangle: the same whole values, which tells of every rounding."""
    from timm.data.transforms_factory import transforms_imagenet_eval

    # timm divides in floating point: 17 / 0.68 is 24.999999999999996 there, and 25 here.
    sides = size if isinstance(size, tuple) else (size, size)
    assume(all(floor(side / float(crop)) == floor(side / crop) for side in sides))
    values = numpy.random.default_rng(picture).integers(0, 256, (*picture, 3), numpy.uint8)
    ours = preparation({"crop": crop, "interpolation": filter, "fit": fit}, (3, *size))
    mode = "squash" if fit == "squash" else "center"
    how = transforms_imagenet_eval(size, float(crop), mode, interpolation=filter, normalize=False)
    assert (pictures.pixels(values, ours) == how(PIL.fromarray(values)).numpy()).all()


def test_the_arithmetic_of_ranges() -> None:
    """In any range, exactly; the two steps of a scale and a shift are the same."""
    values = numpy.arange(256, dtype=numpy.uint8).reshape(1, 16, 16)
    for arguments, expected in (
        ({}, values / 255),
        ({"range": 255, "mean": (127,), "std": (128,)}, (values.astype(float) - 127) / 128),
        ({"range": (0, 255), "mean": (127,), "std": (128,)}, (values.astype(float) - 127) / 128),
        ({"range": (-1, 1)}, values / 127.5 - 1),
    ):
        ours = preparation(arguments, (1, 16, 16))
        assert numpy.abs(pictures.normalised(values, ours) - expected).max() < 1e-7
        [scale], [shift] = ours.scale, ours.shift
        assert numpy.abs(values * float(scale) + float(shift) - expected).max() < 1e-12


def test_grey_and_more_channels(tmp_path: Path) -> None:
    """One channel is Pillow's grey; four are taken as they are, each by itself: no premultiplied alpha."""
    path = saved("chelsea", tmp_path)
    grey = pictures.opened(path, 1)
    assert (grey[:, :, 0] == numpy.asarray(PIL.open(path).convert("L"))).all()
    four = numpy.random.default_rng(0).integers(0, 256, (40, 50, 4), numpy.uint8)
    PIL.fromarray(four).save(tmp_path / "four.png")
    ours = preparation({}, (4, 20, 20))
    found = pictures.pixels(pictures.opened(tmp_path / "four.png", 4), ours)
    for channel in range(4):
        alone = preparation({}, (1, 20, 20))
        assert (found[channel] == pictures.pixels(four[:, :, channel : channel + 1], alone)[0]).all()


@pytest.mark.parametrize(
    ("make", "channels", "text"),
    [
        (lambda path: None, 3, "cannot read {}: no such file or directory"),
        (lambda path: path.write_text("not a picture"), 3, "{} is no picture that Pillow knows"),
        (
            lambda path: PIL.fromarray(numpy.zeros((4, 4), numpy.uint16)).save(path),
            3,
            "{} has more than 8 bits a channel",
        ),
        (lambda path: PIL.new("RGB", (4, 4)).save(path), 4, "{} has 3 channels (RGB), the model's input 4"),
        (lambda path: path.mkdir(), 3, "cannot read {}: is a directory"),
    ],
)
def test_what_is_refused(make: Callable[[Path], Any], channels: int, text: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    make(path)
    with pytest.raises(EffspecError) as caught:
        pictures.opened(path, channels)
    [found] = caught.value.diagnostics
    assert found.code == "E0720"
    assert found.message.startswith(text.format(path))
