"""Pass: what depends on parameters alone becomes one derived parameter, so that convolutions have constant weights."""

from __future__ import annotations

from dataclasses import replace

from effspec.ir.graph import Graph, Node, Output, Tree, Value
from effspec.passes.derived import Computed, Derived, derived, fresh


def fold_constants(graph: Graph) -> Graph:
    """A value without a batch axis that a batched operator or an output reads becomes a parameter.

    A weight that comes as an input of a convolution becomes the convolution's own (`conv2.weight_folded`), others are
    named after the operator that computed them.
    """
    if all(type.batched for node in graph for type in node.types):
        return graph
    taken = {parameter.path for parameter in graph.parameters(training=True, buffers=True)}
    paths = {node.path for node in graph if len(node.types) == 1}
    out = Graph(graph.name)
    moved: dict[Value, Value] = {}
    made: dict[Value, Derived] = {}

    def computed(value: Value, path: str) -> Derived:
        if value not in made:
            made[value] = derived(fresh(path, taken), graph.type(value).shape, Computed(graph, value))
        return made[value]

    def follow(value: Value) -> Value:
        """The value in the new graph; a constant is added to it when it is first read."""
        if value not in moved:
            node = graph[value.node]
            path = node.path if len(node.types) == 1 else fresh(f"{node.path}.{value.output}", paths)
            parameter = computed(value, f"{path}_folded")
            # Only its type and its tensor matter from here on.
            constant = Node(
                out.next_id(),
                "parameter",
                path,
                (),
                {"shape": parameter.shape, "init": parameter.init},
                (graph.type(value),),
                {"value": parameter},
                node.span,
                node.training,
            )
            moved[value] = Value(out.add(constant).id)
        return moved[value]

    def walk(tree: Tree) -> Tree:
        return follow(tree) if isinstance(tree, Value) else tuple(walk(branch) for branch in tree)

    for node in graph:
        constant = not any(type.batched for type in node.types)
        if constant and node.op != "parameter":
            continue
        parameters, inputs = dict(node.parameters), node.inputs
        if node.op == "conv" and len(inputs) == 2:
            source = graph[inputs[1].node]
            parameters["weight"] = (
                source.parameters["value"]
                if source.op == "parameter"
                else computed(inputs[1], f"{node.path}.weight_folded")
            )
            inputs = inputs[:1]
        inputs = tuple(follow(value) for value in inputs)
        number = out.next_id()
        out.add(replace(node, id=number, inputs=inputs, parameters=parameters))
        moved.update({Value(node.id, k): Value(number, k) for k in range(len(node.types))})
    out.outputs = [Output(output.name, walk(output.value), output.training) for output in graph.outputs]
    return out.live()
