"""Reads pictures as a spec's `prepare` says: the one place where effspec itself does.

Resizing is Pillow's, with its antialiasing and its rounding to whole values, channel by channel: what timm's and
torchvision's evaluation pipelines do.  A file's orientation tag is not followed, as they do not follow it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy

from effspec.diagnostics import fail
from effspec.preparation import Preparation

if TYPE_CHECKING:
    from effspec.ops.meaning import Array

_COLOURS = {1: "L", 3: "RGB"}
_WIDE = ("I", "F")


def read(path: str | os.PathLike[str], wanted: Preparation) -> Array:
    """A picture as the model's input: float32 [channels, height, width].  E0720, or E0721 without Pillow."""
    return normalised(pixels(opened(path, wanted.shape[0]), wanted), wanted)


def opened(path: str | os.PathLike[str], channels: int) -> Array:
    """A picture file as uint8 [height, width, channels]: grey for one channel, RGB for three, else as it is."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise fail(
            "E0721", "reading pictures needs Pillow", help="pip install 'effspec[pictures]', or pip install pillow"
        ) from None
    name = os.fspath(path)
    try:
        with Image.open(name) as picture:
            if picture.mode.startswith(_WIDE):
                help = "preparation counts from 0 to 255: save it with 8 bits a channel"
                raise fail("E0720", f"{name} has more than 8 bits a channel (mode {picture.mode})", help=help)
            if channels in _COLOURS:
                return numpy.atleast_3d(numpy.asarray(picture.convert(_COLOURS[channels])))
            if len(picture.getbands()) != channels:
                message = (
                    f"{name} has {len(picture.getbands())} channels ({picture.mode}), the model's input {channels}"
                )
                raise fail("E0720", message, help="a picture becomes grey or RGB for inputs of 1 and 3 channels only")
            return numpy.asarray(picture)
    except UnidentifiedImageError:
        raise fail("E0720", f"{name} is no picture that Pillow knows") from None
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise fail("E0720", f"cannot read {name}: {reason.lower()}") from None


def pixels(picture: Array, wanted: Preparation) -> Array:
    """The part of a picture [height, width, channels] that is kept, in its size: uint8 [channels, height, width]."""
    from PIL import Image

    height, width, channels = picture.shape
    resized = wanted.resized(height, width)
    filter = Image.Resampling[wanted.interpolation.upper()]
    top, left = wanted.corner(*resized)
    kept = []
    for channel in range(channels):
        band = Image.fromarray(numpy.ascontiguousarray(picture[:, :, channel])).resize(resized[::-1], filter)
        kept.append(numpy.asarray(band)[top : top + wanted.shape[1], left : left + wanted.shape[2]])
    return numpy.stack(kept)


def normalised(values: Array, wanted: Preparation) -> Array:
    """Whole values as the model's input: computed exactly, and rounded to float32 at the end."""

    def column(numbers: Any) -> Array:
        return numpy.array([float(number) for number in numbers]).reshape(-1, 1, 1)

    found: Array = (values * column(wanted.scale) + column(wanted.shift)).astype(numpy.float32)
    return found
