"""The type of a tensor: its shape without the batch axis, and whether it has a batch axis at all."""

from __future__ import annotations

from math import prod
from typing import NamedTuple


class TensorType(NamedTuple):
    """`shape` never counts the batch; parameters and what is computed from parameters alone are not `batched`."""

    shape: tuple[int, ...]
    batched: bool = True

    @property
    def numel(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        text = " x ".join(map(str, self.shape)) or "scalar"
        return text if self.batched else f"[{text}]"
