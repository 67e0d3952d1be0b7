"""Moves a checkpoint of another code base to the names of a model, by structure and shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import EffspecError, fail
from effspec.ir.graph import Graph, Parameter
from effspec.ops.base import show
from effspec.weights.checkpoint import is_counter
from effspec.weights.initial import Seeded
from effspec.weights.matching import Ambiguous, Item, Leaf, leaves, match, natural
from effspec.weights.parts import beginnings, likely
from effspec.weights.store import TensorFile

_LISTED = 8


@dataclass(frozen=True)
class Matching:
    """Which tensor of the checkpoint is which parameter of the model.

    `names` maps a parameter's path to the source's name, `reshaped` lists paths whose shapes differ in axes of 1,
    `counters` counts tensors that no model needs, `absent` are parameters of training outputs that the source lacks.
    """

    names: Mapping[str, str]
    reshaped: tuple[str, ...]
    counters: int
    absent: tuple[Parameter, ...]
    sources: int

    def lines(self) -> list[str]:
        """What was done, for a person."""
        said = f"matched {len(self.names)} of {self.sources} tensors by structure and shape"
        if self.counters:
            said += f"; {self.counters} counters (num_batches_tracked) ignored"
        out = [said]
        if self.reshaped:
            out.append(f"{len(self.reshaped)} tensors reshaped by axes of length 1, such as {self.reshaped[0]}")
        if self.absent:
            out.append(f"{len(self.absent)} tensors of training outputs are not in it and keep seeded initial values")
        return out


class Moved:
    """A weight source: an open checkpoint under the model's names."""

    def __init__(self, file: TensorFile, matching: Matching, seed: int = 0) -> None:
        self.file, self.matching, self.initial = file, matching, Seeded(seed)

    def tensor(self, parameter: Parameter) -> NDArray[np.float32]:
        """The parameter's numbers, in its shape."""
        name = self.matching.names.get(parameter.path)
        if name is None:
            return self.initial.tensor(parameter)
        return self.file.tensor(name).reshape(parameter.shape)


def convert(source: Mapping[str, tuple[int, ...]], graph: Graph) -> Matching:
    """Match the names and shapes of a checkpoint, in its order, with the parameters and buffers of a graph.

    Raises E0805 where the two hold different shapes, and E0806 where tensors of equal shape cannot be told apart.
    """
    kept = {name: shape for name, shape in source.items() if not is_counter(name, shape)}
    wanted = {parameter.path: parameter for parameter in graph.parameters(training=True, buffers=True)}
    inference = {parameter.path for parameter in graph.parameters(buffers=True)}
    # The order of a PyTorch checkpoint is that of the code that made the model.  Some writers sort by name instead.
    ordered = list(kept) != sorted(kept)
    found = leaves(kept if ordered else {name: kept[name] for name in sorted(kept, key=natural)})
    target = leaves({path: parameter.shape for path, parameter in wanted.items()})
    if _contents(found) != _contents(target):
        core = leaves({path: wanted[path].shape for path in wanted if path in inference})
        if _contents(found) != _contents(core):
            raise _unfit(found, target, kept, {path: parameter.shape for path, parameter in wanted.items()})
        target = core
    try:
        pairs = match(found, target, ordered=ordered, follows=_Flow(graph))
    except Ambiguous as error:
        raise _ambiguous(error) from None
    names = {right.tensors[role]: name for left, right in pairs for role, name in left.tensors.items()}
    return Matching(
        names={path: names[path] for path in wanted if path in names},
        reshaped=tuple(path for path in wanted if path in names and kept[names[path]] != wanted[path].shape),
        counters=len(source) - len(kept),
        absent=tuple(parameter for path, parameter in wanted.items() if path not in names),
        sources=len(kept),
    )


class _Flow:
    """Whether one group of leaves computes from another, by the edges of the graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.owners: dict[str, list[int]] = {}
        for node in graph:
            for parameter in node.parameters.values():
                self.owners.setdefault(parameter.path, []).append(node.id)
        self.after = cache(self._after)

    def __call__(self, first: Sequence[Leaf], second: Sequence[Leaf]) -> bool:
        before, after = self._nodes(first), self._nodes(second)
        return bool(self.after(before) & after) and not self.after(after) & before

    def _nodes(self, group: Sequence[Leaf]) -> frozenset[int]:
        return frozenset(node for leaf in group for path in leaf.tensors.values() for node in self.owners[path])

    def _after(self, nodes: frozenset[int]) -> frozenset[int]:
        found: set[int] = set()
        stack = list(nodes)
        while stack:
            for user in self.graph.users(stack.pop()):
                if user.id not in found:
                    found.add(user.id)
                    stack.append(user.id)
        return frozenset(found)


def _contents(side: Sequence[Leaf]) -> Counter[object]:
    return Counter(leaf.signature for leaf in side)


def _ambiguous(error: Ambiguous) -> EffspecError:
    def listed(items: Sequence[Item]) -> str:
        more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
        return ", ".join(f"`{item.name}`" for item in items[:_LISTED]) + more

    return fail(
        "E0806",
        f"cannot tell {len(error.source)} parts of the checkpoint apart: {error.why}",
        notes=(f"in the checkpoint: {listed(error.source)}", f"in the model: {listed(error.target)}"),
        help="name the labels of the spec as the checkpoint does, or write the lines in the checkpoint's order",
    )


def _unfit(
    source: Sequence[Leaf],
    target: Sequence[Leaf],
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
) -> EffspecError:
    """What lies at the same place and differs, in the order of the network."""
    notes: list[str] = []
    here, there = [[leaf.signature for leaf in side] for side in (source, target)]
    spare = Counter(here) - Counter(there), Counter(there) - Counter(here)
    for tag, a, b, c, d in SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        left = [leaf for leaf in source[a:b] if _take(spare[0], leaf)]
        right = [leaf for leaf in target[c:d] if _take(spare[1], leaf)]
        for k in range(max(len(left), len(right))):
            one = _described(left[k], found) if k < len(left) else "nothing"
            other = _described(right[k], wanted) if k < len(right) else "nothing"
            notes.append(f"the checkpoint has {one}, the model {other}")
    more = (f"... and {len(notes) - _LISTED} more differences",) if len(notes) > _LISTED else ()
    return fail(
        "E0805",
        f"the checkpoint is not of this model: {len(found)} tensors against {len(wanted)}, in "
        f"{len(notes)} place{'s' * (len(notes) != 1)} of different kind or shape",
        notes=(*notes[:_LISTED], *more),
        help=_part(found, wanted)
        or "choose the variant and settings that it was trained with (`--set classes=N` for another head)",
    )


def _part(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> str | None:
    """What to do about a checkpoint that has several models side by side: `model.stem.weight`, `ema.stem.weight`."""
    shapes = Counter(wanted.values())
    whole = {
        word: count
        for word, count in beginnings(found).items()
        if count == len(wanted) < len(found)
        and Counter(shape for name, shape in found.items() if name.startswith(f"{word}.")) == shapes
    }
    if not whole:
        return None
    listed = " and ".join(f"`{word}` ({count} tensors)" for word, count in list(whole.items())[:4])
    return f"it holds {listed}: choose one with `--part {likely(whole)}`"


def _take(spare: Counter[tuple[tuple[str, tuple[int, ...]], ...]], leaf: Leaf) -> bool:
    if spare[leaf.signature] <= 0:
        return False
    spare[leaf.signature] -= 1
    return True


def _described(leaf: Leaf, shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"`{name}` {show(shapes[name])}" for name in leaf.tensors.values())
