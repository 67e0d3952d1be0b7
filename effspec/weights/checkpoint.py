"""Checkpoints as weights of a model: opening a file of any known format, whether it fits, and saving."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import fail
from effspec.ir.graph import Parameter
from effspec.ops.base import show
from effspec.weights import classes, safetensors
from effspec.weights.head import New, lines, resized
from effspec.weights.initial import Seeded
from effspec.weights.parts import Part
from effspec.weights.store import TensorFile

if TYPE_CHECKING:
    from effspec.backend import Weights

_LISTED = 12


def load(path: str | os.PathLike[str], part: str | None = None) -> TensorFile:
    """Open a checkpoint of PyTorch, NumPy or Keras, or safetensors: told apart by content and not by name.

    `part` chooses among several sets of weights in one checkpoint, by its key or the beginning of its tensors' names
    ("state_dict_ema"; see `effspec.weights.parts`).
    Raises E0801 (unreadable, or none of these), E0802 (damaged) and E0803 (content that effspec does not take).
    """
    path = Path(path)
    try:
        with path.open("rb") as handle:
            head = handle.read(16)
    except OSError as error:
        raise fail("E0801", f"cannot read {path}: {error.strerror or error}") from None
    if safetensors.is_safetensors(head):
        file = safetensors.File(path)
        return file if part is None else Part(file, part)
    # Imported here: a safetensors file needs none of it.
    from effspec.weights import hdf5, npz, pth

    records = _records(path) if pth.is_zip(head) else []
    if npz.is_npz(records) or hdf5.INNER in records or head.startswith(hdf5.SIGNATURE):
        other = npz.File(path) if npz.is_npz(records) else hdf5.File(path)
        return other if part is None else Part(other, part)
    if pth.is_zip(head) or pth.is_pickle(head):
        return pth.File(path, part)
    raise fail(
        "E0801",
        f"{path.name} is no checkpoint that effspec reads",
        notes=("it begins neither as safetensors, PyTorch (.pth), NumPy (.npz) nor Keras (.h5, .keras) files do",),
        help="a download that failed often leaves a page of HTML or a Git LFS pointer: look at the file",
    )


def _records(path: Path) -> list[str]:
    """The names in a zip file; none where it is damaged, which its reader says better."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return []


def loading(path: str | os.PathLike[str]) -> str | None:
    """The Python expression for the tensors of a checkpoint by name; None where its file holds more than them."""
    file = load(path)
    try:
        if isinstance(file, safetensors.File):
            return f"safetensors.torch.load_file({os.fspath(path)!r})"
        return f"torch.load({os.fspath(path)!r}, weights_only=True)" if getattr(file, "bare", False) else None
    finally:
        file.close()


def check_fits(
    file: TensorFile, parameters: Iterable[Parameter], *, head: Collection[str] = (), new_head: bool = False
) -> tuple[New, ...]:
    """Raise one E0804 that lists every missing, unexpected and wrongly shaped tensor, or return.

    With `new_head`, tensors of the last layers (the paths in `head`) may have another number of outputs, and are
    returned.
    """
    named = {parameter.path: parameter for parameter in parameters}
    wanted = {path: parameter.shape for path, parameter in named.items()}
    found = file.shapes
    missing = [name for name in wanted if name not in found]
    # A PyTorch model keeps a step counter in each batch norm; it is no number of the model.
    extra = [name for name in found if name not in wanted and not is_counter(name, found[name])]
    wrong = [name for name, shape in wanted.items() if name in found and found[name] != shape]
    another_head = all(path in head and resized(found[path], wanted[path]) for path in wrong)
    if not missing and not extra and (not wrong or (another_head and new_head)):
        return tuple(New(named[path], path, found[path]) for path in wrong)
    notes = [
        *_listed(wrong, lambda name: f"`{name}` is {show(found[name])}, the model wants {show(wanted[name])}", "more"),
        *_listed(missing, lambda name: f"missing `{name}` {show(wanted[name])}{_near(name, extra)}", "more missing"),
        *_listed(extra, lambda name: f"unexpected `{name}` {show(found[name])}", "more unexpected"),
    ]
    counts = [(len(missing), "missing"), (len(extra), "unexpected"), (len(wrong), "of another shape")]
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    if len(missing) > len(wanted) // 2 and extra:
        help = "`effspec weights convert` moves a checkpoint whose names are those of another code base"
    elif another_head and not missing and not extra:
        help = f"`--new-head` takes the other {len(wanted) - len(wrong)} and starts these from initial values"
    else:
        help = "another variant, or other settings, may be the one that it was trained with"
    raise fail(
        "E0804",
        f"{file.path.name} does not fit the model: of {len(wanted)} tensors {said}",
        notes=tuple(notes),
        help=help,
    )


def _listed(names: Sequence[str], text: Callable[[str], str], rest: str) -> list[str]:
    shown = [text(name) for name in names[:_LISTED]]
    return shown + ([f"... and {len(names) - _LISTED} {rest}"] if len(names) > _LISTED else [])


def _near(name: str, others: Sequence[str]) -> str:
    near = get_close_matches(name, others[:2000], n=1, cutoff=0.75)
    return f"; is it called `{near[0]}`?" if near else ""


def is_counter(name: str, shape: tuple[int, ...]) -> bool:
    """PyTorch's count of the batches that a batch norm has seen."""
    return shape == () and name.rpartition(".")[2] == "num_batches_tracked"


class Checkpoint:
    """A weight source: the tensors of an open file, by the paths of the parameters.

    With `parameters`, the file is checked against them at once (E0804).  With `new_head`, `new` are tensors of the
    last layers (`head`) that have another size there: these are the initial values of `seed`.
    """

    def __init__(
        self,
        file: TensorFile,
        parameters: Iterable[Parameter] | None = None,
        *,
        head: Collection[str] = (),
        new_head: bool = False,
        seed: int = 0,
    ) -> None:
        self.file, self.new_head, self.seed, self.initial = file, new_head, seed, Seeded(seed)
        fits = parameters is not None
        self.new = check_fits(file, parameters or (), head=head, new_head=new_head) if fits else ()
        self._fresh = {one.parameter.path for one in self.new}
        self.class_names: classes.Names = () if self.new else classes.of(file)

    def lines(self) -> list[str]:
        """What was done about a new head, for a person."""
        if not self.new_head:
            return []
        lost = len(classes.of(self.file)) if self.new else 0
        return lines(self.new, self.seed) + ([f"its {lost:,} class names are left out"] if lost else [])

    def tensor(self, parameter: Parameter) -> NDArray[np.float32]:
        """The tensor of that path; E0804 where it is missing or has another shape."""
        path, shape = parameter.path, self.file.shapes.get(parameter.path)
        if path in self._fresh:
            return self.initial.tensor(parameter)
        if shape != parameter.shape:
            found = f"has shape {show(shape)}" if shape is not None else "is missing"
            raise fail("E0804", f"{self.file.path.name}: `{path}` {found}, the model wants {show(parameter.shape)}")
        return self.file.tensor(path)


def save(
    path: str | os.PathLike[str],
    parameters: Iterable[Parameter],
    weights: Weights,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write every parameter as safetensors, one at a time; `metadata` names the function and weights hashes."""
    named = {parameter.path: parameter for parameter in parameters}
    shapes = {name: parameter.shape for name, parameter in named.items()}
    safetensors.write(path, shapes, lambda name: weights.tensor(named[name]), metadata)
