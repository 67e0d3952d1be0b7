"""`effspec train`: writes a training script for a compiled model, and runs it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from effspec import output, training
from effspec.diagnostics import fail
from effspec.pipeline import Compiled

_PACKAGES = ("torch", "torchvision", "safetensors")


def begin(compiled: Compiled, folder: str, *, train_size: tuple[int, int] | None = None, force: bool = False) -> Path:
    """Write the code of a run into its folder; where it is.

    Raises EffspecError: E0721 where a package is missing, E0711 where the folder holds another model's run, and what
    `effspec.training.files` raises.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise fail("E0721", f"training needs {' and '.join(missing)}", help="pip install 'effspec[train]'")
    _check_run(Path(folder), compiled)
    return write(compiled, str(Path(folder) / "code"), train_size=train_size, force=force)


def run(code: Path, folder: str, words: Sequence[str], processes: int = 1) -> int:
    """Train in `folder` with the code of a run and the settings `words` of its script; its exit status."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    script = subprocess.Popen([*start, str(code / "train.py"), "--output", folder, *words])
    try:
        return _status(script.wait())
    except KeyboardInterrupt:
        return _status(script.wait())  # it was interrupted, too, and keeps what it has
    finally:
        if script.poll() is None:
            script.terminate()
            script.wait()


def write(compiled: Compiled, folder: str, *, train_size: tuple[int, int] | None = None, force: bool = False) -> Path:
    """Write the files of a training script into a folder, which is made if need be."""
    files = training.files(compiled, train_size)
    place = Path(folder)
    if place.is_file():
        raise fail(
            "E0713", f"{folder} is a file, and a training script is a folder", help="choose another name with -o"
        )
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise fail("E0716", f"cannot make {folder}: {(error.strerror or str(error)).lower()}") from None
    output.write(place, files, force=force)
    return place


def _check_run(folder: Path, compiled: Compiled) -> None:
    """The code of another model's run stays where it is."""
    try:
        found = json.loads((folder / "settings.json").read_text(encoding="utf-8"))["function"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if found != compiled.hash:
        raise fail("E0711", f"{folder} holds the run of another model", help="choose another folder with -o")


def _status(status: int) -> int:
    return 128 - status if status < 0 else status
