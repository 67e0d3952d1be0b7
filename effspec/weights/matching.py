"""Pairs the modules of two namings of one network, by structure and shape, and refuses to guess.

A *leaf* is a module that owns tensors (a convolution, a norm), known by its tensors' roles and shapes alone.  Names
give each side a tree.  Subtrees with equal contents are paired first, the largest before the smaller, so that a block
of one side meets a block of the other whatever either calls it; what is in no such pair is paired leaf by leaf.  Where
several have equal contents, evidence decides between them:

- order: the other side lists everything in the same order (or all modules, whatever the order inside of them), or the
  neighbours of a candidate are paired already;
- names: a word that both sides use (`downsample`);
- numbers: names that differ in their numbers alone (or in letters after these: 6c, 6d), for places that run one after
  the other.

Evidence that is missing, or that contradicts itself, is `Ambiguous`: numbers in the wrong place do not show.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, combinations, groupby, pairwise
from typing import TypeAlias

from effspec.weights.layouts import Shape, is_kernel, last_word, squeezed

Signature: TypeAlias = tuple[tuple[str, Shape], ...]
Contents: TypeAlias = tuple[Signature, ...]

_ROLES = {
    role: names[0]
    for names in (
        ("weight", "weights", "gamma", "kernel", "scale", "depthwise_kernel", "depthwise_weights"),
        ("bias", "biases", "beta", "offset", "shift"),
        ("running_mean", "moving_mean"),
        ("running_var", "moving_variance", "moving_var"),
    )
    for role in names
}
# Words of one meaning, and words that tell nothing.
_SAME = dict.fromkeys(("shortcut", "skip", "residual"), "downsample")
# A step that is a number, or ends in one and a letter: `mixed_6c`.
_NUMBER = re.compile(r"^\d+$|\d+[A-Za-z]$")
_GENERIC = frozenset(["conv", "norm", "block", "blocks", "layer", "layers", "stage", "stages", "module", "features"])


@dataclass(frozen=True)
class Leaf:
    """A module with tensors: `tensors` maps a role to the tensor's name; `order` is its place among all leaves."""

    name: str
    order: int
    tensors: Mapping[str, str]
    signature: Signature
    path: tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """Leaves that are paired as one: a subtree, or one leaf."""

    leaves: tuple[Leaf, ...]
    contents: Contents = field(repr=False)

    @property
    def order(self) -> int:
        return self.leaves[0].order

    @cached_property
    def path(self) -> tuple[str, ...]:
        """What the paths of its leaves have in common at their beginning."""
        path = self.leaves[0].path
        for leaf in self.leaves[1:]:
            path = path[: next((i for i, (a, b) in enumerate(zip(path, leaf.path, strict=False)) if a != b), len(path))]
        return path

    @cached_property
    def words(self) -> frozenset[str]:
        """The telling words of its path."""
        steps = (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", step).lower() for step in self.path)
        words = {word for step in steps for word in re.findall(r"[a-z]{3,}", step)}
        return frozenset(_SAME.get(word, word) for word in words - _GENERIC)

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


def leaves(shapes: Mapping[str, Shape]) -> list[Leaf]:
    """The tensors grouped into modules, in the order of the first tensor of each.

    A tensor with a name of its own (`gain`) is a module of its own, wherever it stands.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in shapes:
        module = name.replace("/", ".").rpartition(".")[0]
        role = _ROLES.get(last_word(name))
        if role is None or role in groups.get(module, {}):
            groups[name] = {"": name}
        else:
            groups.setdefault(module, {})[role] = name
    # Keras says in one word what others say in a path: `block4b_expand_conv`.
    flat = not any("." in module for module in groups if module not in shapes)
    found = []
    for order, (module, tensors) in enumerate(groups.items()):
        if len(tensors) == 1:
            tensors = {"": next(iter(tensors.values()))}
            if not is_kernel(tensors[""]):
                module = tensors[""]  # a `gamma` alone says more than the block that it stands in
        signature = tuple(sorted((role, squeezed(shapes[name])) for role, name in tensors.items()))
        found.append(Leaf(module or next(iter(tensors.values())), order, tensors, signature, _path(module, flat)))
    return found


def _path(module: str, flat: bool = False) -> tuple[str, ...]:
    """The steps of a module's path; a number at the end of a name is a step: `layer1.0.conv2` is layer 1 0 conv 2.

    Names that are `flat` are divided at underscores, too, and count with letters: `block4b_conv` is block 4 1 conv.
    """
    words = module.replace("/", ".").split(".")
    if flat:
        counted = (re.sub(r"(?<=\d)[a-z]$", _ordinal, word) for part in words for word in part.split("_"))
        words = [word for part in counted for word in part.split("_")]
    return tuple(step for word in words for step in re.findall(r"\d+$|.+?(?=[_-]?\d+$|$)", word))


def _ordinal(letter: re.Match[str]) -> str:
    return f"_{ord(letter[0]) - ord('a')}"


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
    try:
        found = _resolve(*_items(source, target), ordered=ordered, follows=follows)
    except Ambiguous:
        runs = _runs(source, target) if ordered else None
        if runs is None:
            raise
        found = _resolve(*runs, ordered=ordered, follows=follows)
    for left, right in found:
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


def _runs(source: Sequence[Leaf], target: Sequence[Leaf]) -> tuple[list[Item], list[Item]] | None:
    """Both sides cut into runs that hold the same one after the other, at the modules of the source.

    torch lists what a module owns before what its parts own, wherever its code uses it: in a run the order may differ.
    """
    for depth in range(1, max(len(leaf.path) for leaf in source) + 1):
        left = [_item(list(run)) for _, run in groupby(source, key=lambda leaf: leaf.path[:depth])]
        ends = list(accumulate(len(item.leaves) for item in left))
        right = [_item(target[end - len(item.leaves) : end]) for item, end in zip(left, ends, strict=True)]
        if len(left) > 1 and [item.contents for item in left] == [item.contents for item in right]:
            return left, right
    return None


class _Group:
    """Items of equal contents on both sides, by their places: `left` in the source, `right` in the target."""

    def __init__(self, source: Sequence[Item], target: Sequence[Item]) -> None:
        self.source, self.target = source, target
        self.left: list[int] = []
        self.right: list[int] = []

    def score(self, i: int, j: int) -> int:
        """How many telling words the names of two items share."""
        return len(self.source[i].words & self.target[j].words)

    def free(self, found: Mapping[int, int]) -> tuple[list[int], list[int]]:
        taken = set(found.values())
        return [i for i in self.left if i not in found], [j for j in self.right if j not in taken]

    def items(self, left: Sequence[int], right: Sequence[int]) -> tuple[list[Item], list[Item]]:
        return [self.source[i] for i in left], [self.target[j] for j in right]


def _resolve(
    source: Sequence[Item], target: Sequence[Item], *, ordered: bool, follows: Follows
) -> list[tuple[Item, Item]]:
    """Pairs of items with equal contents."""
    groups: dict[Contents, _Group] = defaultdict(lambda: _Group(source, target))
    for i, item in enumerate(source):
        groups[item.contents].left.append(i)
    for j, item in enumerate(target):
        groups[item.contents].right.append(j)
    same = ordered and [item.contents for item in source] == [item.contents for item in target]
    found = dict(enumerate(range(len(target)))) if same else {}
    for group in groups.values():
        _by_names(group, found)
        _by_numbers(group, found, follows)
    if ordered:
        _by_neighbours(source, target, found)
    for group in groups.values():
        left, right = group.free(found)
        if len(left) > 1:
            why = "they have equal shapes, and neither order, names nor numbers tell them apart"
            raise Ambiguous(*group.items(left, right), why)
        found.update(zip(left, right, strict=True))
        _check(group, found, follows, moved=ordered and not same)
    return [(source[i], target[j]) for i, j in sorted(found.items())]


def _by_names(group: _Group, found: dict[int, int]) -> None:
    """Pair those that share more words with each other than with anything else; and what is left alone by that."""
    while True:
        left, right = group.free(found)
        if len(left) == 1:
            found[left[0]] = right[0]
        new = {}
        for i in left if len(left) > 1 else ():
            best = max(group.score(i, j) for j in right)
            fits = [j for j in right if group.score(i, j) == best]
            if best and len(fits) == 1 and all(group.score(k, fits[0]) < best for k in left if k != i):
                new[i] = fits[0]
        if not new:
            return
        found.update(new)


def _by_numbers(group: _Group, found: dict[int, int], follows: Follows) -> None:
    left, right = group.free(found)
    ranks = _ranks(*group.items(left, right), follows) if len(left) > 1 else None
    if ranks is not None:
        found.update({left[a]: right[b] for a, b in zip(*ranks, strict=True)})


def _ranks(source: Sequence[Item], target: Sequence[Item], follows: Follows) -> tuple[list[int], list[int]] | None:
    """Both sides in the order of the numbers in their names, if the source's names differ in nothing else.

    The target has to be numbered alike, or to run in one line; between parallel branches a number says nothing.
    """
    if not _numbered(source):
        return None
    first = sorted(range(len(source)), key=lambda k: natural(".".join(source[k].path)))
    if _numbered(target):
        return first, sorted(range(len(target)), key=lambda k: natural(".".join(target[k].path)))
    in_line = all(follows(a.leaves, b.leaves) for a, b in pairwise(target))
    return (first, list(range(len(target)))) if in_line else None


def _by_neighbours(source: Sequence[Item], target: Sequence[Item], found: dict[int, int]) -> None:
    """Round by round, pair what stands next to a pair on both sides in the same way."""
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
            return
        found.update(new)


def _check(group: _Group, found: Mapping[int, int], follows: Follows, *, moved: bool) -> None:
    """Raise Ambiguous where names or numbers speak against the pairs, or nothing speaks for a change of order."""
    for a, b in combinations(group.left, 2):
        gain = group.score(a, found[a]) + group.score(b, found[b]) - group.score(a, found[b]) - group.score(b, found[a])
        if gain < 0:
            raise Ambiguous(*group.items(group.left, group.right), "their order says one thing and their names another")
        if moved and gain == 0 and found[a] > found[b]:
            why = "their order differs, and their names do not say which is which"
            raise Ambiguous(*group.items(group.left, group.right), why)
    numbered = sorted(group.left, key=lambda i: natural(".".join(group.source[i].path)))
    if numbered == sorted(group.left, key=lambda i: found[i]):
        return
    ranks = _ranks(*group.items(group.left, group.right), follows)
    if ranks is not None and any(found[group.left[a]] != group.right[b] for a, b in zip(*ranks, strict=True)):
        why = "their order says one thing and their numbers another"
        raise Ambiguous(*group.items(group.left, group.right), why)


def _numbered(items: Sequence[Item]) -> bool:
    return len({tuple(_NUMBER.sub("#", step) for step in item.path) for item in items}) == 1
