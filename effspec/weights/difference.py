"""What two checkpoints do not have in common: names, shapes, element types, and by how much their numbers differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from effspec.progress import doing
from effspec.weights.store import TensorFile, nbytes

# Elements that are compared at once: the rest of both files stays on the disk.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Change:
    """A tensor whose numbers differ.

    `absolute` is the largest difference of two elements; `relative` is that over the largest magnitude of the tensor in
    either file; `count` is how many elements differ.  Both are infinite where one side has an infinity or NaN alone.
    """

    name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    count: int


@dataclass(frozen=True)
class Difference:
    """Names by what is different; `changes` begins with the largest relative difference."""

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shapes: tuple[str, ...]
    dtypes: tuple[str, ...]
    changes: tuple[Change, ...]
    equal: int

    def __bool__(self) -> bool:
        return bool(self.only_first or self.only_second or self.shapes or self.dtypes or self.changes)


def compare(first: TensorFile, second: TensorFile) -> Difference:
    """Compare every tensor that both files hold in one shape, also where their element types differ.

    Two NaN in one place are equal.  Raises E0802 (damaged) and E0803 (an element type that NumPy lacks).
    """
    both = [name for name in first.shapes if name in second.shapes]
    same = [name for name in both if first.shapes[name] == second.shapes[name]]
    total = sum(nbytes(first, name) for name in same)
    done = 0
    changes = []
    for name in same:
        doing(f"comparing {first.path.name} with {second.path.name}", done, total)
        change = _change(name, first.array(name), second.array(name))
        if change is not None:
            changes.append(change)
        done += nbytes(first, name)
    changed = {change.name for change in changes}
    dtypes = tuple(name for name in same if first.dtypes[name] != second.dtypes[name])
    return Difference(
        only_first=tuple(name for name in first.shapes if name not in second.shapes),
        only_second=tuple(name for name in second.shapes if name not in first.shapes),
        shapes=tuple(name for name in both if first.shapes[name] != second.shapes[name]),
        dtypes=dtypes,
        changes=tuple(sorted(changes, key=lambda change: -change.relative)),
        equal=sum(name not in changed and name not in dtypes for name in same),
    )


def _change(name: str, left: NDArray[Any], right: NDArray[Any]) -> Change | None:
    count = sum(int(np.count_nonzero(_differ(a, b))) for a, b in _pieces(left, right))
    if not count:
        return None
    absolute = largest = 0.0
    for a, b in _pieces(left, right):
        # As float64 all but integers above 2^53 are exact; those differ, if by 0.
        x, y = a.astype(np.float64), b.astype(np.float64)
        magnitude = np.maximum(np.abs(x), np.abs(y))
        largest = max(largest, float(np.max(magnitude, initial=0.0, where=np.isfinite(magnitude))))
        with np.errstate(invalid="ignore", over="ignore"):
            gap = np.abs(x - y)[_differ(a, b)]
        gap[np.isnan(gap)] = np.inf
        absolute = max(absolute, float(np.max(gap, initial=0.0)))
    return Change(name, left.shape, absolute, absolute / largest if largest else absolute, count)


def _differ(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = (a != b) & ~((a != a) & (b != b))
    return differ


def _pieces(left: NDArray[Any], right: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Both arrays in equal pieces of at most about a million elements, without a copy of the whole."""
    if left.size <= _PIECE or left.ndim == 0:
        yield left, right
    else:
        step = max(1, _PIECE * left.shape[0] // left.size)
        for start in range(0, left.shape[0], step):
            rows = slice(start, start + step)
            if step == 1 and left.size // left.shape[0] > _PIECE:
                yield from _pieces(left[start], right[start])
            else:
                yield left[rows], right[rows]
