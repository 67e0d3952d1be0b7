"""Pass: merges parallel linear branches that are added up into one convolution (RepVGG's deploy form).

A branch is a convolution of the common input, a batch norm of it (an identity kernel, scaled), or the input itself.
Run it after `fold_batch_norm`, which turns a convolution and its norm into one convolution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from effspec.ir.graph import Attribute, Graph, Node, Value, leaves
from effspec.ops.base import pair
from effspec.passes.derived import (
    Derived,
    Eye,
    Recipe,
    Scaled,
    Shifted,
    Spread,
    Total,
    derived,
    fresh,
    norm_of,
    recipe,
)


@dataclass(frozen=True)
class _Taps:
    """Where a kernel reads along one axis, relative to stride * position: `count` places from `first`, `step` apart."""

    first: int
    count: int
    step: int

    @property
    def last(self) -> int:
        return self.first + (self.count - 1) * self.step

    def holds(self, other: _Taps) -> bool:
        """Whether every place of the other is one of these."""
        inside = self.first <= other.first and other.last <= self.last
        even = other.count == 1 or other.step % self.step == 0
        return inside and even and (other.first - self.first) % self.step == 0


_HERE = (_Taps(0, 1, 1), _Taps(0, 1, 1))


@dataclass(frozen=True)
class _Branch:
    """A summand: `node` is None for the input itself; `groups` is None where any number would do."""

    position: int
    node: Node | None
    taps: tuple[_Taps, _Taps]
    stride: tuple[int, int]
    groups: int | None


def fold_linear(graph: Graph) -> Graph:
    """Branches merge when the kernel of one holds the places that all others read; a sum may merge in part."""
    while True:
        exported = {leaf.node for output in graph.outputs for leaf in leaves(output.value)}
        taken = {parameter.path for parameter in graph.parameters(training=True, buffers=True)}
        change: dict[int, Node | Value | None] = {}
        touched: set[int] = set()
        for total in graph:
            # What was merged a moment ago is looked at again in the next round, in the new graph.
            if total.op != "add" or len(total.inputs) < 2 or touched & {value.node for value in total.inputs}:
                continue
            merged = _merge(graph, total, exported, taken)
            if merged:
                change |= merged
                touched |= set(merged)
        if not change:
            return graph
        graph = graph.rewrite(change).live()


def _merge(graph: Graph, total: Node, exported: set[int], taken: set[str]) -> dict[int, Node | Value | None] | None:
    if any(graph.type(value) != total.types[0] for value in total.inputs):
        return None  # broadcasting
    by_source: dict[Value, list[_Branch]] = {}
    for position, value in enumerate(total.inputs):
        node = graph[value.node]
        # A tensor that something else reads as well stays as it is, and is an input of the sum like any other.
        alone = value.node not in exported and len(graph.users(value.node)) == 1 and total.inputs.count(value) == 1
        if alone and node.op == "conv" and "weight" in node.parameters:
            branch = _Branch(position, node, _taps(node), pair(node.attributes["stride"]), _groups(node))
            by_source.setdefault(node.inputs[0], []).append(branch)
        elif alone and node.op == "batch_norm" and len(node.types[0].shape) == 3:
            by_source.setdefault(node.inputs[0], []).append(_Branch(position, node, _HERE, (1, 1), None))
        if len(total.types[0].shape) == 3:
            by_source.setdefault(value, []).append(_Branch(position, None, _HERE, (1, 1), None))
    for branches in by_source.values():
        for base in sorted(branches, key=lambda branch: -branch.taps[0].count * branch.taps[1].count):
            if base.node is None or base.node.op != "conv":
                continue
            group = [branch for branch in branches if branch is base or _fits(branch, base)]
            if len(group) > 1:
                return _replacement(total, base.node, group, taken)
    return None


def _groups(node: Node) -> int:
    groups = node.attributes["groups"]
    assert isinstance(groups, int)
    return groups


def _taps(node: Node) -> tuple[_Taps, _Taps]:
    kernel, dilation = pair(node.attributes["kernel_size"]), pair(node.attributes["dilation"])
    padding = node.attributes["padding"]
    assert isinstance(padding, tuple)
    first, second = (
        _Taps(-pair(pads)[0], count, step if count > 1 else 1)
        for pads, count, step in zip(padding, kernel, dilation, strict=True)
    )
    return first, second


def _fits(branch: _Branch, base: _Branch) -> bool:
    return (
        branch.stride == base.stride
        and branch.groups in (None, base.groups)
        and all(mine.holds(other) for mine, other in zip(base.taps, branch.taps, strict=True))
    )


def _replacement(total: Node, base: Node, group: list[_Branch], taken: set[str]) -> dict[int, Node | Value | None]:
    """The merged convolution in the base's place; the sum goes, or keeps what did not merge."""
    weight = base.parameters["weight"]
    taps = _taps(base)
    kernels: list[Recipe] = []
    biases: list[Recipe] = []
    for branch in group:
        kernel, bias = _numbers(branch, _groups(base), weight.shape[0])
        if branch.taps != taps:
            kernel = Spread(kernel, pair(base.attributes["kernel_size"]), *_placed(branch.taps, taps))
        kernels.append(kernel)
        if bias:
            biases.append(bias)
    parameters = {"weight": _derived(base, "weight", weight.shape, kernels, taken)}
    if biases:
        parameters["bias"] = _derived(base, "bias", weight.shape[:1], biases, taken)
    attributes: dict[str, Attribute] = {**base.attributes, "bias": bool(biases)}
    merged = {branch.position for branch in group}
    rest = tuple(value for position, value in enumerate(total.inputs) if position not in merged)
    # The base comes before every other reader of its result, and after the common input.
    change: dict[int, Node | Value | None] = {base.id: replace(base, attributes=attributes, parameters=parameters)}
    change[total.id] = replace(total, inputs=(Value(base.id), *rest)) if rest else Value(base.id)
    return change


def _numbers(branch: _Branch, groups: int, channels: int) -> tuple[Recipe, Recipe | None]:
    """Kernel and bias of a branch."""
    if branch.node is None:
        return Eye(channels, groups), None
    if branch.node.op == "batch_norm":
        norm = norm_of(branch.node)
        return Scaled(Eye(channels, groups), norm), Shifted(None, norm)
    tensors = branch.node.parameters
    return recipe(tensors["weight"]), recipe(tensors["bias"]) if "bias" in tensors else None


def _placed(inner: tuple[_Taps, _Taps], outer: tuple[_Taps, _Taps]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First place and step of the inner kernel's elements within the outer kernel."""
    top, left = ((mine.first - other.first) // other.step for mine, other in zip(inner, outer, strict=True))
    down, right = (mine.step // other.step if mine.count > 1 else 1 for mine, other in zip(inner, outer, strict=True))
    return (top, left), (down, right)


def _derived(node: Node, name: str, shape: tuple[int, ...], terms: list[Recipe], taken: set[str]) -> Derived:
    old = node.parameters.get(name)
    path = old.path if isinstance(old, Derived) else fresh(f"{node.path}.{name}_folded", taken)
    return derived(path, shape, terms[0] if len(terms) == 1 else Total(tuple(terms)))
