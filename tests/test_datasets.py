"""The pictures that tests and examples train on: what is in them, and what cannot be."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy
import pytest
from PIL import Image

from tests import datasets

needs_animals = pytest.mark.skipif(
    datasets.find_spec("animal_mnist") is None, reason="pip install --no-deps animal-mnist==0.4"
)


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("words", "train", "val", "classes"),
    [
        pytest.param(["animals"], 7769, 1947, 10, marks=needs_animals),
        (["digits"], 1433, 364, 10),
        (["pieces", "--count", "10", "--size", "32"], 48, 12, 6),
        (["textures", "--count", "10", "--size", "48"], 72, 18, 9),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_written_the_same_each_time_and_apart(
    words: list[str], train: int, val: int, classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, *options = words
    for name in ("first", "second") if kind != "animals" else ("first",):
        assert datasets.main([kind, str(tmp_path / name), *options]) == 0
        said = f"{tmp_path / name}: {train:,} pictures to train on, {val:,} held out, {classes} classes\n"
        assert capsys.readouterr().out == said
    first = content(tmp_path / "first")
    assert len(first) == train + val
    assert kind == "animals" or first == content(tmp_path / "second")
    pixels: dict[bytes, set[str]] = {}
    for name in first:
        pixels.setdefault(numpy.asarray(Image.open(tmp_path / "first" / name)).tobytes(), set()).add(name)
    if kind != "pieces":
        assert all(len(names) == 1 for names in pixels.values()), "a picture is there twice"
    assert not any(len({name.split("/")[0] for name in names}) > 1 for names in pixels.values())


@needs_animals
def test_animals_are_those_of_the_package() -> None:
    """Read by Python's own unpickler, too; 10,000 pictures, of which 284 are there twice."""
    import gzip

    folder = Path(str(datasets.find_spec("animal_mnist").origin)).parent / "data" / "Animal_MNIST"  # type: ignore[union-attr]
    whole = pickle.loads(gzip.decompress((folder / "animal_data_version_3.gz").read_bytes()))
    assert whole.shape == (10_000, 28, 28)
    found = datasets.animals()
    assert len(found.pictures) == 10_000 - 284
    assert {picture.tobytes() for picture in found.pictures} == {picture.tobytes() for picture in whole}
    assert numpy.bincount(found.labels).min() > 800


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch /tmp/owned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Hostile()), "the file asks for posix.system, which is no array"),
        (pickle.dumps(numpy.array([Hostile()], dtype=object)), "which are no numbers"),
        (b"\x80\x04cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85R.", "an array of its own"),
        (pickle.dumps(numpy.array([1, None], dtype=object)), "which are no numbers"),
        (pickle.dumps([1, 2]), "the file holds a list, which is no array"),
        (pickle.dumps(numpy.zeros(9))[:60], "the file is no pickle of an array"),
        (b"", "the file is no pickle of an array"),
    ],
    ids=["code", "code-in-array", "size", "objects", "list", "cut", "empty"],
)
def test_nothing_but_arrays_is_built(content: bytes, message: str) -> None:
    with pytest.raises(datasets.Unusable, match=message):
        datasets.arrays(content)


def test_arrays_are_built() -> None:
    for array in (numpy.arange(6, dtype=numpy.uint8).reshape(2, 3), numpy.array([1.5, 2])):
        for protocol in (3, 4):
            assert numpy.array_equal(datasets.arrays(pickle.dumps(array, protocol)), array)


def test_what_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert datasets.main(["digits", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} is there already: remove it, or choose another name\n"
    (tmp_path / "file").write_text("")
    assert datasets.main(["digits", str(tmp_path / "file" / "digits")]) == 1
    assert capsys.readouterr().err == f"error: cannot write {tmp_path}/file/digits: not a directory\n"


@pytest.mark.parametrize("words", [["--size", "0"], ["--count", "-1"], ["--seed", "9999"]])
def test_options_have_limits(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        datasets.main(["textures", str(tmp_path / "textures"), *words])
    assert f"error: {words[0]} is from " in capsys.readouterr().err
    assert datasets.main(["pieces", str(tmp_path / "pieces"), "--size", "300"]) == 1
    assert "error: pieces of 300 pixels are too large: at most" in capsys.readouterr().err


def test_one_picture_with_two_labels_is_left_out() -> None:
    pictures = numpy.zeros((4, 2, 2), numpy.uint8)
    pictures[2:] = numpy.arange(8).reshape(2, 2, 2)
    found = datasets._without_duplicates(datasets.Labelled(pictures, numpy.array([0, 1, 1, 0]), ("a", "b")))
    assert numpy.array_equal(found.pictures, pictures[2:]) and found.labels.tolist() == [1, 0]


def test_textures_need_their_resolution() -> None:
    """At full size each texture is known by its spectrum; shrunk to a quarter, nothing of it is left."""
    found = datasets.textures(128, 20)
    textures = found.labels % 3

    def told(pictures: numpy.ndarray) -> float:
        """How often the strongest of the waves along both diagonals tells falling from rising."""
        right = []
        for picture, texture in zip(pictures, textures, strict=True):
            if texture == 0:
                continue
            spectrum = abs(numpy.fft.rfft2(picture - picture.mean()))
            n = picture.shape[0]
            band = slice(n // 8, n * 7 // 16)
            falling, rising = spectrum[-band.stop : -band.start, band].max(), spectrum[band, band].max()
            right.append((rising < falling) == (texture == 2))
        return max(numpy.mean(right), 1 - numpy.mean(right))

    small = numpy.stack(
        [numpy.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BOX)) for p in found.pictures]
    )
    assert told(found.pictures) > 0.95
    assert told(small) < 0.7
