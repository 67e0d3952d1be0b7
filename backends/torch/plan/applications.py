"""What an application of the record tells by itself: its kind, its input, its attributes as torch writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from effspec.backends.torch.operators import ACTIVATIONS, NEED_CHANNELS

from effspec.ir.graph import Attribute
from effspec.ir.types import TensorType
from effspec.layers import Application, Tensor
from effspec.syntax import nodes

Kind: TypeAlias = "str | nodes.Block | nodes.Model"

_PAIRS = frozenset({"kernel_size", "stride", "dilation", "out_pad", "output_size", "scale"})


def op_of(application: Application) -> str:
    """The name of the operator that was applied, "" if it was a definition or `each`."""
    return application.layer.op.name if application.layer.op is not None else ""


def kind_of(application: Application) -> Kind:
    """The block, "group", "each" or the operator's name."""
    if application.child is not None:
        return "group" if isinstance(application.child.node, nodes.Group) else application.child.node
    return op_of(application) or "each"


def owns_parameters(application: Application) -> bool:
    """Whether the module of an application has a place in the state dict."""
    child = application.child
    if child is None:
        return op_of(application) in NEED_CHANNELS
    own = any(isinstance(part, nodes.Param) for part in nodes.descend(child.node))
    return own or any(map(owns_parameters, child.applied.values()))


def is_activation(application: Application) -> bool:
    return application.child is None and op_of(application) in ACTIVATIONS


def input_type(application: Application) -> TensorType:
    """The type of the input, or of the first of several."""
    value = application.input
    found: TensorType = value.type if isinstance(value, Tensor) else value[0].type
    return found


def width_of(value: object) -> int | None:
    """The channels of a tensor; None of a list or a scalar."""
    return value.type.shape[0] if isinstance(value, Tensor) and value.type.shape else None


def common_width(value: object) -> int | None:
    """The channels of a tensor, or of all tensors of a list if they are alike."""
    if not isinstance(value, tuple):
        return width_of(value)
    widths = {width_of(element) for element in value}
    return widths.pop() if len(widths) == 1 else None


def normalised_shape(application: Application) -> int | tuple[int, ...]:
    """The sizes that a layer norm is over; one number where it is one axis."""
    axes: Any = application.attributes["axes"]
    sizes = tuple(input_type(application).shape[axis] for axis in axes)
    return sizes[0] if len(sizes) == 1 else sizes


def compact(word: str, value: Attribute) -> Attribute:
    """An equal pair as one number, as torch and the spec would write it."""
    if word in _PAIRS and isinstance(value, tuple) and value[0] == value[1]:
        return value[0]
    return value


def symmetric_pad(padding: Any) -> int | tuple[int, int] | None:
    """Pads that torch's own argument can say: a number or a pair; None otherwise."""
    (top, bottom), (left, right) = padding
    if top != bottom or left != right:
        return None
    pair: tuple[int, int] = (top, left)
    return pair[0] if top == left else pair


def layer_name(site: nodes.Node) -> nodes.Name | None:
    """The name of the layer that a line or step applies, without its arguments."""
    layer: nodes.Node | None = None
    if isinstance(site, nodes.Line):
        layer = site.value
    elif isinstance(site, nodes.Step):
        layer = site.layer
    while isinstance(layer, nodes.Call):
        layer = layer.function
    return layer if isinstance(layer, nodes.Name) else None


def word_of(applications: Mapping[Any, Application]) -> str:
    """The word of the label that all of these applications have."""
    return next(iter(applications.values())).label[0]


def label_of(site: nodes.Node) -> nodes.Label | None:
    """The label of a line or step."""
    return site.label if isinstance(site, nodes.Line | nodes.Step) else None
