"""Class names, which travel with weights: a text for each output of a model, in their order.

They lie in the metadata of safetensors files and ONNX models under one key, as a JSON list.  Emitted PyTorch holds no
weights, and no names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from effspec.diagnostics import fail
from effspec.ir.graph import Graph, leaves
from effspec.weights.store import TensorFile, damaged

KEY = "class_names"
Names: TypeAlias = tuple[str, ...]


def read(path: str) -> Names:
    """The lines of a text file; E0801 where it cannot be read, E0807 where a line is empty."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise fail("E0801", f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise fail(
            "E0807", f"{path} is no text in UTF-8", help="class names are a text file, one name a line"
        ) from None
    names = tuple(line.strip() for line in lines)
    for number, name in enumerate(names, 1):
        if not name:
            raise fail("E0807", f"line {number} of {path} is empty", help="class names are one name a line")
    return names


def of(file: TensorFile) -> Names:
    """The names that a checkpoint carries, none where it carries none; E0802 where they are no list of texts."""
    if KEY not in file.metadata:
        return ()
    try:
        names = json.loads(file.metadata[KEY])
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise damaged(file.path, f"`{KEY}` of its metadata is not a JSON list of texts")
    return tuple(names)


def metadata(names: Sequence[str]) -> dict[str, str]:
    """The entry of the metadata; none without names."""
    return {KEY: json.dumps(list(names), ensure_ascii=False)} if names else {}


def check(names: Names, graph: Graph, where: str) -> Names:
    """The names, if there is one for each channel of the first output; E0807 otherwise."""
    output = next(output for output in graph.outputs if not output.training)
    shape = graph.type(leaves(output.value)[0]).shape
    if names and (not shape or len(names) != shape[0]):
        raise fail(
            "E0807",
            f"{where} has {len(names):,} class names, and output `{output.name}` of the model has "
            + (f"{shape[0]:,} channels" if shape else "no channels"),
            help="`--class-names FILE` of `effspec weights convert` gives others, `--set classes=N` another head",
        )
    return names
