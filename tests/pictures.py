"""Pictures that come with scikit-image, prepared as a spec states it, by Pillow and NumPy."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch


def prepared(name: str, compiled: Any) -> torch.Tensor:
    """A picture as the spec's `prepare` line says, with a batch of one."""
    from PIL import Image
    from skimage import data

    said = {key.removeprefix("image."): value for key, value in compiled.metadata.items()}
    size, crop = compiled.input_shape[-1], json.loads(said["crop"])
    picture = Image.fromarray(getattr(data, name)())
    side = crop * min(picture.size)
    left, top = ((length - side) / 2 for length in picture.size)
    box = (left, top, left + side, top + side)
    small = picture.resize((size, size), getattr(Image.Resampling, said["interpolation"].upper()), box=box)
    pixels = np.asarray(small, np.float32).transpose(2, 0, 1)
    low, high = json.loads(said.get("range", "[0, 1]"))
    pixels = pixels * np.float32((high - low) / 255) + np.float32(low)
    mean, std = (np.array(json.loads(said[key]), np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    return torch.from_numpy((pixels - mean) / std)[None]
