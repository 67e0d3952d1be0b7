"""PyTorch checkpoints (`.pth`, `.pt`) without PyTorch: the zip format, and the legacy format from before version 1.6.

A zip holds a pickle (`NAME/data.pkl`) that describes tensors, and a record a storage (`NAME/data/0`).  The legacy
format is five pickles (a magic number, a version, facts of the machine, the object, the keys of the storages), then
the storages: a count of 8 bytes and the elements.

The pickle is read by `effspec.weights.unpickle`, whose table here has tensors, sizes, element types and ordered dicts:
any other name is refused, and shown.  Nothing that a file says is believed: records must be stored and not compressed,
so that a small file cannot become large; and size, offset and strides of every tensor are checked against its storage
when the file is opened, before any memory is taken for them.  Tensors are views of the mapped file where they can be.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from effspec.diagnostics import fail
from effspec.weights import parts, unpickle
from effspec.weights.store import DTYPES, MAX_NAME, MAX_RANK, MAX_TENSORS, TensorFile, damaged, map_file, refused, widen
from effspec.weights.unpickle import Damaged, Maker, Refused

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
# A tensor may repeat elements of its storage (`expand`), but not turn a small file into a large tensor.
_MAX_REPEATED = 1 << 24
_HELP = "in PyTorch, save the tensors alone: torch.save(model.state_dict(), PATH)"


@dataclass(frozen=True)
class _Element:
    """The element type of a storage, by the name that safetensors gives it."""

    dtype: str

    @property
    def size(self) -> int:
        return DTYPES[self.dtype][0]


@dataclass(frozen=True)
class _Storage:
    """`count` elements from element `first` of the storage `key`."""

    key: str
    element: _Element
    first: int
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    element: _Element
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Record:
    """Where the bytes of a storage lie in the file; `crc` is None where the format has none."""

    start: int
    size: int
    crc: int | None = None


def is_zip(head: bytes) -> bool:
    return head[:4] == b"PK\x03\x04"


def is_pickle(head: bytes) -> bool:
    """Whether a file begins like a pickle of protocol 2 to 5."""
    return len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5


class File(TensorFile):
    """A checkpoint that is open for reading, its tensors in their order.

    `part` says which of several sets of weights is meant, by the key under which the file has it ("state_dict_ema").
    `bare` says that the file is these tensors and nothing else.
    Raises E0801 (unreadable, or several sets and no `part`), E0802 (damaged) and E0803 (content that is refused).
    """

    def __init__(self, path: str | os.PathLike[str], part: str | None = None) -> None:
        self.path, self.metadata = Path(path), {}
        self._data = map_file(self.path)
        self.kind = "PyTorch, zip" if is_zip(self._data[:4]) else "PyTorch, before version 1.6"
        self._counts: dict[str, _Storage] = {}
        self._checked: set[str] = set()
        self._order = "<"
        try:
            value = self._read_zip() if is_zip(self._data[:4]) else self._read_legacy()
            self._tensors: Mapping[str, _Tensor] = self._choose(value, part)
            self.bare = value == self._tensors
            for name, tensor in self._tensors.items():
                self._check(name, tensor)
        except Damaged as error:
            raise damaged(self.path, str(error)) from None
        except Refused as error:
            raise refused(self.path, str(error), help=_HELP) from None
        self.shapes: Mapping[str, tuple[int, ...]] = {name: tensor.shape for name, tensor in self._tensors.items()}
        self.dtypes: Mapping[str, str] = {name: tensor.element.dtype for name, tensor in self._tensors.items()}

    def array(self, name: str) -> NDArray[Any]:
        tensor = self._tensors[name]
        storage, element, shape = tensor.storage, tensor.element, tensor.shape
        record = self._records[storage.key]
        if record.crc is not None and storage.key not in self._checked:
            if zlib.crc32(memoryview(self._data)[record.start : record.start + record.size]) != record.crc:
                raise damaged(self.path, f"the bytes of `{name}` do not have the checksum that the file gives them")
            self._checked.add(storage.key)
        kind = np.dtype(DTYPES[element.dtype][1].replace("<", self._order))
        start, size = record.start + storage.first * storage.element.size, storage.count * storage.element.size
        raw = np.frombuffer(self._data, kind, size // element.size, start)
        view = as_strided(raw[tensor.offset :], shape, [n * element.size for n in tensor.strides], writeable=False)
        return widen(view if view.size else raw[:0].reshape(shape), element.dtype)

    def close(self) -> None:
        """Let go of the file; tensors that were handed out keep their map of it."""
        self._data = b""

    # -- the two formats ---------------------------------------------------------------------------------------------

    def _read_zip(self) -> object:
        entries = self._entries()
        if any(name.endswith("/constants.pkl") for name in entries):
            raise Refused("is a TorchScript program, not a checkpoint")
        pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Damaged("a PyTorch checkpoint has one data.pkl, this zip file has " + (str(len(pickles)) or "none"))
        prefix = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{prefix}byteorder")
        if order is not None:
            text = self._data[order.start : order.start + min(order.size, 16)]
            if text not in (b"little", b"big"):
                raise Damaged("its byte order is neither little nor big")
            self._order = "<" if text == b"little" else ">"
        self._records = {name.removeprefix(f"{prefix}data/"): record for name, record in entries.items()}
        record = entries[pickles[0]]
        text = self._data[record.start : record.start + min(record.size, unpickle.MAX_PICKLE + 1)]
        if record.size <= unpickle.MAX_PICKLE and record.crc is not None and zlib.crc32(text) != record.crc:
            raise Damaged("its data.pkl does not have the checksum that the file gives it")
        value, _ = unpickle.load(text, 0, _KNOWN, self._persistent)
        for key, storage in self._counts.items():
            if key not in self._records:
                raise Damaged(f"its storage {key[:40]} is missing")
            size = storage.count * storage.element.size
            if self._records[key].size < size:
                raise Damaged(f"its storage {key[:40]} has {self._records[key].size:,} of {size:,} bytes")
        return value

    def _entries(self) -> dict[str, _Record]:
        """The records of the zip file, all stored and within the file."""
        try:
            with self.path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, EOFError, OverflowError) as error:
            raise Damaged(f"it is no complete zip file ({error}); it may be truncated") from None
        except OSError as error:
            raise fail("E0801", f"cannot read {self.path}: {error.strerror or error}") from None
        if len(infos) > MAX_TENSORS:
            raise Refused(f"holds {len(infos):,} records, more than the limit of {MAX_TENSORS:,}")
        found: dict[str, _Record] = {}
        for info in infos:
            name, start = info.filename, info.header_offset
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1 or info.file_size != info.compress_size:
                raise Refused(f"has a compressed or encrypted record `{name[:80]}`, as PyTorch writes none")
            head = self._data[start : start + 30]
            if len(head) < 30 or head[:4] != b"PK\x03\x04":
                raise Damaged(f"record `{name[:80]}` is not where the zip file says")
            skip = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
            begin = start + 30 + skip
            if begin + info.file_size > len(self._data):
                raise Damaged(f"record `{name[:80]}` goes beyond the end of the file")
            if name in found:
                raise Damaged(f"record `{name[:80]}` stands twice")
            # PyTorch can be told to write no checksums: then they are 0.
            found[name] = _Record(begin, info.file_size, info.CRC or None)
        return found

    def _read_legacy(self) -> object:
        magic, at = unpickle.load(self._data, 0, {})
        if magic != _MAGIC:
            raise Refused("is a pickle, but no checkpoint that torch.save has written")
        version, at = unpickle.load(self._data, at, {})
        if version != _VERSION:
            raise Refused(f"is a checkpoint of protocol version {version!r:.40}, expected {_VERSION}")
        machine, at = unpickle.load(self._data, at, {})
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise Refused("was written on a big-endian machine")
        value, at = unpickle.load(self._data, at, _KNOWN, self._persistent)
        keys, at = unpickle.load(self._data, at, {})
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise Damaged("the keys of its storages are not a list of texts")
        self._records = {}
        for key in keys:
            storage = self._counts.get(key)
            if storage is None or key in self._records:
                raise Damaged(f"its storage {key[:40]} belongs to no tensor or stands twice")
            head = self._data[at : at + 8]
            size = storage.count * storage.element.size
            if len(head) < 8 or at + 8 + size > len(self._data):
                raise Damaged(f"its storage {key[:40]} is incomplete: the file is truncated")
            if int.from_bytes(head, "little", signed=True) != storage.count:
                raise Damaged(f"its storage {key[:40]} has another length than its tensors say")
            self._records[key] = _Record(at + 8, size)
            at += 8 + size
        if missing := [key for key in self._counts if key not in self._records]:
            raise Damaged(f"its storage {missing[0][:40]} is missing")
        if at != len(self._data):
            raise Damaged(f"{len(self._data) - at:,} bytes follow its last storage")
        return value

    def _persistent(self, saved: object) -> object:
        """A storage that the pickle refers to: ("storage", type, key, device, count) and a view in legacy files."""
        if not isinstance(saved, tuple) or not saved or saved[0] != "storage":
            raise Refused("saves a whole module, not only its tensors")
        view = None
        match saved[1:]:
            case (_Element() as element, str(key), str(), int(count)):
                pass
            case (_Element() as element, str(key), str(), int(count), view):
                pass
            case _:
                raise Damaged("a storage in its pickle is not described as PyTorch does")
        if not 0 <= count < 2**48 or len(key) > MAX_NAME:
            raise Damaged(f"a storage in its pickle has {count} elements")
        storage = _Storage(key, element, 0, count)
        whole = self._counts.setdefault(key, storage)
        if count * element.size > whole.count * whole.element.size:
            raise Damaged(f"its storage {key[:40]} is given two lengths")
        if view is None:
            return storage
        if isinstance(view, tuple) and len(view) == 3 and _sizes(view[1:]) and sum(view[1:]) <= count:
            return _Storage(key, element, view[1], view[2])
        raise Damaged("a view in its pickle does not lie in its storage")

    # -- the tensors -------------------------------------------------------------------------------------------------

    def _choose(self, value: object, part: str | None) -> dict[str, _Tensor]:
        """One set of named tensors in the file: the object itself, or a dict within it."""
        if not isinstance(value, dict):
            raise Refused("holds no dict of tensors")
        sets = parts.sets(value, _Tensor)
        if not sets:
            raise Refused("holds no tensors with names")
        return parts.choose(self.path, sets, part)

    def _check(self, name: str, tensor: _Tensor) -> None:
        """Everything that a tensor reaches lies in its storage, and it is not absurdly larger than that."""
        storage, offset, shape = tensor.storage, tensor.offset, tensor.shape
        if len(name) > MAX_NAME or len(shape) > MAX_RANK:
            raise Refused(f"has a tensor of {len(shape)} axes, `{name[:80]}`")
        # The element type of the tensor (given apart in newer files) may differ from that of the storage.
        count = storage.count * storage.element.size // tensor.element.size
        reach = sum((size - 1) * stride for size, stride in zip(shape, tensor.strides, strict=True))
        empty = 0 in shape
        if offset < 0 or (offset > count if empty else offset + reach >= count):
            raise Damaged(f"`{name[:80]}` of shape {shape} goes beyond its storage of {count:,} elements")
        if prod(shape) > max(count, _MAX_REPEATED):
            raise Refused(f"repeats few numbers to a tensor of shape {shape}, `{name[:80]}`")


# --- what may be named in a pickle: nothing of it is imported, all of it is inert -----------------------------------


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    match arguments:
        case ():
            pass
        case (list(pairs),) if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            unpickle.put(found, [(pair[0], pair[1]) for pair in pairs])
        case _:
            raise Damaged("an ordered dict in its pickle is not described as Python does")
    return found


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    match arguments:
        case ((tuple() | list()) as sizes,) if _sizes(sizes):
            return tuple(sizes)
    raise Damaged("a size in its pickle is not a list of numbers")


def _sizes(values: object) -> bool:
    # `type` and not isinstance: True is no size.
    return isinstance(values, tuple | list) and all(type(n) is int and 0 <= n < 2**48 for n in values)


def _tensor(arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Storage() as storage, int(offset), shape, strides, *_) if (
            _sizes(shape) and _sizes(strides) and len(shape) == len(strides)
        ):
            return _Tensor(storage, storage.element, offset, tuple(shape), tuple(strides))
    raise Damaged("a tensor in its pickle is not described as PyTorch does")


def _tensor_v3(arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_, _, _, _, _, _, _Element() as element, *_):
            return replace(_tensor(arguments[:4]), element=element)
    raise Damaged("a tensor in its pickle is not described as PyTorch does")


def _parameter(arguments: tuple[Any, ...]) -> _Tensor:
    match arguments:
        case (_Tensor() as tensor, *_):
            return tensor
    raise Damaged("a parameter in its pickle is not a tensor")


_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "UntypedStorage": "U8",
}
_ELEMENTS = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_MAKERS = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}
_KNOWN: dict[tuple[str, str], object] = {
    **{names: Maker(names[1], make) for names, make in _MAKERS.items()},
    **{
        (module, name): _Element(dtype)
        for module in ("torch", "torch.storage", "torch.cuda")
        for name, dtype in _STORAGES.items()
    },
    **{("torch", name): _Element(dtype) for name, dtype in _ELEMENTS.items()},
}
