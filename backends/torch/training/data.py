"""Pictures: where they lie, how they are read, augmented and put together to batches.

What a picture becomes depends on the seed, the epoch and its index alone: not on how many processes read, nor on
whether the run was interrupted.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as TF

import point
from settings import Mistake, Settings

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}
Item = tuple[torch.Tensor, int] | Mistake
"""A picture and its class; or why it could not be read: an exception would lose its words between processes."""


def stream(*numbers: int) -> int:
    """The seed of one thing to draw; numbers that differ anywhere give independent seeds."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


# Where pictures lie ---------------------------------------------------------------------------------------------------


class Pictures(Protocol):
    """Labelled pictures: how many, the name, the bytes and the class of each."""

    classes: list[str]

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> bytes: ...

    def label(self, index: int) -> int: ...


class Folder:
    """Pictures in a folder a class, as torchvision's ImageFolder has them."""

    def __init__(self, folder: Path) -> None:
        self.classes = sorted(child.name for child in folder.iterdir() if child.is_dir())
        self.items: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in ENDINGS)
            if not found:
                raise Mistake(
                    f"the class folder {folder / name} has no picture ({', '.join(ENDINGS[:4])} ...)",
                    "remove the folder, or put the pictures of that class there",
                )
            self.items += [(path, label) for path in found]
        if not self.items:
            raise Mistake(f"{folder} has no class folders", "put pictures in a folder for each class: train/cat/1.jpg")

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return str(self.items[index][0])

    def read(self, index: int) -> bytes:
        return self.items[index][0].read_bytes()

    def label(self, index: int) -> int:
        return self.items[index][1]


class Shards:
    """Pictures in tar files, as WebDataset has them: KEY.jpg and KEY.cls, the number of the class as text.

    The heads of the archives are read once, so that any picture can be read at any time: an epoch is a true shuffle,
    and a run goes on where it was.  A file classes.txt beside them names the classes, one a line.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.items: list[tuple[int, str, int, int, int]] = []  # shard, name, offset, size, class
        for shard, path in enumerate(paths):
            self.items += self._samples(shard, path)
        names = paths[0].parent / "classes.txt"
        count = max(item[4] for item in self.items) + 1
        self.classes = names.read_text().split("\n") if names.exists() else [str(n) for n in range(count)]
        self.classes = [name for name in self.classes if name]
        if count > len(self.classes):
            raise Mistake(f"{names} names {len(self.classes)} classes, and a picture has the class {count - 1}")

    def _samples(self, shard: int, path: Path) -> Iterator[tuple[int, str, int, int, int]]:
        pictures: dict[str, tuple[str, int, int]] = {}
        labels: dict[str, int] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    folder, _, file = member.name.rpartition("/")
                    key, _, ending = file.partition(".")
                    if ending.lower() == "cls":
                        stream = archive.extractfile(member)
                        labels[f"{folder}/{key}"] = int(stream.read()) if stream is not None else 0
                    elif f".{ending.lower()}" in ENDINGS:
                        pictures[f"{folder}/{key}"] = member.name, member.offset_data, member.size
        except (tarfile.TarError, ValueError, OSError) as error:
            raise Mistake(
                f"cannot read the shard {path}: {error}", "it is an uncompressed tar file of pictures and .cls texts"
            ) from None
        for key in pictures.keys() ^ labels.keys():
            raise Mistake(f"{path} has a picture or a .cls for {key.lstrip('/')}, and not both")
        if not pictures:
            raise Mistake(f"the shard {path} has no pictures")
        return ((shard, *pictures[key], labels[key]) for key in pictures)

    def __len__(self) -> int:
        return len(self.items)

    def name(self, index: int) -> str:
        return f"{self.paths[self.items[index][0]]}:{self.items[index][1]}"

    def read(self, index: int) -> bytes:
        shard, _, offset, size, _ = self.items[index]
        with self.paths[shard].open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def label(self, index: int) -> int:
        return self.items[index][4]


def find(data: str, part: str) -> Pictures:
    """The pictures of a part (train, val) of a folder: PART/CLASS/PICTURE, or PART-*.tar."""
    root = Path(data)
    if (root / part).is_dir():
        found: Pictures = Folder(root / part)
    elif shards := sorted(root.glob(f"{part}-*.tar")):
        found = Shards(shards)
    else:
        help = f"it holds {part}/CLASS/PICTURE (folders), or {part}-*.tar (WebDataset)"
        raise Mistake(
            f"there are no pictures in {root / part}" if root.is_dir() else f"there is no folder {root}", help
        )
    if point.CHANNELS not in MODES:
        raise Mistake(f"the network takes {point.CHANNELS} channels, and pictures have 1 (grey) or 3 (RGB)")
    if len(found.classes) != point.CLASSES:
        help = f"compile it for them: --set classes={len(found.classes)}"
        raise Mistake(f"{root} has {len(found.classes)} classes, and the network {point.CLASSES}", help)
    return found


def check_classes(train: Pictures, val: Pictures) -> None:
    """Both parts have the same classes, or numbers would mean different things."""
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        message = f"train and val have different classes: {', '.join(odd[:5])} in one of them only"
        raise Mistake(message, "the folders of train/ and val/ have the same names")


# How a picture is read ------------------------------------------------------------------------------------------------


def decode(data: bytes, name: str) -> Image.Image:
    """A picture in the network's channels, 8 bits each; 16 bits are scaled, palettes and CMYK become RGB."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            picture: Image.Image = file
            if picture.mode.startswith(("I", "F")):
                wide = numpy.asarray(picture)
                if wide.dtype.kind == "f" or wide.min() < 0 or wide.max() > 65535:
                    raise Mistake(
                        f"{name} has values beyond 16 bits (mode {picture.mode})", "save it with 8 bits a channel"
                    )
                picture = Image.fromarray((wide.astype(numpy.float64) / 257).round().astype(numpy.uint8))
            return picture.convert(MODES[point.CHANNELS])
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Mistake(f"cannot read the picture {name}: {error}", "repair or remove it") from None


def prepare(
    picture: Image.Image, size: tuple[int, int] = point.SIZE, target: tuple[int, int] = point.RESIZED
) -> torch.Tensor:
    """The part of a picture that the network sees in evaluation: uint8 [channels, height, width]."""
    width, height = picture.size
    if point.FIT == "squash":
        resized = target
    elif target[0] == target[1]:
        long = int(target[0] * max(height, width) / min(height, width))
        resized = (target[0], long) if height <= width else (long, target[0])
    else:
        ratio = min(height / target[0], width / target[1])
        resized = round(height / ratio), round(width / ratio)
    top, left = (round((found - wanted) / 2) for found, wanted in zip(resized, size, strict=True))
    filter = Image.Resampling[point.INTERPOLATION.upper()]
    picture = picture.resize(resized[::-1], filter).crop((left, top, left + size[1], top + size[0]))
    return TF.pil_to_tensor(picture)


def read(pictures: Pictures, index: int) -> Image.Image:
    """A picture of a data set; a Mistake where its file cannot be read."""
    name = pictures.name(index)
    try:
        data = pictures.read(index)
    except OSError as error:
        raise Mistake(f"cannot read the picture {name}: {error.strerror or error}", "repair or remove it") from None
    return decode(data, name)


def augmentation(settings: Settings) -> v2.Compose:
    """What happens to a picture in training: a Pillow image in, uint8 [channels, height, width] out."""
    filter = InterpolationMode(point.INTERPOLATION)
    size, steps = point.TRAINING_SIZE, list[Any]()
    if settings.crop_scale < 1:
        steps.append(v2.RandomResizedCrop(size, scale=(settings.crop_scale, 1), interpolation=filter))
    else:
        high, wide = (n * r // s for n, r, s in zip(size, point.RESIZED, point.SIZE, strict=True))
        steps.append(v2.Lambda(lambda picture: TF.to_pil_image(prepare(picture, size, (high, wide)))))
    steps += [v2.RandomHorizontalFlip(settings.flip)]
    steps += {"none": [], "trivial": [v2.TrivialAugmentWide()], "rand": [v2.RandAugment()]}[settings.augment]
    if settings.jitter:
        steps.append(v2.ColorJitter(settings.jitter, settings.jitter, settings.jitter))
    mean = [min(max(round(-shift / scale), 0), 255) for scale, shift in zip(point.SCALE, point.SHIFT, strict=True)]
    return v2.Compose([*steps, v2.PILToTensor(), v2.RandomErasing(settings.erase, value=mean)])


class Training(Dataset[Item]):
    """Augmented pictures, by epoch and index."""

    def __init__(self, pictures: Pictures, settings: Settings) -> None:
        self.pictures, self.seed, self.skip = pictures, settings.seed, settings.broken == "skip"
        self.augment = augmentation(settings)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        torch.default_generator.manual_seed(stream(self.seed, epoch, index))
        for instead in range(index, index + 100):
            position = instead % len(self.pictures)
            try:
                return self.augment(read(self.pictures, position)), self.pictures.label(position)
            except Mistake as mistake:
                if not self.skip:
                    return Mistake(mistake.message, f"{mistake.help}, or leave such out with --broken skip")
                print(f"note: left out: {mistake.message}", file=sys.stderr)
        return Mistake("100 pictures in a row cannot be read", "look at the data")


class Evaluation(Dataset[Item]):
    """Pictures as the network is to see them, in their order."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item:
        try:
            picture = read(self.pictures, index)
        except Mistake as mistake:
            return mistake
        return prepare(picture), self.pictures.label(index)


# Batches --------------------------------------------------------------------------------------------------------------


class Parts(Sampler[list[tuple[int, int]]]):
    """The parts of each step's batch that this process works on, from any step of any epoch on.

    A step's batch is the same whatever the number of processes and of parts is.
    """

    def __init__(self, count: int, settings: Settings, rank: int, processes: int) -> None:
        self.count, self.seed, self.batch = count, settings.seed, settings.batch_size
        self.rank, self.processes, self.accumulate = rank, processes, settings.accumulate
        self.steps = count // self.batch
        self.epoch = self.first = 0
        if self.batch % (processes * self.accumulate):
            raise Mistake(
                f"--batch-size {self.batch} is no multiple of {processes} processes x {self.accumulate} parts",
                "change it, or --accumulate",
            )
        if not self.steps:
            raise Mistake(
                f"a step takes {self.batch} pictures, and there are {count}", f"give --batch-size {count} or less"
            )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(stream(self.seed, self.epoch)))
        size = self.batch // (self.processes * self.accumulate)
        for step in range(self.first, self.steps):
            for part in range(self.accumulate):
                begin = step * self.batch + (part * self.processes + self.rank) * size
                yield [(self.epoch, index) for index in order[begin : begin + size].tolist()]

    def __len__(self) -> int:
        return (self.steps - self.first) * self.accumulate


def collate(items: list[Item]) -> tuple[torch.Tensor, torch.Tensor] | Mistake:
    """uint8 [pictures, channels, height, width] and the classes [pictures]; or the first mistake."""
    read = [item for item in items if not isinstance(item, Mistake)]
    if len(read) < len(items):
        return next(item for item in items if isinstance(item, Mistake))
    return torch.stack([picture for picture, _ in read]), torch.tensor([label for _, label in read])


def loader(dataset: Dataset[Item], settings: Settings, **more: Any) -> DataLoader[Item]:
    workers = settings.workers
    return DataLoader(
        dataset, num_workers=workers, persistent_workers=workers > 0, collate_fn=collate,
        pin_memory=torch.cuda.is_available(), worker_init_fn=_patient, **more,
    )  # fmt: skip


def _patient(worker: int) -> None:
    # Signals to the group are for the process that trains: it saves, and stops its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def batches(loader: DataLoader[Item], device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A loader's batches on a device; a picture that could not be read stops here."""
    for batch in loader:
        if isinstance(batch, Mistake):
            raise batch
        pictures, labels = batch
        yield pictures.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def normalise(pictures: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """uint8 pictures as the network's input."""
    scale, shift = torch.tensor([point.SCALE, point.SHIFT], dtype=dtype, device=pictures.device)[:, :, None, None]
    return pictures * scale + shift
