"""Safetensors files: read lazily from a map of the file, written as a stream.

The format is 8 bytes (little-endian) of header length, a JSON object `{name: {dtype, shape, data_offsets}}` with an
optional `__metadata__` of texts, then the tensors end to end in C order, little-endian.  This reader and writer need
only NumPy, hold no more than one tensor, and check everything that a header claims before they believe it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import fail
from effspec.output import write_atomically
from effspec.weights.store import (
    DTYPES,
    MAX_NAME,
    MAX_RANK,
    MAX_TENSORS,
    TensorFile,
    damaged,
    map_file,
    refused,
    widen,
)

MAX_HEADER = 100_000_000
"""The limit of the reference implementation."""


class _Entry(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with `head` (at least 9 bytes) looks like one: a plausible length, then `{`."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


class File(TensorFile):
    """A safetensors file that is open for reading, its tensors in the order of its header.

    Raises E0801 (unreadable), E0802 (damaged) and E0803 (unsupported).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.kind = Path(path), "safetensors"
        self._data = map_file(self.path)
        size = len(self._data)
        if size < 9 or self._data[8:9] != b"{":
            raise damaged(self.path, "a safetensors file begins with the length of its header and `{`")
        length = int.from_bytes(self._data[:8], "little")
        if length > MAX_HEADER:
            raise damaged(self.path, f"its header claims {length:,} bytes, more than the limit of {MAX_HEADER:,}")
        self._begin = 8 + length
        if self._begin > size:
            raise damaged(self.path, f"its header claims {length:,} bytes, and the file has {size:,}: it is truncated")
        header = self._header(self._data[8 : self._begin])
        self.metadata: Mapping[str, str] = self._metadata(header.pop("__metadata__", {}))
        if len(header) > MAX_TENSORS:
            raise refused(self.path, f"holds {len(header):,} tensors, more than the limit of {MAX_TENSORS:,}")
        self._entries = {name: self._entry(name, entry) for name, entry in header.items()}
        self.shapes: Mapping[str, tuple[int, ...]] = {name: entry.shape for name, entry in self._entries.items()}
        self.dtypes: Mapping[str, str] = {name: entry.dtype for name, entry in self._entries.items()}
        self._check_layout(size - self._begin)

    def array(self, name: str) -> NDArray[Any]:
        dtype, shape, start, end = self._entries[name]
        kind = DTYPES[dtype][1]
        if not kind:
            raise refused(self.path, f"stores `{name}` as {dtype}, which effspec does not read")
        count = (end - start) // DTYPES[dtype][0]
        raw = np.frombuffer(self._data, np.dtype(kind), count, self._begin + start)
        return widen(raw, dtype).reshape(shape)

    def close(self) -> None:
        """Let go of the file; tensors that were handed out keep their map of it."""
        self._data = b""

    def _header(self, text: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) != len(pairs):
                raise ValueError("a name stands twice")
            return found

        try:
            header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            reason = "it nests too deeply" if isinstance(error, RecursionError) else str(error)
            raise damaged(self.path, f"its header is not valid JSON: {reason}") from None
        if not isinstance(header, dict):
            raise damaged(self.path, "its header is not a JSON object")
        return header

    def _metadata(self, found: Any) -> Mapping[str, str]:
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise damaged(self.path, "`__metadata__` of its header is not a map from text to text")
        return found

    def _entry(self, name: str, entry: Any) -> _Entry:
        where = f"its header says of `{name[:80]}`"
        if len(name) > MAX_NAME:
            raise refused(self.path, f"has a tensor name of {len(name):,} characters")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise damaged(self.path, f"{where} something other than dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise refused(self.path, f"stores `{name[:80]}` as {dtype!r:.40}, a type that effspec does not know")
        for what, numbers in (("shape", shape), ("data_offsets", offsets)):
            # `type` and not isinstance: JSON's true is no number.
            if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise damaged(self.path, f"{where} a {what} that is not a list of sizes")
        if len(shape) > MAX_RANK:
            raise refused(self.path, f"has a tensor of {len(shape)} axes, `{name[:80]}`")
        if len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * DTYPES[dtype][0]:
            raise damaged(self.path, f"{where} {dtype} of shape {tuple(shape)} at {offsets}: the size does not fit")
        return _Entry(dtype, tuple(shape), offsets[0], offsets[1])

    def _check_layout(self, size: int) -> None:
        """The tensors fill the file without a gap or an overlap, as the format demands."""
        at, before = 0, ""
        for name, entry in sorted(self._entries.items(), key=lambda item: (item[1].start, item[1].end)):
            if entry.start != at:
                fault = "overlaps" if entry.start < at else "leaves a gap after"
                raise damaged(self.path, f"`{name}` {fault} " + (f"`{before}`" if before else "the header"))
            at, before = entry.end, name
        if at > size:
            raise damaged(self.path, f"its tensors take {at:,} bytes, and {size:,} are there: it is truncated")
        if at < size:
            raise damaged(self.path, f"{size - at:,} bytes follow its last tensor")


def chunks(
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], NDArray[np.float32]],
    metadata: Mapping[str, str] | None = None,
) -> Iterator[bytes | memoryview]:
    """A file of float32 tensors in pieces, so that no more than one tensor is held; sorted by name, data aligned to 8.

    `tensor(name)` is asked once for each name, in the order of the file; it must give the shape that was announced.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in sorted(shapes):
        end = at + 4 * prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise fail("E0803", f"the header of {len(shapes):,} tensors exceeds the format's {MAX_HEADER:,} bytes")
    yield len(text).to_bytes(8, "little") + text
    for name in sorted(shapes):
        found = tensor(name)
        if found.shape != tuple(shapes[name]):
            raise ValueError(f"`{name}` was announced as {shapes[name]} and is {found.shape}")
        if found.size:
            yield np.ascontiguousarray(found, "<f4").reshape(-1).view(np.uint8).data


def write(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], NDArray[np.float32]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file (see `chunks`) so that the old one or the complete new one is there, whatever happens (E0716)."""
    write_atomically(Path(path), chunks(shapes, tensor, metadata))
