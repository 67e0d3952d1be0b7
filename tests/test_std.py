"""The blocks of specs/std equal the modules of torch, torchvision and timm that they are named after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import effspec
from tests import parity

timm = pytest.importorskip("timm")
from timm.layers import (  # noqa: E402
    EcaModule,
    MixedConv2d,
    ScaledStdConv2d,
    SeparableConvNormAct,
    SqueezeExcite,
    StdConv2d,
)
from timm.layers.grn import GlobalResponseNorm  # noqa: E402
from timm.layers.layer_scale import LayerScale2d  # noqa: E402
from timm.layers.norm import RmsNorm2d  # noqa: E402
from timm.models import _efficientnet_blocks as effnet  # noqa: E402
from timm.models import densenet, resnet  # noqa: E402

C, SIZE = 16, 11
SPEC = """effspec 1
import {imports} from "std/{file}.eff"
model Net() on image: [{channels}, {size}, {size}] {{
    {defaults}
    block: {call}
}}
"""
NORM_ACT = "default norm = batch_norm(), act = relu"
RELU = "default norm = batch_norm(), act = relu, drop = 0"
SILU = "default norm = batch_norm(), act = silu, drop = 0"
UIB = f"{RELU}, blur = identity, scale = identity"
ACT = "default act = relu"


def compiled(folder: Path, file: str, call: str, defaults: str = "") -> Any:
    imports = (
        ", ".join(name for name in ("WeightStandardise", "ScaledStandardise") if name in call) or call.split("(")[0]
    )
    text = SPEC.format(imports=imports, file=file, call=call, defaults=defaults, channels=C, size=SIZE)
    (folder / "net.eff").write_text(text)
    return effspec.compile(str(folder / "net.eff"))


def judge(net: Any, peer: nn.Module) -> float:
    """The float64 distance of the ONNX model from the peer, with the peer's tensors in order."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*peer.parameters(), *peer.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
                if tensor.ndim > 1:
                    tensor.sub_(1.0)
    source = [t for k, t in peer.state_dict().items() if t.is_floating_point()]
    shapes = parity.shapes(net)
    assert [t.numel() for t in source] == [int(np.prod(shape)) for shape in shapes.values()]
    weights = {path: t.numpy().reshape(shape) for (path, shape), t in zip(shapes.items(), source, strict=True)}
    x = parity.picture(SIZE, 1, channels=C)
    expected = parity.forward(peer.eval().double(), x.double())
    data = parity.onnx_file(net, weights, dtype="float64")
    return parity.distance(parity.reference(data, x), expected)


class GRN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grn = GlobalResponseNorm(C, channels_last=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.grn(x)  # type: ignore[no-any-return]


CASES: list[tuple[str, str, str, Callable[[], nn.Module]]] = [
    ("conv", "ChannelShuffle(4)", "", lambda: nn.ChannelShuffle(4)),
    ("conv", "SqueezeExcite(4)", "default act = relu", lambda: SqueezeExcite(C, rd_channels=4)),
    (
        "conv",
        "MBConv(24, k = 5, s = 2)",
        SILU,
        lambda: effnet.InvertedResidual(
            C,
            24,
            5,
            2,
            exp_ratio=6,
            act_layer=nn.SiLU,
            se_layer=lambda c, **k: effnet.SqueezeExcite(c, rd_ratio=1 / 24, **k),
        ),
    ),
    (
        "conv",
        f"FusedMBConv({C}, expand = 4)",
        SILU,
        lambda: effnet.EdgeResidual(C, C, 3, exp_ratio=4, act_layer=nn.SiLU),
    ),
    ("conv", f"FusedMBConv({C}, expand = 1)", SILU, lambda: effnet.ConvBnAct(C, C, 3, skip=True, act_layer=nn.SiLU)),
    ("mobile", "UIB(24, start = 5, mid = 3, s = 2)", UIB, lambda: uib(24, 5, 3, 0, 2)),
    (
        "mobile",
        f"UIB({C}, start = 3, end = 3)",
        UIB,
        lambda: uib(C, 3, 0, 3, 1),
    ),
    ("mobile", "MixConv(20, kernels = [3, 5, 7])", "", lambda: MixedConv2d(C, 20, [3, 5, 7])),
    (
        "mobile",
        f"MixConv({C}, kernels = [3, 5], s = 2, depthwise = true)",
        "",
        lambda: MixedConv2d(C, C, [3, 5], stride=2, depthwise=True),
    ),
    (
        "mobile",
        "SepConv(24)",
        "default norm = batch_norm()",
        lambda: SeparableConvNormAct(C, 24, bias=True, apply_act=False, norm_layer=nn.BatchNorm2d),
    ),
    ("mobile", "ECA()", "", lambda: EcaModule(C)),
    ("norm", "LayerScale()", "", lambda: LayerScale2d(C)),
    ("norm", "GRN()", "", GRN),
    ("norm", "RMSNorm()", "", lambda: RmsNorm2d(C)),
    ("norm", "InstanceNorm()", "", lambda: nn.InstanceNorm2d(C)),
    ("norm", "InstanceNorm(affine = true)", "", lambda: nn.InstanceNorm2d(C, affine=True)),
    ("norm", "PReLU()", "", lambda: nn.PReLU(C)),
    (
        "norm",
        "conv(24, k = 3, bias = false, weight = WeightStandardise)",
        "",
        lambda: StdConv2d(C, 24, 3, padding=1, eps=1e-5),
    ),
    (
        "norm",
        "conv(24, k = 3, bias = false, weight = ScaledStandardise(factor = 1.5))",
        "",
        lambda: ScaledStdConv2d(C, 24, 3, padding=1, bias=False, gamma=1.5, eps=1e-6),
    ),
    ("residual", f"Basic({C})", RELU, lambda: resnet.BasicBlock(C, C)),
    ("residual", "Bottleneck(64, s = 1, width = 16, attention = identity)", RELU, lambda: bottleneck(64, 1)),
    ("residual", "Bottleneck(64, s = 2)", RELU, lambda: bottleneck(64, 2)),
    ("residual", 'Bottleneck(64, s = 2, shortcut = "avg", groups = 4)', RELU, lambda: bottleneck(64, 2, "avg", 4)),
    ("branch", "DenseLayer(8)", NORM_ACT, lambda: Dense()),
]


def uib(out: int, start: int, mid: int, end: int, stride: int) -> nn.Module:
    block: nn.Module = effnet.UniversalInvertedResidual(
        C, out, start, mid, end, stride, exp_ratio=4, layer_scale_init_value=None
    )
    return block


def bottleneck(out: int, stride: int, kind: str = "conv", groups: int = 1) -> nn.Module:
    """timm's block; its shortcut is moved to the front, where ours runs."""
    make = resnet.downsample_avg if kind == "avg" else resnet.downsample_conv
    shortcut = make(C, out, kernel_size=1, stride=stride, norm_layer=nn.BatchNorm2d)
    block = resnet.Bottleneck(C, out // 4, stride, shortcut, cardinality=groups, base_width=64 // groups)
    order = ["downsample", *(name for name in block._modules if name != "downsample")]
    block._modules = {name: block._modules[name] for name in order}
    return block


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = densenet.DenseLayer(C, 8, 4, norm_layer=densenet.BatchNormAct2d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layer(x)], 1)


@pytest.mark.parametrize(("file", "call", "defaults", "peer"), CASES, ids=[case[1] for case in CASES])
def test_a_block_equals_its_peer(
    tmp_path: Path, file: str, call: str, defaults: str, peer: Callable[[], nn.Module]
) -> None:
    assert judge(compiled(tmp_path, file, call, defaults), peer()) <= parity.TOLERANCE


# Blocks that no installed package has by itself are compared within whole networks, or elaborated.


def test_repvgg_and_bifpn_elaborate(tmp_path: Path) -> None:
    assert compiled(tmp_path, "branch", f"RepVGG({C})", NORM_ACT).params == C * C * 10 + 3 * 2 * C
    (tmp_path / "net.eff").write_text(
        """effspec 1
import BiFPN, FastSum from "std/fusion.eff"
model Net(width = 8) on image: [4, 16, 16] {
    default norm = batch_norm(), act = silu, fusion = FastSum
    small = image |> max_pool(k = 2, s = 2, pad = 0)
    [image, small, small |> max_pool(k = 2, s = 2, pad = 0) |> top: conv(width)]
    cell: BiFPN(width) x 2
    output levels
}
"""
    )
    net = effspec.compile(str(tmp_path / "net.eff"))
    # A node fuses two or three levels, by a weight each, and has a depthwise and a pointwise convolution and a norm.
    node, resample = 8 * 9 + 8 * 8 + 8 + 16, 4 * 8 + 8 + 16
    first = 3 * resample + 4 * node + 2 + 2 + 3 + 2
    assert net.params == 4 * 8 + 8 + first + 4 * node + 9
