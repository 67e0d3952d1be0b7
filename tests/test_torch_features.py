"""`forward_features` gives the maps of the labelled lines under their paths, and the head goes on from the last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.emitted import CASES, Case, built, inputs, small, tensors

torch.set_num_threads(1)

# What has no trunk: a pyramid, maps of several sizes side by side, an end that is no head.
WITHOUT = ("hrnet", "efficientdet", "unet", "deeplab")
TRUNKS = [case for case in CASES if not any(word in str(case) for word in WITHOUT)]


@pytest.mark.parametrize("case", TRUNKS, ids=str)
def test_features_are_what_the_modules_of_their_paths_make(case: Case) -> None:
    model = built(small(case)).eval()
    made: dict[str, torch.Tensor] = {}

    def keep(path: str) -> Any:
        return lambda module, given, result: made.update({path: result})

    for path, module in model.named_modules():
        module.register_forward_hook(keep(path))
    with torch.no_grad():
        features = model.forward_features(*inputs(small(case)))  # type: ignore[operator]
        assert len(features) >= 3
        for path, feature in features.items():
            assert torch.equal(made[path], feature), path
        if case.variant == "vgg16":
            assert [y.shape[-1] for y in features.values()] == [32, 16, 8, 4, 2]
        stages = {path.split(".")[0] for path, module in model.named_children() if isinstance(module, nn.ModuleDict)}
        assert stages <= {path.split(".")[0] for path in features}


@pytest.mark.parametrize("case", [case for case in CASES if case not in TRUNKS], ids=str)
def test_other_models_keep_forward_whole(case: Case) -> None:
    assert not hasattr(built(small(case)), "forward_features")


@pytest.mark.parametrize("name", ["googlenet", "v3"])
def test_outputs_of_training_read_the_features(name: str) -> None:
    case = next(case for case in CASES if case.variant == name)
    model = built(small(case)).train()
    with torch.no_grad():
        assert len(tensors(model(*inputs(small(case))))) == {"googlenet": 3, "v3": 2}[name]
