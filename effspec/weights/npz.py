"""NumPy archives (`.npz`), as variables of TensorFlow and JAX are often exported: a zip file of one array a record."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effspec.weights.store import DTYPES, MAX_NAME, MAX_RANK, MAX_TENSORS, TensorFile, damaged, refused

_SUFFIX = ".npy"
_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, SyntaxError)


def is_npz(names: list[str]) -> bool:
    """Whether a zip file with these records looks like one."""
    return bool(names) and all(name.endswith(_SUFFIX) for name in names)


class File(TensorFile):
    """An archive that is open for reading, its arrays in the order of its records.

    Raises E0802 (damaged) and E0803 (arrays of objects and other types that are no numbers).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.kind, self.metadata = Path(path), "NumPy archive", {}
        try:
            self._archive = zipfile.ZipFile(self.path)
            found = {info.filename.removesuffix(_SUFFIX): self._header(info) for info in self._archive.infolist()}
        except _ERRORS as error:
            raise damaged(self.path, str(error)) from None
        if len(found) > MAX_TENSORS:
            raise refused(self.path, f"holds {len(found):,} arrays, more than the limit of {MAX_TENSORS:,}")
        self.shapes: Mapping[str, tuple[int, ...]] = {name: shape for name, (shape, _) in found.items()}
        self.dtypes: Mapping[str, str] = {name: dtype for name, (_, dtype) in found.items()}

    def array(self, name: str) -> NDArray[Any]:
        if name not in self.shapes:
            raise KeyError(name)
        try:
            with self._archive.open(name + _SUFFIX) as handle:
                made: NDArray[Any] = np.lib.format.read_array(handle, allow_pickle=False)
        except (*_ERRORS, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
            raise damaged(self.path, f"`{name}`: {error}") from None
        return made

    def close(self) -> None:
        self._archive.close()

    def _header(self, info: zipfile.ZipInfo) -> tuple[tuple[int, ...], str]:
        """Shape and element type of an array, which has to have the size that they say."""
        name = info.filename.removesuffix(_SUFFIX)
        with self._archive.open(info) as handle:
            version = np.lib.format.read_magic(handle)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"`{name[:80]}` is an array of format {version}")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(handle)
            at = handle.tell()
        found = element(dtype)
        if found is None:
            raise refused(self.path, f"stores `{name[:80]}` as {dtype!s:.40}, which is no type of numbers")
        if len(name) > MAX_NAME or len(shape) > MAX_RANK:
            raise refused(self.path, f"has an array of {len(shape)} axes, `{name[:80]}`")
        if min(shape, default=1) < 0 or at + prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"`{name[:80]}` of shape {shape} does not have the size of its record")
        return shape, found


def element(dtype: np.dtype[Any]) -> str | None:
    """A NumPy type as safetensors calls it; None for what is no plain number."""
    if dtype.kind == "b":
        return "BOOL"
    kinds = {np.dtype(kind): name for name, (_, kind) in DTYPES.items() if kind and name not in ("BF16", "BOOL")}
    return kinds.get(dtype.newbyteorder("<")) if dtype.kind in "fiu" else None
