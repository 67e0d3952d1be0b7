"""Pictures to train on, without a network: `python tests/datasets.py KIND FOLDER` fills FOLDER/{train,val}/CLASS.

    animals   10 kinds of animals as silhouettes of 28 x 28 (the package animal-mnist), without its duplicates
    digits    1,797 handwritten digits of 8 x 8 (scikit-learn)
    pieces    pieces of scikit-image's pictures, 64 x 64: which picture is it from?
    textures  one of three shapes with one of three fine textures, drawn from a seed: 9 classes.  The shape is as
              large as a third of the picture, the texture is gone where pictures of 128 are shrunk to 32

The same command writes the same files.  A fifth of each class is held out (`val`).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import pickle
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from PIL import Image

Array = numpy.ndarray
HELD_OUT = 5
"""One of so many pictures of a class is held out."""


class Labelled(NamedTuple):
    """Pictures, uint8 [count, height, width] or [..., 3], the class of each, and the classes' names."""

    pictures: Array
    labels: Array
    classes: tuple[str, ...]


class Unusable(Exception):
    """What cannot be written, in a sentence."""


# Where pictures come from ---------------------------------------------------------------------------------------------


class _Arrays(pickle.Unpickler):
    """Builds arrays of numbers and nothing else, whatever a file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.replace("numpy._core", "numpy.core"), name) == ("numpy.core.multiarray", "_reconstruct"):
            return _empty
        if (module, name) == ("numpy", "ndarray"):
            return _Class
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        raise Unusable(f"the file asks for {module}.{name}, which is no array")


class _Class:
    """The class of arrays, which a file names and does not call."""

    def __init__(self, *_: object) -> None:
        raise Unusable("the file makes an array of its own, which is not to be trusted")


def _empty(kind: type, shape: tuple[int, ...], code: bytes) -> Array:
    # Its shape and numbers are set from the file then: as many as the file has.
    return numpy.ndarray.__new__(numpy.ndarray, (0,), numpy.dtype("u1"))


def _dtype(code: str, align: bool = False, copy: bool = True) -> numpy.dtype[Any]:
    found: numpy.dtype[Any] = numpy.dtype(code)
    if found.kind not in "iufb":
        raise Unusable(f"the file has elements of the type {code}, which are no numbers")
    return numpy.dtype(code, copy=True)


def arrays(data: bytes) -> Array:
    """The array of a pickle."""
    try:
        found = _Arrays(io.BytesIO(data)).load()
    except (
        pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, KeyError, AttributeError, MemoryError,
    ) as error:  # fmt: skip
        raise Unusable(f"the file is no pickle of an array: {error}") from None
    if not isinstance(found, numpy.ndarray):
        raise Unusable(f"the file holds a {type(found).__name__}, which is no array")
    return found


def animals() -> Labelled:
    """`animal-mnist` 0.4 (MIT): 10,000 silhouettes, of which 284 are there twice."""
    place = find_spec("animal_mnist")
    if place is None or place.origin is None:
        raise Unusable("animals need a package: pip install --no-deps animal-mnist==0.4")
    folder = Path(place.origin).parent / "data" / "Animal_MNIST"
    try:
        files = [gzip.decompress((folder / f"animal_{name}_version_3.gz").read_bytes()) for name in ("data", "label")]
    except (OSError, EOFError, zlib.error) as error:
        raise Unusable(f"the package animal-mnist is damaged: {error}") from None
    pictures, labels = map(arrays, files)
    names = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
    return _without_duplicates(Labelled(pictures, labels, names))


def _without_duplicates(given: Labelled) -> Labelled:
    """Each picture once; one that is there with several labels not at all."""
    seen: dict[bytes, list[int]] = {}
    for index, picture in enumerate(given.pictures):
        seen.setdefault(picture.tobytes(), []).append(index)
    kept = [indices[0] for indices in seen.values() if len({int(given.labels[i]) for i in indices}) == 1]
    return Labelled(given.pictures[kept], given.labels[kept], given.classes)


def digits() -> Labelled:
    """The test set of the UCI handwritten digits, from scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Unusable("digits need a package: pip install scikit-learn") from None
    found = load_digits()
    pictures = numpy.round(found.images * (255 / 16)).astype(numpy.uint8)
    return _without_duplicates(Labelled(pictures, found.target, tuple(map(str, range(10)))))


def pieces(size: int = 64, count: int = 100, seed: int = 0) -> Labelled:
    """Squares of six pictures of scikit-image; those held out are from the right fifth, which no other reaches."""
    try:
        from skimage import data
    except ImportError:
        raise Unusable("pieces need a package: pip install scikit-image") from None
    names = ("astronaut", "cat", "coffee", "colorwheel", "retina", "rocket")
    draws = numpy.random.default_rng(seed)
    pictures, labels = [], []
    for label, name in enumerate(names):
        whole = numpy.asarray(getattr(data, name)())[..., :3]
        if size * 2 > min(whole.shape[:2]):
            raise Unusable(f"pieces of {size} pixels are too large: at most {min(whole.shape[:2]) // 2} for {name}")
        border = whole.shape[1] - max(size, whole.shape[1] // HELD_OUT)
        for number in range(count):
            top = draws.integers(0, whole.shape[0] - size + 1)
            left, right = (border, whole.shape[1]) if number % HELD_OUT == 0 else (0, border)
            left = draws.integers(left, right - size + 1)
            pictures.append(whole[top : top + size, left : left + size])
            labels.append(label)
    return Labelled(numpy.stack(pictures), numpy.array(labels), names)


SHAPES = ("disc", "cross", "frame")
TEXTURES = ("dots", "falling", "rising")


def textures(size: int = 128, count: int = 200, seed: int = 0) -> Labelled:
    """One of three shapes, somewhere, filled with one of three textures, on noise; `count` of each of the 9 classes.

    The textures have the same mean and a period of 4 pixels of 128: shrunk to 32 they are grey.  The shapes are as
    large as a third of the picture: what sees a few pixels of it cannot tell them apart.
    """
    draws = numpy.random.default_rng(seed)
    y, x = numpy.mgrid[0:size, 0:size]
    pictures, labels = [], []
    for number in range(9 * count):
        shape, texture = divmod(number % 9, 3)
        period = size / 32 * draws.uniform(0.9, 1.1)
        phases = draws.uniform(0, 2 * numpy.pi, 2)
        waves = [numpy.sin(2 * numpy.pi * (x + sign * y) / period / 2**0.5 + phases[sign]) for sign in (1, -1)]
        wave = (waves[0] * waves[1] * 2**0.5, waves[0], waves[1])[texture]
        radius = size * draws.uniform(0.14, 0.22)
        centre = draws.uniform(radius, size - radius, 2)
        across, down = abs(x - centre[0]) / radius, abs(y - centre[1]) / radius
        inside = (
            across**2 + down**2 < 1,
            (numpy.maximum(across, down) < 1) & (numpy.minimum(across, down) < 0.3),
            (numpy.maximum(across, down) < 1) & (numpy.maximum(across, down) > 0.6),
        )[shape]
        level, contrast = draws.uniform(90, 165), draws.uniform(30, 50)
        noise = draws.normal(0, 25, (size, size))
        ground = draws.uniform(90, 165) + noise
        picture = numpy.where(inside, level + contrast * wave + noise / 2, ground)
        pictures.append(numpy.clip(numpy.round(picture), 0, 255).astype(numpy.uint8))
        labels.append(number % 9)
    names = tuple(f"{shape}_{texture}" for shape in SHAPES for texture in TEXTURES)
    return Labelled(numpy.stack(pictures), numpy.array(labels), names)


# To folders -----------------------------------------------------------------------------------------------------------


def held_out(given: Labelled) -> Array:
    """Which pictures are held out: of each class one in five, in an order that their content decides."""
    digests = [hashlib.sha256(picture.tobytes()).digest() for picture in given.pictures]
    out = numpy.zeros(len(given.labels), bool)
    for label in range(len(given.classes)):
        members = sorted(numpy.flatnonzero(given.labels == label), key=lambda index: digests[index])
        out[members[::HELD_OUT]] = True
    return out


def write(given: Labelled, folder: Path, val: Iterable[bool] | None = None) -> tuple[int, int]:
    """Write the pictures of both parts; how many each has.  All of the folder is there, or nothing of it."""
    if folder.exists():
        raise Unusable(f"{folder} is there already: remove it, or choose another name")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    counts = [0, 0]
    try:
        for index, late in enumerate(held_out(given) if val is None else val):
            place = beside / ("val" if late else "train") / given.classes[int(given.labels[index])]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(given.pictures[index]).save(place / f"{index:05d}.png")
            counts[int(late)] += 1
        beside.rename(folder)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise Unusable(f"cannot write {folder}: {(error.strerror or str(error)).lower()}") from None
    return counts[0], counts[1]


KINDS: dict[str, Callable[..., Labelled]] = {
    "animals": animals, "digits": digits, "pieces": pieces, "textures": textures,
}  # fmt: skip


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    for name in ("size", "count", "seed"):
        parser.add_argument(f"--{name}", type=int, help="of textures and pieces")
    given = parser.parse_args(words)
    for name, least in (("size", 8), ("count", 1), ("seed", 0)):
        if (value := getattr(given, name)) is not None and not least <= value <= 512:
            parser.error(f"--{name} is from {least} to 512, found {value}")
    options = {name: getattr(given, name) for name in ("size", "count", "seed") if getattr(given, name) is not None}
    if options and given.kind in ("animals", "digits"):
        parser.error(f"{given.kind} are what they are: drop --{next(iter(options))}")
    try:
        found = KINDS[given.kind](**options)
        # Pieces are held out by where they are from.
        val = (
            (numpy.arange(len(found.labels)) % options.get("count", 100) % HELD_OUT == 0)
            if given.kind == "pieces"
            else None
        )
        counts = write(found, given.folder, val)
    except Unusable as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    print(f"{given.folder}: {counts[0]:,} pictures to train on, {counts[1]:,} held out, {len(found.classes)} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
