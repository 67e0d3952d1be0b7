"""Which tensors of a checkpoint are meant where it nests its weights, or holds several sets of them.

A training script saves more than a model: `{"state_dict": ..., "state_dict_ema": ..., "optimizer": ...}`.  A *part* is
a path of keys and of the beginnings of names, joined by dots: `state_dict_ema`, `state_dict.teacher`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from effspec.diagnostics import EffspecError, fail, suggest
from effspec.weights.store import TensorFile

T = TypeVar("T")

MAX_DEPTH = 4
# Beside the weights of a model lie a few other tensors: the scale of mixed precision, a counter.
_NEGLIGIBLE = 10
_LISTED = 8
_AVERAGE = re.compile(r"ema|avg|average|swa|teacher|shadow")


class Part(TensorFile):
    """The tensors of another file that lie under a prefix, without it."""

    def __init__(self, file: TensorFile, part: str) -> None:
        self.path, self.kind, self.metadata, self._file = file.path, file.kind, file.metadata, file
        self._names = choose(file.path, {"": {name: name for name in file.shapes}}, part)
        self.shapes: Mapping[str, tuple[int, ...]] = {new: file.shapes[old] for new, old in self._names.items()}
        self.dtypes: Mapping[str, str] = {new: file.dtypes[old] for new, old in self._names.items()}

    def array(self, name: str) -> NDArray[Any]:
        return self._file.array(self._names[name])

    def close(self) -> None:
        self._file.close()


def sets(value: Mapping[Any, Any], kind: type[T]) -> dict[str, dict[str, T]]:
    """The dicts with tensors in a checkpoint, by the path of their keys; the checkpoint itself has the path "".

    Only named keys are followed, and every dict once: a file may refer to one from many places, or to itself.
    """
    seen: set[int] = set()

    def walk(path: str, found: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, dict[str, T]]]:
        if id(found) in seen or depth > MAX_DEPTH:
            return
        seen.add(id(found))
        tensors = {key: inner for key, inner in found.items() if isinstance(key, str) and isinstance(inner, kind)}
        if tensors:
            yield path, tensors
        for key, inner in found.items():
            if isinstance(key, str) and key and isinstance(inner, dict):
                yield from walk(f"{path}.{key}" if path else key, inner, depth + 1)

    return dict(walk("", value, 0))


def choose(path: Path, found: Mapping[str, Mapping[str, T]], part: str | None) -> dict[str, T]:
    """The set that `part` names, or the only one that can be meant; E0801 where it is unknown, or there are several."""
    if part is not None:
        if part and part in found:
            return dict(found[part])
        chosen: dict[str, T] = {}
        for key, tensors in found.items():
            for name, tensor in tensors.items():
                full = f"{key}.{name}" if key else name
                if full.startswith(f"{part}."):
                    chosen.setdefault(full[len(part) + 1 :], tensor)
        if chosen:
            return chosen
        raise _unknown(path, found, part)
    most = max((len(tensors) for tensors in found.values()), default=0)
    large = {key: tensors for key, tensors in found.items() if len(tensors) * _NEGLIGIBLE >= most}
    if "" in large or len(large) == 1:
        return dict(large.get("") or next(iter(large.values())))
    best = likely(large)
    more = (f"... and {len(large) - _LISTED} more",) if len(large) > _LISTED else ()
    raise fail(
        "E0801",
        f"{path.name} holds {len(large)} sets of weights",
        notes=(*(f"`{key[:60]}`: {_counted(tensors)}" for key, tensors in list(large.items())[:_LISTED]), *more),
        help=f"choose one with `--part {best[:60]}` of `effspec weights convert`, `show` or `diff`"
        + ("; a moving average is what is usually evaluated" if _AVERAGE.search(best) else ""),
    )


def likely(names: Mapping[str, Any]) -> str:
    """The name that sounds like a moving average, or the first one."""
    return next((name for name in names if _AVERAGE.search(name.lower())), next(iter(names)))


def beginnings(names: Mapping[str, Any]) -> dict[str, int]:
    """How many names begin with each first word: `{"model": 360, "ema": 360}`."""
    counts: dict[str, int] = {}
    for name in names:
        first, dot, _ = name.partition(".")
        if dot:
            counts[first] = counts.get(first, 0) + 1
    return counts


def _unknown(path: Path, found: Mapping[str, Mapping[str, T]], part: str) -> EffspecError:
    known = {key: len(tensors) for key, tensors in found.items() if key}
    for key, tensors in found.items():
        for first, count in beginnings(tensors).items():
            known.setdefault(f"{key}.{first}" if key else first, count)
    shown = sorted(known, key=lambda name: -known[name])[:_LISTED]
    listed = ", ".join(f"`{name[:60]}` ({known[name]})" for name in shown) or "none"
    return fail(
        "E0801",
        f"{path.name} has no part `{part[:60]}`",
        notes=(f"its parts, and how many tensors they have: {listed}{', ...' if len(known) > len(shown) else ''}",),
        help=suggest(part, known) or "a part is a key of the checkpoint, or the beginning of its tensors' names",
    )


def _counted(tensors: Mapping[str, object]) -> str:
    return f"{len(tensors):,} tensor{'s' * (len(tensors) != 1)}"
