"""The folder of a training script: the compiled model, what it needs to know of its pictures, and the code that trains.

The model is compiled twice, for the size at which it is evaluated and used, and for the one at which it is trained.
Both have the same weights; where they come out as the same code (padding does not depend on the size), it is one file.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any

from effspec.backend import File
from effspec.diagnostics import fail
from effspec.elaborate import Setting
from effspec.ir.graph import leaves
from effspec.output import sealed
from effspec.pipeline import Compiled
from effspec.preparation import Preparation
from effspec.values import is_number, show

SIZE = "size"
"""The parameter of a model that is the size of its pictures."""
_CODE = ("train", "settings", "data", "recipe", "parallel", "blocks", "checkpoint", "journal", "evaluate")


def files(compiled: Compiled, train_size: tuple[int, int] | None = None) -> tuple[File, ...]:
    """The files of a training script for a classifier; `train_size` is the height and width of pictures in training.

    Without it, that is what the spec's `prepare` states, or else the compiled size.  Raises EffspecError: E0722 where
    the model is no classifier of pictures or has no parameter `size` to change, E0719 where it does not say how
    pictures become its input.
    """
    how = _prepared(compiled)
    size = train_size or _stated(compiled) or how.shape[1:]
    trained = compiled if size == how.shape[1:] else _at(compiled, size)
    [model] = compiled.files("torch", filename="model.py")
    [other] = trained.files("torch", filename="training_model.py")
    same = trained is compiled or _code(model) == _code(other)
    from effspec.backends.torch import training

    values = {
        "compiled": compiled,
        "title": json.dumps(compiled.title),
        "spec": Path(compiled.module.name).name,
        "classes": _classes(compiled),
        "same": same,
        "how": how,
        "training_size": size,
        "resized": tuple(floor(n / how.crop) for n in how.shape[1:]),
        "scale": tuple(map(float, how.scale)),
        "shift": tuple(map(float, how.shift)),
    }
    texts = [(f"{name}.py", training.code(name)) for name in _CODE]
    texts += [(name, training.render(name, **values)) for name in ("point.py", "README.md")]
    return (model, *([] if same else [other]), *(_file(name, text) for name, text in texts))


def _prepared(compiled: Compiled) -> Preparation:
    """How a picture becomes the input of a classifier."""
    outputs = [output for output in compiled.graph.outputs if not output.training]
    span = compiled.elaborated.model.name.span
    help = "effspec trains classifiers: one picture in, and one score for each class out"
    if len(compiled.input_shapes) != 1:
        raise fail("E0722", f"{compiled.name} has {len(compiled.input_shapes)} inputs", span, help=help)
    if len(outputs) != 1 or _classes(compiled) == 0:
        raise fail("E0722", f"{compiled.name} gives something else than a score for each class", span, help=help)
    return compiled.prepared(next(iter(compiled.input_shapes)))


def _classes(compiled: Compiled) -> int:
    """How many scores the model gives; 0 if its output is something else."""
    [output, *_] = [output for output in compiled.graph.outputs if not output.training]
    values = leaves(output.value)
    shape = compiled.graph.type(values[0]).shape
    return shape[0] if len(values) == len(shape) == 1 else 0


def _stated(compiled: Compiled) -> tuple[int, int] | None:
    """The size of pictures in training that the spec states."""
    [stated] = compiled.elaborated.preparation.values()
    size: Any = stated.get("train_size")
    return (size, size) if is_number(size) else size


def _at(compiled: Compiled, size: tuple[int, int]) -> Compiled:
    """The same point at another size."""
    if SIZE not in compiled.parameters:
        message = f"{compiled.name} has no parameter `{SIZE}`: it cannot be trained at another size"
        help = f"declare it, and use it: model {compiled.name}({SIZE} = pixels(224), ...) on image: [3, {SIZE}, {SIZE}]"
        raise fail("E0722", message, compiled.elaborated.model.name.span, help=help)
    value: Any = size if isinstance(compiled.parameters[SIZE], tuple) else size[0]
    if value != size and size[0] != size[1]:
        message = f"pictures of {compiled.name} are square: it cannot be trained at {size[0]} x {size[1]}"
        raise fail("E0722", message, help=f"its `{SIZE}` is one number, {show(compiled.parameters[SIZE])}")
    kept = tuple(setting for setting in compiled.request.settings if setting.name != SIZE)
    span = compiled.elaborated.parameters[SIZE].span
    request = replace(compiled.request, settings=(*kept, Setting(SIZE, value, span)))
    return Compiled(compiled.module, request, compiled.with_preprocessing)


def _code(file: File) -> str:
    """A module without its docstring and its comments."""
    return ast.dump(ast.Module(ast.parse(file.read()).body[1:], []))


def _file(name: str, text: str) -> File:
    def chunks() -> Iterator[bytes]:
        yield text.encode()

    return sealed(File(name, chunks))
