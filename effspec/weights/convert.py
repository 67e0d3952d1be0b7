"""Moves a checkpoint of another code base to the names of a model, by structure and shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import zip_longest
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from effspec.diagnostics import EffspecError, fail
from effspec.ir.graph import Graph, Node, Parameter
from effspec.ops.base import show
from effspec.weights.checkpoint import is_counter
from effspec.weights.head import New, head, resized
from effspec.weights.initial import Seeded
from effspec.weights.layouts import Layout, is_kernel, last_word
from effspec.weights.matching import Ambiguous, Item, Leaf, leaves, match, natural
from effspec.weights.parts import beginnings, likely
from effspec.weights.store import TensorFile

_LISTED = 8


@dataclass(frozen=True)
class Matching:
    """Which tensor of the checkpoint is which parameter of the model.

    `names` maps a parameter's path to the source's name, `layout` says where the source's kernels have their output
    channels, `reshaped` lists paths whose shapes differ in axes of 1, `counters` counts tensors that no model needs,
    `preparation` lists those that prepare a picture, `absent` are parameters of training outputs that the source lacks,
    `new` those of a new head.
    """

    names: Mapping[str, str]
    layout: Layout
    reshaped: tuple[str, ...]
    counters: int
    preparation: tuple[str, ...]
    absent: tuple[Parameter, ...]
    sources: int
    new: tuple[New, ...] = ()

    def lines(self) -> list[str]:
        """What was done, for a person."""
        said = f"matched {len(self.names)} of {self.sources} tensors by structure and shape"
        if self.counters:
            said += f"; {self.counters} counters (num_batches_tracked) ignored"
        out = [said]
        if self.layout is Layout.LAST:
            out.append("its kernels have their output channels last, as in TensorFlow: they are transposed")
        if self.reshaped:
            out.append(f"{len(self.reshaped)} tensors reshaped by axes of length 1, such as {self.reshaped[0]}")
        if self.preparation:
            out.append(f"left out, for `prepare` of the spec says how: {', '.join(self.preparation)}")
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
        return self.matching.layout.array(name, self.file.tensor(name)).reshape(parameter.shape)


def convert(source: Mapping[str, tuple[int, ...]], graph: Graph, *, new_head: bool = False) -> Matching:
    """Match the names and shapes of a checkpoint, in its order, with the parameters and buffers of a graph.

    With `new_head`, the last layers may have another number of outputs in the checkpoint, and are not taken.

    Raises E0805 where the two hold different shapes, and E0806 where tensors of equal shape cannot be told apart, or
    two layouts of the kernels fit.
    """
    counters = [name for name, shape in source.items() if is_counter(name, shape)]
    preparation = _preparation(source)
    left_out = {*counters, *preparation}
    kept = {name: shape for name, shape in source.items() if name not in left_out}
    wanted = {parameter.path: parameter.shape for parameter in graph.parameters(training=True, buffers=True)}
    inference = {parameter.path for parameter in graph.parameters(buffers=True)}
    # The order of a PyTorch checkpoint is that of the code that made the model.  Some writers sort by name instead.
    ordered = list(kept) != sorted(kept)
    names = list(kept) if ordered else sorted(kept, key=natural)
    read = {
        layout: leaves({name: layout.shape(name, kept[name]) for name in names})
        for layout in Layout
        if layout is Layout.FIRST or any(layout.shape(name, kept[name]) != kept[name] for name in names)
    }
    whole, core = leaves(wanted), leaves({path: wanted[path] for path in wanted if path in inference})
    sides = [_Fit(layout, found, target) for layout, found in read.items() for target in (whole, core)]
    fits = [side for side in sides if _contents(side.found) == _contents(side.target)]
    if not fits:
        last = head(graph)
        headless = [fit for side in sides if (fit := _without_head(side, kept, wanted, last)) is not None]
        if not headless or not new_head:
            raise _unfit(read, whole, kept, wanted, headless[0].new if headless else ())
        fits = headless
    layout, found, target, new = fits[0]
    _check_layout(graph, names, kept, [fit.layout for fit in fits])
    try:
        pairs = match(found, target, ordered=ordered, follows=_Flow(graph))
    except Ambiguous as error:
        raise _ambiguous(error) from None
    moved = {right.tensors[role]: name for left, right in pairs for role, name in left.tensors.items()}
    fresh = {right.tensors[role]: name for left, right in new for role, name in left.tensors.items()}
    parameters = graph.parameters(training=True, buffers=True)
    return Matching(
        names={path: moved[path] for path in wanted if path in moved},
        layout=layout,
        reshaped=tuple(
            path for path in wanted if path in moved and layout.shape(moved[path], kept[moved[path]]) != wanted[path]
        ),
        counters=len(counters),
        preparation=preparation,
        absent=tuple(one for one in parameters if one.path not in moved and one.path not in fresh),
        sources=len(kept),
        new=tuple(
            New(one, fresh[one.path], layout.shape(fresh[one.path], kept[fresh[one.path]]))
            for one in parameters
            if one.path in fresh
        ),
    )


class _Fit(NamedTuple):
    """Both sides of a match, and how kernels lie in the source; `new` are layers of a new head, beside the source's."""

    layout: Layout
    found: Sequence[Leaf]
    target: Sequence[Leaf]
    new: Sequence[tuple[Leaf, Leaf]] = ()


def _without_head(
    side: _Fit, shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], last: Collection[str]
) -> _Fit | None:
    """Both sides without the last layers, if these differ in the number of their outputs and all else fits."""
    lost, missing = (_contents(a) - _contents(b) for a, b in ((side.found, side.target), (side.target, side.found)))
    old = [leaf for leaf in side.found if leaf.signature in lost]
    new = [leaf for leaf in side.target if leaf.signature in missing]
    # Where a layer of the same contents is no part of the difference, it is open which of them is the head.
    if not new or [len(old), len(new)] != [lost.total(), missing.total()]:
        return None
    if not all(path in last for leaf in new for path in leaf.tensors.values()):
        return None

    def fits(left: Leaf, right: Leaf) -> bool:
        return left.tensors.keys() == right.tensors.keys() and all(
            resized(side.layout.shape(name, shapes[name]), wanted[right.tensors[role]])
            for role, name in left.tensors.items()
        )

    pairs = []
    spare = list(old)
    for right in new:
        left = next((leaf for leaf in spare if fits(leaf, right)), None)
        if left is None:
            return None
        spare.remove(left)
        pairs.append((left, right))
    if spare:
        return None
    return _Fit(
        side.layout,
        [leaf for leaf in side.found if leaf not in old],
        [leaf for leaf in side.target if leaf not in new],
        pairs,
    )


def _preparation(source: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """The tensors of layers that prepare a picture: a mean, a variance and maybe a count, and nothing to learn."""
    modules: dict[str, dict[str, str]] = {}
    for name in source:
        modules.setdefault(name.replace("/", ".").rpartition(".")[0], {})[last_word(name)] = name
    layers = (
        words for words in modules.values() if {"mean", "variance"} <= set(words) <= {"mean", "variance", "count"}
    )
    return tuple(name for words in layers for name in words.values())


def _check_layout(
    graph: Graph, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]], fitting: Sequence[Layout]
) -> None:
    """Raise E0806 where the shapes leave open where the output channels are, or which pixel a column belongs to."""
    if set(fitting) == set(Layout):
        # PyTorch calls a kernel `weight`, TensorFlow and Flax `kernel`; nobody else's word decides.
        kernels = [name for name in names if is_kernel(name) and len(shapes[name]) > 1]
        if any(last_word(name) != "weight" for name in kernels):
            raise fail(
                "E0806",
                "the kernels of the checkpoint may have their output channels first or last: all shapes fit both",
                notes=(f"such as `{kernels[0]}` {show(shapes[kernels[0]])}",),
                help="a kernel with the output channels first is called `weight`: rename them, or transpose them",
            )
    elif fitting[0] is Layout.LAST and (node := _flattened(graph)) is not None:
        image = graph.type(node.inputs[0]).shape
        raise fail(
            "E0806",
            f"the checkpoint has its channels last, and `{node.path}` flattens an image of {show(image)}: "
            "in which order the layer behind it counts pixels and channels, the file does not say",
            help="convert a checkpoint of PyTorch",
        )


def _flattened(graph: Graph) -> Node | None:
    """An operator that makes a vector of an image of several channels and pixels, for a linear layer to read."""
    for node in graph:
        shape = graph.type(node.inputs[0]).shape if node.inputs else ()
        if node.op in ("flatten", "reshape") and len(node.types[0].shape) == 1 and len(shape) > 1:
            users = list(graph.users(node.id))
            while users and shape[0] > 1 and prod(shape[1:]) > 1:
                user = users.pop()
                if user.op == "linear":
                    return node
                if not user.parameters:
                    users += graph.users(user.id)
    return None


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
    read: Mapping[Layout, Sequence[Leaf]],
    target: Sequence[Leaf],
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    new: Sequence[tuple[Leaf, Leaf]],
) -> EffspecError:
    """What lies at the same place and differs, in the order of the network; in the layout that fits better."""
    layout = min(read, key=lambda one: (_contents(target) - _contents(read[one])).total())
    source = read[layout]
    found = {name: layout.shape(name, shape) for name, shape in found.items()}
    places = list(new) or _differences(source, target)
    notes: list[str] = []
    for left, right in places:
        one = _described(left, found) if left is not None else "nothing"
        other = _described(right, wanted) if right is not None else "nothing"
        notes.append(f"the checkpoint has {one}, the model {other}")
    more = (f"... and {len(notes) - _LISTED} more differences",) if len(notes) > _LISTED else ()
    return fail(
        "E0805",
        f"the checkpoint is not of this model: {len(found)} tensors against {len(wanted)}, in "
        f"{len(notes)} place{'s' * (len(notes) != 1)} of different kind or shape",
        notes=(
            *notes[:_LISTED],
            *more,
            *(["shapes as PyTorch has them: the checkpoint's kernels end with the outputs"] * (layout is Layout.LAST)),
        ),
        help=_part(found, wanted)
        or "choose the variant and settings that it was trained with (`--set classes=N` for another head)"
        + (f"; or `--new-head` takes all else, and starts `{new[0][1].name}` from initial values" if new else ""),
    )


def _differences(source: Sequence[Leaf], target: Sequence[Leaf]) -> list[tuple[Leaf | None, Leaf | None]]:
    """The leaves that the other side lacks, beside what lies at the same place there."""
    here, there = [[leaf.signature for leaf in side] for side in (source, target)]
    spare = Counter(here) - Counter(there), Counter(there) - Counter(here)
    places: list[tuple[Leaf | None, Leaf | None]] = []
    for tag, a, b, c, d in SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if tag != "equal":
            left = [leaf for leaf in source[a:b] if _take(spare[0], leaf)]
            right = [leaf for leaf in target[c:d] if _take(spare[1], leaf)]
            places += zip_longest(left, right)
    return places


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
