"""Pairs the modules of two namings of one network, by structure and shape, and refuses to guess.

A *leaf* is a module that owns tensors (a convolution, a norm), known by its tensors' roles and shapes alone.  Names
give each side a tree.  Subtrees with equal contents are paired first, the largest before the smaller, so that a block
of one side meets a block of the other whatever either calls it; what is in no such pair is paired leaf by leaf.  Where
several have equal contents, evidence decides between them:

- order: the other side lists everything in the same order, or the neighbours of a candidate are paired already;
- names: a word that both sides use (`downsample`);
- numbers: names that differ in their numbers alone, for places that run one after the other.

Evidence that is missing, or that contradicts itself, is `Ambiguous`: numbers in the wrong place do not show.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]

_ROLES = {
    role: names[0]
    for names in (
        ("weight", "gamma", "kernel", "scale"),
        ("bias", "beta", "offset", "shift"),
        ("running_mean", "moving_mean"),
        ("running_var", "moving_variance", "moving_var"),
    )
    for role in names
}
# Words of one meaning, and words that tell nothing.
_SAME = dict.fromkeys(("shortcut", "skip", "residual"), "downsample")
_GENERIC = frozenset(["conv", "norm", "block", "blocks", "layer", "layers", "stage", "stages", "module", "features"])


@dataclass(frozen=True)
class Leaf:
    """A module with tensors: `tensors` maps a role to the tensor's name; `order` is its place among all leaves."""

    name: str
    order: int
    tensors: Mapping[str, str]
    signature: tuple[tuple[str, Shape], ...]
    path: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """Leaves that are paired as one: a subtree, or one leaf."""

    leaves: tuple[Leaf, ...]
    contents: tuple[tuple[tuple[str, Shape], ...], ...] = field(repr=False)

    @property
    def order(self) -> int:
        return self.leaves[0].order

    @property
    def path(self) -> tuple[str, ...]:
        """What the paths of its leaves have in common at their beginning."""
        path = self.leaves[0].path
        for leaf in self.leaves[1:]:
            path = path[: next((i for i, (a, b) in enumerate(zip(path, leaf.path, strict=False)) if a != b), len(path))]
        return path

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.leaves[0].name if len(self.leaves) == 1 else f"{self.leaves[0].name} ... {self.leaves[-1].name}"


class Ambiguous(Exception):
    """Several candidates with equal contents, and nothing that tells them apart."""

    def __init__(self, source: Sequence[Item], target: Sequence[Item], why: str) -> None:
        super().__init__(why)
        self.source, self.target, self.why = tuple(source), tuple(target), why


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts `block.10` after `block.9`."""
    return tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", name))


def squeezed(shape: Shape) -> Shape:
    """The shape without axes of length 1: a linear layer equals a 1x1 convolution, element for element."""
    return tuple(size for size in shape if size != 1)


def leaves(shapes: Mapping[str, Shape]) -> list[Leaf]:
    """The tensors grouped into modules, in the order of the first tensor of each.

    A tensor with a name of its own (`gain`) is a module of its own, wherever it stands.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in shapes:
        module, _, last = name.replace("/", ".").rpartition(".")
        role = _ROLES.get(last)
        if role is None or role in groups.get(module, {}):
            groups[name] = {"": name}
        else:
            groups.setdefault(module, {})[role] = name
    found = []
    for order, (module, tensors) in enumerate(groups.items()):
        if len(tensors) == 1:
            tensors = {"": next(iter(tensors.values()))}
        signature = tuple(sorted((role, squeezed(shapes[name])) for role, name in tensors.items()))
        found.append(Leaf(module or next(iter(tensors.values())), order, tensors, signature, _path(module)))
    return found


def _path(module: str) -> tuple[str, ...]:
    """The steps of a module's path; a number at the end of a name is a step: `layer1.0.conv2` is layer 1 0 conv 2."""
    return tuple(
        step for part in module.replace("/", ".").split(".") for step in re.findall(r"\d+$|.+?(?=[_-]?\d+$|$)", part)
    )


Follows: TypeAlias = Callable[[Sequence[Leaf], Sequence[Leaf]], bool]
"""Whether the second group of target leaves computes from the first."""


def match(
    source: Sequence[Leaf], target: Sequence[Leaf], *, ordered: bool, follows: Follows
) -> list[tuple[Leaf, Leaf]]:
    """Pairs of source and target leaves; both sides hold equal contents.

    `ordered` says that the order of the source is that of its code.  Raises Ambiguous.
    """
    if len(source) == 1:
        return [(source[0], target[0])]
    pairs = []
    for left, right in _resolve(*_items(source, target), ordered=ordered, follows=follows):
        pairs += match(left.leaves, right.leaves, ordered=ordered, follows=follows)
    return pairs


def _subtrees(forest: Sequence[Leaf]) -> dict[tuple[int, ...], Item]:
    """The proper subtrees of at least two leaves, by the orders of their leaves."""
    below: dict[tuple[str, ...], list[Leaf]] = defaultdict(list)
    for leaf in forest:
        for depth in range(1, len(leaf.path) + 1):
            below[leaf.path[:depth]].append(leaf)
    return {
        tuple(leaf.order for leaf in group): _item(group) for group in below.values() if 1 < len(group) < len(forest)
    }


def _item(group: Sequence[Leaf]) -> Item:
    return Item(tuple(group), tuple(sorted(leaf.signature for leaf in group)))


def _items(source: Sequence[Leaf], target: Sequence[Leaf]) -> tuple[list[Item], list[Item]]:
    """Both sides cut into the same multiset of contents: the largest subtrees that both have, and single leaves."""
    sides = [list(_subtrees(side).values()) for side in (source, target)]
    rest = [{leaf.order: leaf for leaf in side} for side in (source, target)]
    chosen: list[list[Item]] = [[], []]
    for contents in sorted({item.contents for item in sides[0]}, key=len, reverse=True):
        groups = [
            [item for item in side if item.contents == contents and all(leaf.order in free for leaf in item.leaves)]
            for side, free in zip(sides, rest, strict=True)
        ]
        if not groups[0] or len(groups[0]) != len(groups[1]):
            continue
        outside = [
            Counter(leaf.signature for leaf in free.values())
            - Counter(signature for item in group for signature in item.contents)
            for group, free in zip(groups, rest, strict=True)
        ]
        # If the same contents lie about outside these subtrees as well, then a subtree of one side need not be that
        # of the other: one side may only not have bound them together.  Its leaves are looked at one by one.
        if any(not Counter(contents) - other for other in outside):
            continue
        for side, group, free in zip(chosen, groups, rest, strict=True):
            side += group
            for item in group:
                for leaf in item.leaves:
                    del free[leaf.order]
    for side, free in zip(chosen, rest, strict=True):
        side += [_item([leaf]) for leaf in free.values()]
        side.sort(key=lambda item: item.order)
    return chosen[0], chosen[1]


def _resolve(
    source: Sequence[Item], target: Sequence[Item], *, ordered: bool, follows: Follows
) -> list[tuple[Item, Item]]:
    """Pairs of items with equal contents."""
    same = ordered and [item.contents for item in source] == [item.contents for item in target]
    found = dict(enumerate(range(len(target)))) if same else _by_neighbours(source, target) if ordered else {}
    by_contents: dict[object, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, items in enumerate((source, target)):
        for index, item in enumerate(items):
            by_contents[item.contents][side].append(index)
    words = [_words(source), _words(target)]
    for left, right in by_contents.values():
        group = ([source[i] for i in left], [target[j] for j in right])
        score = {(i, j): len(words[0][i] & words[1][j]) for i in left for j in right} if len(left) > 1 else {}
        _by_names(left, right, score, found)
        free = ([i for i in left if i not in found], [j for j in right if j not in set(found.values())])
        if len(free[0]) > 1:
            parts = [source[i] for i in free[0]], [target[j] for j in free[1]]
            ranks = _by_numbers(*parts, follows=follows)
            if ranks is None:
                raise Ambiguous(*parts, "they have equal shapes, and neither order, names nor numbers tell them apart")
            found.update({free[0][a]: free[1][b] for a, b in ranks})
        elif free[0]:
            found[free[0][0]] = free[1][0]
        for a, b in ((a, b) for at, a in enumerate(left) for b in left[at + 1 :]):
            gain = score[a, found[a]] + score[b, found[b]] - score[a, found[b]] - score[b, found[a]]
            if gain < 0:
                raise Ambiguous(*group, "their order says one thing and their names another")
            if ordered and not same and gain == 0 and found[a] > found[b]:
                raise Ambiguous(*group, "their order differs, and their names do not say which is which")
    return [(source[i], target[j]) for i, j in sorted(found.items())]


def _by_neighbours(source: Sequence[Item], target: Sequence[Item]) -> dict[int, int]:
    """Items with unique contents, then, round by round, what stands next to a pair on both sides in the same way."""
    counts = Counter(item.contents for item in source)
    place = {item.contents: j for j, item in enumerate(target)}
    found = {i: place[item.contents] for i, item in enumerate(source) if counts[item.contents] == 1}
    while True:
        taken = set(found.values())
        votes: dict[int, set[int]] = defaultdict(set)
        for i, j in found.items():
            for step in (-1, 1):
                a, b = i + step, j + step
                free = 0 <= a < len(source) and 0 <= b < len(target) and a not in found and b not in taken
                if free and source[a].contents == target[b].contents:
                    votes[a].add(b)
        wanted = Counter(b for places in votes.values() for b in places)
        new = {a: b for a, places in votes.items() if len(places) == 1 for b in places if wanted[b] == 1}
        if not new:
            return found
        found |= new


def _by_names(
    left: Sequence[int], right: Sequence[int], score: Mapping[tuple[int, int], int], found: dict[int, int]
) -> None:
    """Pair those of equal contents that share more words with each other than with anything else."""
    while score:
        free = [i for i in left if i not in found], [j for j in right if j not in set(found.values())]
        new = {}
        for i in free[0]:
            best = max((score[i, j] for j in free[1]), default=0)
            fits = [j for j in free[1] if score[i, j] == best]
            if best and len(fits) == 1 and all(score[k, fits[0]] < best for k in free[0] if k != i):
                new[i] = fits[0]
        if not new:
            return
        found.update(new)


def _by_numbers(source: Sequence[Item], target: Sequence[Item], *, follows: Follows) -> list[tuple[int, int]] | None:
    """Pairs in the order of the numbers in the source's names, if these differ in nothing else.

    The target has to be numbered alike, or to run in one line; between parallel branches a number says nothing.
    """
    if not _numbered(source):
        return None
    if not _numbered(target) and not all(follows(a.leaves, b.leaves) for a, b in pairwise(target)):
        return None
    ranks = [sorted(range(len(side)), key=lambda k: natural(".".join(side[k].path))) for side in (source, target)]
    if not _numbered(target):
        ranks[1] = list(range(len(target)))
    return list(zip(*ranks, strict=True))


def _numbered(items: Sequence[Item]) -> bool:
    return len({tuple("#" if step.isdigit() else step for step in item.path) for item in items}) == 1


def _words(items: Sequence[Item]) -> list[frozenset[str]]:
    """The telling words in the path of each item."""
    found = []
    for item in items:
        words = {word for step in item.path for word in re.findall(r"[a-z]{3,}", _split_case(step).lower())}
        found.append(frozenset(_SAME.get(word, word) for word in words - _GENERIC))
    return found


def _split_case(text: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)
