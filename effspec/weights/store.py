"""What a file of tensors is to the rest of effspec, and the limits that every reader holds."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import EffspecError, fail

MAX_TENSORS = 1_000_000
MAX_RANK = 32
MAX_NAME = 4_096

DTYPES: dict[str, tuple[int, str]] = {
    "F64": (8, "<f8"),
    "F32": (4, "<f4"),
    "F16": (2, "<f2"),
    "BF16": (2, "<u2"),
    "I64": (8, "<i8"),
    "I32": (4, "<i4"),
    "I16": (2, "<i2"),
    "I8": (1, "i1"),
    "U64": (8, "<u8"),
    "U32": (4, "<u4"),
    "U16": (2, "<u2"),
    "U8": (1, "u1"),
    "BOOL": (1, "u1"),
    "F8_E4M3": (1, ""),
    "F8_E5M2": (1, ""),
    "F8_E8M0": (1, ""),
    "C64": (8, ""),
}
"""Element types as safetensors names them: bytes, and NumPy's type (empty: it has none, such a tensor stays unread)."""


class TensorFile(Protocol):
    """Named tensors of an open file.  No numbers are read before `array` or `tensor` asks for them.

    `kind` names the format; `shapes` and `dtypes` (as safetensors calls them) are in the order of the file; `metadata`
    is what the file says about itself, empty where its format has no place for that.
    """

    path: Path
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def array(self, name: str) -> NDArray[Any]:
        """A tensor in its own type, bfloat16 as float32; it may be a read-only view of the file.

        KeyError for a name that is not there, E0803 for a type that NumPy lacks.
        """
        ...

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32; it may be a read-only view of the file.  Errors are those of `array`."""
        # A native float32 view needs no copy, unless it has strides or an odd header left it misaligned.
        with np.errstate(over="ignore"):
            return np.require(self.array(name).astype(np.float32, copy=False), requirements=["C", "A"])

    def close(self) -> None:
        """Let go of the file.  Tensors that were handed out stay valid."""
        ...


def nbytes(file: TensorFile, name: str) -> int:
    """How many bytes a tensor takes as it is stored."""
    return prod(file.shapes[name]) * DTYPES[file.dtypes[name]][0]


def damaged(path: Path, what: str, *, notes: tuple[str, ...] = (), help: str | None = None) -> EffspecError:
    """A file that claims to be a checkpoint and breaks the rules of its format (E0802)."""
    return fail("E0802", f"{path.name} is damaged: {what}", notes=notes, help=help)


def refused(path: Path, what: str, *, help: str | None = None) -> EffspecError:
    """A file with content that effspec does not take (E0803)."""
    return fail("E0803", f"{path.name} {what}", help=help)


def widen(raw: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Stored elements as NumPy has them: a bfloat16 (given as its 16 bits) is the upper half of a float32."""
    if dtype == "BF16":
        return (np.require(raw, requirements="C").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw


def map_file(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, mapped rather than read; E0801 where it cannot be read."""
    try:
        with path.open("rb") as handle:
            # An empty file cannot be mapped.
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(handle.fileno()).st_size else b""
    except OSError as error:
        raise fail("E0801", f"cannot read {path}: {error.strerror or error}") from None
