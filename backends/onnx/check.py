"""Checks a finished ONNX model for what `onnx.checker` lets pass: names, order, wrong shapes, what is never used."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from effspec.backends.onnx.plan import IR_VERSIONS, SAFE
from onnx import ModelProto, NodeProto, TensorProto, TypeProto


class WrongModel(Exception):
    """The model breaks a rule: each of `problems` says which, and where."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def check_model(model: ModelProto, *, infer: bool = True) -> None:
    """Raise WrongModel unless all of this holds:

    the opset and the IR version belong together, and there is no other domain; names are safe; every tensor is made
    once, before it is read, and read by something; node names are distinct; numbers fill their shapes and lie in a
    plainly named file beside the model, in order and apart from each other; and, with `infer`, every shape that the
    model states is the one that ONNX infers.
    """
    problems = [*_versions(model), *_names(model), *_order(model), *_tensors(model.graph.initializer)]
    if infer and not problems:
        problems += _shapes(model)
    if problems:
        raise WrongModel(problems)


def _versions(model: ModelProto) -> list[str]:
    imports = [(entry.domain, entry.version) for entry in model.opset_import]
    if len(imports) != 1 or imports[0][0] or IR_VERSIONS.get(imports[0][1]) != model.ir_version:
        return [f"operator sets {imports} with IR version {model.ir_version}"]
    return [f"{node.name} has the domain {node.domain}" for node in model.graph.node if node.domain]


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    problems = []
    found = [node.name for node in graph.node]
    problems += [f"node name {name!r} is there twice" for name in sorted({n for n in found if found.count(n) > 1})]
    tensors = [item.name for part in (graph.input, graph.output, graph.initializer, graph.value_info) for item in part]
    tensors += [name for node in graph.node for name in node.output]
    for name in sorted({*found, *tensors}):
        if not SAFE.fullmatch(name) or ".." in name or "//" in name:
            problems.append(f"the name {name!r} is not safe")
    return problems


def _order(model: ModelProto) -> list[str]:
    """Static single assignment, and nothing superfluous."""
    graph = model.graph
    problems = []
    made: set[str] = set()
    read: set[str] = {output.name for output in graph.output}

    def make(name: str, where: str) -> None:
        if name in made:
            problems.append(f"{where} makes {name} a second time")
        made.add(name)

    for port in graph.input:
        make(port.name, "an input")
    for tensor in graph.initializer:
        make(tensor.name, "an initializer")
    for node in graph.node:
        for name in node.input:
            if name and name not in made:
                problems.append(f"{node.name} reads {name} before it is there")
            read.add(name)
        for name in node.output:
            make(name, node.name)
    problems += [f"output {port.name} is never made" for port in graph.output if port.name not in made]
    inputs = {port.name for port in graph.input}
    problems += [f"nothing reads {name}" for name in sorted(made - read - inputs) if not _part(name, graph.node, read)]
    return problems


def _part(name: str, nodes: Iterable[NodeProto], read: set[str]) -> bool:
    """Whether the name is one of several results, of which another is read."""
    return any(name in node.output and read.intersection(node.output) for node in nodes)


def _tensors(tensors: Iterable[TensorProto]) -> list[str]:
    problems = []
    ends: dict[str, int] = {}
    for tensor in tensors:
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for axis in tensor.dims:
            size *= axis
        if tensor.data_location != TensorProto.EXTERNAL:
            if len(tensor.raw_data) != size:
                problems.append(f"{tensor.name} has {len(tensor.raw_data)} bytes, its shape needs {size}")
            continue
        entry = {item.key: item.value for item in tensor.external_data}
        place = entry.get("location", "")
        if not place or place.startswith(".") or any(c in place for c in "/\\:\0"):
            problems.append(f"{tensor.name} lies at {place!r}, which is not a plain file name")
        if int(entry.get("length", -1)) != size or int(entry.get("offset", -1)) < ends.get(place, 0):
            problems.append(f"{tensor.name} lies at {entry}, its shape needs {size} bytes")
        ends[place] = int(entry.get("offset", 0)) + size
    return problems


def _shapes(model: ModelProto) -> list[str]:
    """Stated shapes against those that follow from the inputs and weights alone."""
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for port in bare.graph.output:
        # The element type has to stay, the shape is to be found.
        port.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    found = {item.name: item.type for part in (inferred.graph.value_info, inferred.graph.output) for item in part}
    problems = []
    for item in (*model.graph.value_info, *model.graph.output):
        other = found.get(item.name)
        if other is None or not _agree(item.type, other):
            shown = _show(other) if other is not None else "nothing"
            problems.append(f"{item.name} is stated as {_show(item.type)}, and {shown} follows")
    return problems


def _agree(stated: TypeProto, inferred: TypeProto) -> bool:
    """Whether the types are the same; a free size agrees with another name only if ONNX made that up (Resize)."""
    a, b = stated.tensor_type, inferred.tensor_type
    if a.elem_type != b.elem_type or len(a.shape.dim) != len(b.shape.dim) or not b.HasField("shape"):
        return False
    return all(
        one.dim_value == two.dim_value
        and (not one.dim_param or one.dim_param == two.dim_param or two.dim_param.startswith("unk__"))
        for one, two in zip(a.shape.dim, b.shape.dim, strict=True)
    )


def _show(kind: TypeProto) -> str:
    shape = kind.tensor_type.shape.dim
    return "[" + ", ".join(str(axis.dim_value or axis.dim_param or "?") for axis in shape) + "]"
