"""Keeps a run: all that it needs to go on, and its weights, so that none of it is ever half-written.

`state.pt` is the whole state of a run in one file.  `last.safetensors` and `best.safetensors` are weights alone, under
the names of the spec, for any program.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import point
from settings import FREE, Mistake, Settings, as_json


def write(path: Path, data: bytes) -> None:
    """Write a file: either the old one or all of the new one is there, whatever happens."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> Mistake:
    reason = (error.strerror or str(error)).lower()
    return Mistake(
        f"cannot write {path}: {reason}", "make room and start again: the run goes on from its last checkpoint"
    )


def save_weights(path: Path, state: dict[str, torch.Tensor], classes: list[str], **about: str) -> None:
    """Weights as safetensors, with what they are for."""
    tensors = {name: _plain(tensor) for name, tensor in state.items()}
    made = {"producer": "effspec", "model": point.MODEL, "spec": point.SPEC, "function": point.FUNCTION}
    metadata = {**made, "class_names": json.dumps(classes), **about}
    write(path, _ordered(save(tensors, metadata)))


def _ordered(data: bytes) -> bytes:
    """A safetensors file with its header in order: the package writes metadata in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def load_weights(model: torch.nn.Module, path: str) -> None:
    """Load a safetensors file of the model's own names."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise Mistake(f"cannot read the weights {path}: {error}") from None
    own = model.state_dict()
    # The counters of batches decide nothing, and other programs leave them out.
    state = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | state
    for name in sorted(own.keys() ^ state.keys()):
        raise Mistake(f"{path} does not fit: only {'the model' if name in own else 'the file'} has {name}", _MOVE)
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            shapes = f"{name} is {list(tensor.shape)} there, and {list(own[name].shape)} in the model"
            raise Mistake(f"{path} does not fit: {shapes}", _MOVE)
    model.load_state_dict(state)


_MOVE = "`effspec weights convert` moves checkpoints of other programs; with --new-head, to other classes"


def save_state(path: Path, state: dict[str, Any]) -> None:
    content = io.BytesIO()
    torch.save(state, content)
    write(path, content.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """The state of a run, or None where it has none yet."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001, RUF100 (whatever somebody put there)
        raise Mistake(f"cannot read {path}: {error}", "if it is beyond repair, give another --output") from None
    return state


def claim(folder: Path, settings: Settings) -> None:
    """Make the folder of a run, or see that the run in it is this one."""
    place = folder / "settings.json"
    wanted = {"function": point.FUNCTION} | json.loads(as_json(settings))
    if place.exists():
        found = json.loads(place.read_text())
        odd = [name for name in wanted if name not in FREE and found.get(name) != wanted[name]]
        if odd == ["function"] or "function" in odd:
            raise Mistake(f"the run in {folder} is of another network", "give another --output")
        if odd:
            differ = ", ".join(f"{name} was {found.get(name)} and is {wanted[name]}" for name in odd)
            raise Mistake(f"the run in {folder} has other settings: {differ}", "give the same, or another --output")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    write(place, (json.dumps(wanted, indent=2) + "\n").encode())
