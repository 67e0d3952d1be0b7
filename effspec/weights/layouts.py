"""How kernels lie in a checkpoint: output channels first, as in PyTorch, or last, as in TensorFlow.

A convolution's kernel is [out, in / groups, h, w] or [h, w, in / groups, out], a linear layer's [out, in] or [in, out].
TensorFlow's depthwise kernels [h, w, channels, multiplier] make channels * multiplier outputs of one input each.  Which
of the two a whole file has is for `effspec.weights.convert` to prove; vectors and other tensors lie alike in both.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]

_KERNELS = frozenset(["weight", "weights", "kernel", "pointwise_kernel", "pointwise_weights"])
_DEPTHWISE = frozenset(["depthwise_kernel", "depthwise_weights"])


def last_word(name: str) -> str:
    """The end of a tensor's name, without the number of the output that TensorFlow puts there (`kernel:0`)."""
    return name.replace("/", ".").rpartition(".")[2].partition(":")[0]


def is_kernel(name: str) -> bool:
    """Whether a tensor is called as kernels are; PyTorch calls the scale of a norm so, too."""
    return last_word(name) in _KERNELS | _DEPTHWISE


def squeezed(shape: Shape) -> Shape:
    """The shape without axes of length 1: a linear layer equals a 1x1 convolution, element for element.

    A window's height of 1 stays where it is wider: it tells 1x7 from 7x1.
    """
    wide = len(shape) == 4 and shape[2] == 1 < shape[3]
    return tuple(size for axis, size in enumerate(shape) if size != 1 or (wide and axis == 2))


class Layout(Enum):
    """Where the output channels of every kernel of a file are."""

    FIRST = "first"
    LAST = "last"

    def shape(self, name: str, shape: Shape) -> Shape:
        """The shape that a tensor of a file has in PyTorch's layout."""
        axes = self._axes(name, shape)
        made = tuple(shape[axis] for axis in axes)
        return (made[0] * made[1], 1, *made[2:]) if self._depthwise(name, shape) else made

    def array(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """The tensor in PyTorch's layout."""
        return np.transpose(array, self._axes(name, array.shape)).reshape(self.shape(name, array.shape))

    def _depthwise(self, name: str, shape: Shape) -> bool:
        return self is Layout.LAST and len(shape) > 2 and last_word(name) in _DEPTHWISE

    def _axes(self, name: str, shape: Shape) -> tuple[int, ...]:
        window = tuple(range(len(shape) - 2))
        if self is Layout.FIRST or not is_kernel(name) or len(shape) < 2:
            return tuple(range(len(shape)))
        back, front = len(shape) - 1, len(shape) - 2
        return (front, back, *window) if self._depthwise(name, shape) else (back, front, *window)
