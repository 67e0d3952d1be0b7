"""Other tools count other things and call them FLOPs: what each makes of a graph, exactly.

All count one image, and a multiply-add as one:

- `paper`: convolutions, linear layers and matrix products; what papers call FLOPs, and effspec MACs;
- `pycls`: the same, and an addition for each bias (pycls 5719de6, `pycls/models/blocks.py`);
- `fvcore`: without biases, but with operations for each element that some other layers make: 2 for a batch norm, 5 for
  a group or layer norm, 4 for one without weights, 4 for bilinear resizing, 1 for nearest (fvcore 0.1.5,
  `fvcore/nn/jit_handles.py`);
- `torchvision`: as `paper`, in units of 10^9 with three digits, as `_ops` of its weights says.

fvcore counts modules as they are called: an `nn.AdaptiveAvgPool2d` costs it an operation for each element that it
reads, a mean over the same axes nothing.  The emitted PyTorch takes means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from effspec.cost import Cost, GroupCost, NodeCost
from effspec.ir.graph import Node

Count: TypeAlias = Callable[[NodeCost], int]


def _paper(row: NodeCost) -> int:
    return row.macs


def _with_biases(row: NodeCost) -> int:
    biased = row.macs and "bias" in row.node.parameters
    return row.macs + (sum(kind.numel for kind in row.node.types) if biased else 0)


# Operations an element of the result, in fvcore.
_ELEMENT: Mapping[str, int] = {"nearest": 1, "bilinear": 4}


def _fvcore(row: NodeCost) -> int:
    return row.macs + _elements(row.node) * sum(kind.numel for kind in row.node.types)


def _elements(node: Node) -> int:
    weighted = bool({"weight", "bias"} & node.parameters.keys())
    if node.op == "batch_norm":
        return 2 if weighted else 1
    if node.op in ("layer_norm", "group_norm"):
        return 5 if weighted else 4
    return _ELEMENT.get(str(node.attributes.get("mode", "")), 0) if node.op == "resize" else 0


CONVENTIONS: dict[str, Count] = {
    "paper": _paper, "pycls": _with_biases, "fvcore": _fvcore, "torchvision": _paper,
}  # fmt: skip


def counted(cost: Cost, convention: str) -> int:
    """The operations of a graph in a convention, a key of `CONVENTIONS`."""
    return sum(map(CONVENTIONS[convention], cost.nodes))


def written(operations: int, convention: str) -> str:
    """A count as its tool prints it."""
    return f"{operations / 1e9:.3f}" if convention == "torchvision" else f"{operations:,}"


_GLOBAL = ("flatten", "reshape", "matmul", "global_avg_pool", "global_max_pool", "adaptive_avg_pool", "dynamic_conv")


# Receptive fields -----------------------------------------------------------------------------------------------------


def receptive_fields(nodes: Sequence[Node]) -> dict[int, tuple[int, int] | None]:
    """How many pixels of the input, in height and width, an element of each node's result depends on, by node id.

    Windows alone count (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks", eq. 2): what
    gates or means of a whole map bring in has no bounds and is left aside, and None is what depends on them only.
    """
    found: dict[int, tuple[int, int] | None] = {}
    jumps: dict[int, tuple[int, int]] = {}
    for node in nodes:
        if node.op == "input":
            found[node.id], jumps[node.id] = (1, 1), (1, 1)
            continue
        seen = [(found[v.node], jumps[v.node]) for v in node.inputs if found.get(v.node) is not None]
        if not seen or _is_global(node):
            found[node.id], jumps[node.id] = None, (1, 1)
            continue
        field = [max(one[axis] for one, _ in seen if one is not None) for axis in (0, 1)]
        jump = [max(jump[axis] for _, jump in seen) for axis in (0, 1)]
        size = _pair(node, "kernel_size", 1)
        stride, dilation = _pair(node, "stride", 1), _pair(node, "dilation", 1)
        for axis in (0, 1):
            field[axis] += (size[axis] - 1) * dilation[axis] * jump[axis]
            jump[axis] *= stride[axis]
        found[node.id], jumps[node.id] = (field[0], field[1]), (jump[0], jump[1])
    return found


def _is_global(node: Node) -> bool:
    """Whether each element of the result depends on whole maps."""
    axes = node.attributes.get("axes", ())
    reduced = node.op.startswith("reduce_") and isinstance(axes, tuple) and bool({1, 2} & set(axes))
    return reduced or node.op in _GLOBAL


def _pair(node: Node, name: str, default: int) -> tuple[int, int]:
    value = node.attributes.get(name, default)
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))  # type: ignore[index, arg-type]


# By part -------------------------------------------------------------------------------------------------------------

PARTS = {"stage": 1, "block": 2, "layer": 99}
"""How many components of a path name each part."""


class Part(NamedTuple):
    """Operators taken together, what they count in a convention, and the pixels that the last of them sees."""

    cost: GroupCost
    operations: int
    field: tuple[int, int] | None


def parts(cost: Cost, by: str, convention: str) -> Iterator[Part]:
    """The parts of a model in the order of its graph; `by` is a key of `PARTS`."""
    fields = receptive_fields([row.node for row in cost.nodes])
    rows: dict[str, list[NodeCost]] = {}
    for row in cost.nodes:
        rows.setdefault(_named(row.node.path, by), []).append(row)
    for group in cost.groups(lambda node: _named(node.path, by)):
        own = rows[group.name]
        if all(row.node.op == "input" for row in own):
            continue
        yield Part(group, sum(map(CONVENTIONS[convention], own)), fields[own[-1].node.id])


def _named(path: str, by: str) -> str:
    return ".".join(path.split(".")[: PARTS[by]])
