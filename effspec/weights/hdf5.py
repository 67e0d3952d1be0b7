"""HDF5 files of Keras: `.weights.h5` and `.keras` of version 3, and the `.h5` of versions before.

Keras 3 keeps the variables of a layer as `vars/0`, `1`, ... in the order in which it makes them, which depends on its
class alone; the name of the layer is an attribute.  Before, a list of layers names the variables of each.  Both are
given here as `layer/variable` (`stem_conv/kernel`).  What an optimizer keeps is none of the tensors of the model.

Reading takes the package h5py.  A dataset that lies in another file is refused, and so is a link that leads to one.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import fail
from effspec.weights.npz import element
from effspec.weights.store import MAX_NAME, MAX_TENSORS, TensorFile, damaged, refused

SIGNATURE = b"\x89HDF\r\n\x1a\n"
INNER = "model.weights.h5"
"""The record of a `.keras` archive that holds the weights."""

_MAX_DEPTH = 32
_SCALED = ("gamma", "beta")
_VARIABLES = {
    "batch_normalization": (*_SCALED, "moving_mean", "moving_variance"),
    "layer_normalization": _SCALED,
    "group_normalization": _SCALED,
    "normalization": ("mean", "variance", "count"),
    "depthwise_conv1d": ("depthwise_kernel", "bias"),
    "depthwise_conv2d": ("depthwise_kernel", "bias"),
    "separable_conv1d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "separable_conv2d": ("depthwise_kernel", "pointwise_kernel", "bias"),
    **dict.fromkeys(("conv1d", "conv2d", "conv1d_transpose", "conv2d_transpose", "dense"), ("kernel", "bias")),
}
"""The variables of Keras's layers, in the order in which each makes them (keras.layers, version 3)."""
_OPTIONAL = ("bias",)
_ERRORS = (OSError, KeyError, RuntimeError, ValueError, TypeError, zipfile.BadZipFile)


class File(TensorFile):
    """A file that is open for reading.  Raises E0801 (no h5py), E0802 (damaged) and E0803 (content that is refused)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.kind, self.metadata = Path(path), "HDF5", {}
        try:
            import h5py
        except ImportError:
            raise fail(
                "E0801", f"reading {self.path.name}, an HDF5 file, takes the package h5py", help="pip install h5py"
            ) from None
        self._h5: Any = h5py
        try:
            with ExitStack() as opened:
                inner: Any = self.path
                if zipfile.is_zipfile(self.path):
                    self.kind = "Keras archive"
                    inner = opened.enter_context(opened.enter_context(zipfile.ZipFile(self.path)).open(INNER))
                self._sets = dict(self._named(opened.enter_context(h5py.File(inner, "r"))))
                self.dtypes: Mapping[str, str] = {name: self._type(name) for name in self._sets}
                self._close = opened.pop_all().close
        except _ERRORS as error:
            raise damaged(self.path, str(error)[:200]) from None
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(map(int, dataset.shape)) for name, dataset in self._sets.items()
        }

    def array(self, name: str) -> NDArray[Any]:
        dataset = self._sets[name]
        try:
            return np.asarray(dataset[()])
        except _ERRORS as error:
            raise damaged(self.path, f"`{name}`: {error}") from None

    def close(self) -> None:
        self._sets = {}
        self._close()

    def _type(self, name: str) -> str:
        found = element(self._sets[name].dtype)
        if found is None:
            raise refused(self.path, f"stores `{name[:80]}` as {self._sets[name].dtype!s:.40}, which is no number")
        return found

    def _named(self, file: Any) -> Iterator[tuple[str, Any]]:
        """The tensors by their names: in the order of the layers where the file lists them, else sorted."""
        top = self._item(file, "model_weights") if "model_weights" in file else file
        if "layer_names" in top.attrs:
            for layer in map(_text, top.attrs["layer_names"]):
                group = self._item(top, layer)
                for name in map(_text, group.attrs.get("weight_names", ())):
                    yield name, self._dataset(group, name)
            return
        found = list(self._walk(top, (), set()))
        names = {path: self._keras3(path, dataset) for path, dataset in found}
        twice = {name for name, count in Counter(names.values()).items() if count > 1}
        for path, dataset in sorted(found, key=lambda one: names[one[0]]):
            yield ("/".join(path) if names[path] in twice else names[path]), dataset

    def _walk(self, group: Any, path: tuple[str, ...], above: set[Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
        # A group may hold itself, by a second link.
        address = self._h5.h5o.get_info(group.id).addr
        if len(path) > _MAX_DEPTH or address in above:
            raise ValueError(f"its groups are nested in themselves or too deeply, at {'/'.join(path)[:80]}")
        for name in group:
            if not path and name in ("optimizer", "optimizer_weights"):
                continue
            item = self._item(group, name)
            if isinstance(item, self._h5.Group):
                yield from self._walk(item, (*path, name), {*above, address})
            else:
                yield (*path, name), item

    def _dataset(self, group: Any, name: str) -> Any:
        for step in name.split("/"):
            group = self._item(group, step)
        if not isinstance(group, self._h5.Dataset):
            raise ValueError(f"`{name[:80]}` is no dataset")
        return group

    def _item(self, group: Any, name: str) -> Any:
        """A group or dataset that lies in this file."""
        if not isinstance(group.get(name, getlink=True), self._h5.HardLink) and name in group:
            raise refused(self.path, f"has a link in place of `{name[:80]}`: only what lies in the file itself is read")
        item = group[name]
        if isinstance(item, self._h5.Dataset) and (item.external or item.is_virtual or item.shape is None):
            raise refused(self.path, f"does not hold the numbers of `{name[:80]}` itself")
        if len(name) > MAX_NAME or len(group) > MAX_TENSORS:
            raise refused(self.path, f"has a group of {len(group):,} entries, or a name of {len(name):,} characters")
        return item

    def _keras3(self, path: tuple[str, ...], dataset: Any) -> str:
        """`stem_conv/kernel` for `layers/conv2d/vars/0`; the path where the class or its variables are others."""
        if len(path) < 3 or path[-2] != "vars" or not path[-1].isdecimal():
            return "/".join(path)
        known = _VARIABLES.get(re.sub(r"_\d+$", "", path[-3]), ())
        index, count = int(path[-1]), len(dataset.parent)
        # A layer without scale or shift has fewer variables, and the file does not say which.
        complete = count == len(known) or (count == len(known) - 1 and known[-1] in _OPTIONAL)
        variable = known[index] if complete and index < len(known) else path[-1]
        return f"{_text(dataset.parent.attrs.get('name', '/'.join(path[:-2])))}/{variable}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
