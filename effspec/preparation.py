"""How a picture becomes the input of a model: what `prepare` states, checked, and the arithmetic that follows from it.

A picture of 8 bits a channel is resized so that the middle part `crop` of it, in each direction, has the input's size;
its longer side is cut, or with `fit = "squash"` each side is resized by itself.  Then values count in `range` instead
of from 0 to 255, and x becomes (x - mean) / std of its channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any

from effspec.values import is_number, show

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""The filters by which a picture is resized, as Pillow calls them."""
FITS = ("crop", "squash")
"""What becomes of a picture of other proportions: its longer side is cut, or each side is resized by itself."""
LARGEST = 255
"""The largest value of a picture."""


class Unprepared(Exception):
    """An argument that says nothing sensible: its name, what is wrong, what would help."""

    def __init__(self, argument: str, message: str, help: str) -> None:
        super().__init__(message)
        self.argument, self.message, self.help = argument, message, help


@dataclass(frozen=True)
class Preparation:
    """The preparation of one input of a shape [channels, height, width]; what is not stated changes nothing."""

    shape: tuple[int, int, int]
    mean: tuple[Fraction, ...]
    std: tuple[Fraction, ...]
    range: tuple[Fraction, Fraction]
    interpolation: str
    crop: Fraction
    fit: str

    @property
    def scale(self) -> tuple[Fraction, ...]:
        """What a value of the picture is multiplied with, channel by channel."""
        low, high = self.range
        return tuple((high - low) / LARGEST / std for std in self.std)

    @property
    def shift(self) -> tuple[Fraction, ...]:
        """What is added then."""
        return tuple((self.range[0] - mean) / std for mean, std in zip(self.mean, self.std, strict=True))

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The height and width to which a picture of this height and width is resized before its middle is cut out.

        As timm's and torchvision's pipelines count: towards a square, the shorter side gets the size and the longer one
        is rounded down; towards a rectangle, both are rounded to the nearest.
        """
        target = floor(self.shape[1] / self.crop), floor(self.shape[2] / self.crop)
        if self.fit == "squash":
            return target
        if target[0] == target[1]:
            short, long = min(height, width), max(height, width)
            sides = target[0], int(target[0] * long / short)
            return sides if height <= width else sides[::-1]
        ratio = min(height / target[0], width / target[1])
        return round(height / ratio), round(width / ratio)

    def corner(self, height: int, width: int) -> tuple[int, int]:
        """Where, in a resized picture, the part that is kept begins (top, left)."""
        return round((height - self.shape[1]) / 2), round((width - self.shape[2]) / 2)


def preparation(arguments: Mapping[str, Any], shape: Sequence[int]) -> Preparation:
    """What the evaluated arguments of `prepare` say of an input of a shape; Unprepared where they cannot."""
    if len(shape) != 3:
        raise Unprepared(
            "", f"a picture is prepared for an input [channels, height, width], found {show(tuple(shape))}",
            "leave `prepare` out for other inputs",
        )  # fmt: skip
    channels, height, width = shape
    vectors = {}
    for name, default in (("mean", 0), ("std", 1)):
        value = arguments.get(name, (default,) * channels)
        if not isinstance(value, tuple) or len(value) != channels or not all(map(is_number, value)):
            help = (
                f"write {channels} numbers in brackets; `per_channel` of std/image.eff makes them for any `in_channels`"
            )
            raise Unprepared(name, f"{name} is a list of {channels} numbers, one a channel; found {show(value)}", help)
        vectors[name] = tuple(map(Fraction, value))
    if not all(vectors["std"]):
        raise Unprepared("std", f"values are divided by std, found {show(arguments['std'])}", "no element is 0")
    span = arguments.get("range", 1)
    span = (0, span) if is_number(span) else span
    if not isinstance(span, tuple) or len(span) != 2 or not all(map(is_number, span)) or span[0] >= span[1]:
        help = "it is what mean and std count in: 1 for values from 0 to 1, or [low, high]"
        message = f"range is a number above 0, or [low, high], found {show(arguments['range'])}"
        raise Unprepared("range", message, help)
    crop = arguments.get("crop", 1)
    if not is_number(crop) or not 0 < crop <= 1:
        message = f"crop is a number above 0 and at most 1, found {show(crop)}"
        raise Unprepared("crop", message, "it is the part of the resized picture that is kept")
    train = arguments.get("train_size", 1)
    if not all(isinstance(n, int) and n > 0 for n in (train if isinstance(train, tuple) else (train,))):
        message = f"train_size is a size or [height, width], found {show(train)}"
        raise Unprepared("train_size", message, "it is the size of the pictures in training")
    words = {}
    for name, known, usual in (("interpolation", INTERPOLATIONS, "bilinear"), ("fit", FITS, "crop")):
        words[name] = arguments.get(name, usual)
        if words[name] not in known:
            raise Unprepared(name, f"{name} cannot be {show(words[name])}", f"it is one of {', '.join(known)}")
    return Preparation(
        (channels, height, width),
        vectors["mean"],
        vectors["std"],
        (Fraction(span[0]), Fraction(span[1])),
        words["interpolation"],
        Fraction(crop),
        words["fit"],
    )
