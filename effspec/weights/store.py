"""What a file of tensors is to the rest of effspec, the limits that every reader holds, and how files are written."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from effspec.diagnostics import EffspecError, fail

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TENSORS = 1_000_000
MAX_RANK = 32
MAX_NAME = 4_096


class TensorFile(Protocol):
    """Named tensors of an open file.  Nothing is read before `tensor` asks for it."""

    path: Path

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name to shape, in the order of the file."""
        ...

    def tensor(self, name: str) -> NDArray[np.float32]:
        """A tensor as float32; it may be a read-only view of the file.  KeyError for a name that is not there."""
        ...

    def close(self) -> None:
        """Let go of the file.  Tensors that were handed out stay valid."""
        ...


def damaged(path: Path, what: str, *, notes: tuple[str, ...] = (), help: str | None = None) -> EffspecError:
    """A file that claims to be a checkpoint and breaks the rules of its format (E0802)."""
    return fail("E0802", f"{path.name} is damaged: {what}", notes=notes, help=help)


def refused(path: Path, what: str, *, help: str | None = None) -> EffspecError:
    """A file with content that effspec does not take (E0803)."""
    return fail("E0803", f"{path.name} {what}", help=help)


def map_file(path: Path) -> mmap.mmap | bytes:
    """The bytes of a file, mapped rather than read; E0801 where it cannot be read."""
    try:
        with path.open("rb") as handle:
            # An empty file cannot be mapped.
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(handle.fileno()).st_size else b""
    except OSError as error:
        raise fail("E0801", f"cannot read {path}: {error.strerror or error}") from None


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write `pieces` to `path` so that either the old file or the complete new one is there, whatever happens.

    A temporary file beside it is flushed to the disk, then renamed over it (over a symbolic link itself, not over what
    it points to).  E0801 where that fails.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.effspec-tmp")
    try:
        with temporary.open("xb") as handle:
            for piece in pieces:
                handle.write(piece)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        if os.name == "posix":
            # The new name is on the disk only when the folder is.
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise fail("E0801", f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
