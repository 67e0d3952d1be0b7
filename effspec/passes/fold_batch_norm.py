"""Pass: folds a batch norm into the convolution or linear operator that alone feeds it."""

from __future__ import annotations

from dataclasses import replace

from effspec.ir.graph import Graph, Node, Value, leaves
from effspec.passes.derived import Derived, Scaled, Shifted, derived, fresh, norm_of, recipe

_AXIS = {"conv": 0, "linear": 0, "conv_transpose": 1}


def fold_batch_norm(graph: Graph) -> Graph:
    """Each folded tensor has a name of its own, after the operator: `stem.conv.weight_folded`."""
    taken = {parameter.path for parameter in graph.parameters(training=True, buffers=True)}
    exported = {leaf.node for output in graph.outputs for leaf in leaves(output.value)}
    change: dict[int, Node | Value | None] = {}
    # A norm after a folded norm folds into the same operator: `at` follows the chain.
    at: dict[int, int] = {}
    known: dict[object, Derived] = {}
    for norm in graph:
        if norm.op != "batch_norm":
            continue
        before = norm.inputs[0].node
        number = at.get(before, before)
        node = change.get(number, graph[number])
        if not isinstance(node, Node) or before in exported or len(graph.users(before)) != 1:
            continue
        # A convolution's weight may come as an input.
        if node.op not in _AXIS or "weight" not in node.parameters:
            continue
        # The norm's channels are the first axis, a linear operator's results the last.
        if node.op == "linear" and len(norm.types[0].shape) != 1:
            continue
        change[number] = _folded(node, norm, known, taken)
        change[norm.id] = Value(number)
        at[norm.id] = number
    return graph.rewrite(change) if change else graph


def _folded(node: Node, norm: Node, known: dict[object, Derived], taken: set[str]) -> Node:
    weight, bias = node.parameters["weight"], node.parameters.get("bias")
    groups = node.attributes.get("groups", 1)
    assert isinstance(groups, int)
    scale = norm_of(norm)
    recipes: dict[str, tuple[tuple[int, ...], Scaled | Shifted]] = {
        "weight": (weight.shape, Scaled(recipe(weight), scale, _AXIS[node.op], groups)),
        "bias": (norm.types[0].shape[:1], Shifted(recipe(bias) if bias else None, scale)),
    }
    # The ratio, for a fraction's hash takes a modular power.
    eps = scale.eps.as_integer_ratio()
    held = [parameter.path for parameter in norm.parameters.values()]
    parameters = {}
    for name, (shape, made) in recipes.items():
        # Operators that share their tensors and their norm (`each`) share the folded tensors too.
        old = node.parameters.get(name)
        key = (name, node.op, groups, eps, old.path if old is not None else None, *held)
        found = known.get(key)
        if found is None:
            path = old.path if isinstance(old, Derived) else fresh(f"{node.path}.{name}_folded", taken)
            found = known[key] = derived(path, shape, made)
        parameters[name] = found
    return replace(node, attributes={**node.attributes, "bias": True}, parameters=parameters)
