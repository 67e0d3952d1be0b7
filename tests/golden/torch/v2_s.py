"""EfficientNetV2, variant s: input 3 x 384 x 384, 21,458,488 parameters, 8.37 G multiply-adds.

Prepare image: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], interpolation bicubic, crop 1, fit crop,
train_size 300.
Compiled by effspec from efficientnet_v2.eff, function ac19a42a6505; effspec digest 7baeeed2753f402b.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn


class DropPath(nn.Module):
    """Stochastic depth: drop the branch of a whole sample while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.rate)
        return x * (keep / (1 - self.rate))


class ConvNormAct(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class ConvNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class FusedMBConv(nn.Module):
    """MBConv with one full convolution in place of expansion and depthwise (Gupta & Tan 2019)."""

    def __init__(self, in_channels: int, out_channels: int, drop: float, stride: int = 1, expand: int = 4) -> None:
        super().__init__()
        widen = expand != 1
        self.widen = widen
        if self.widen:
            mid = in_channels * expand
            self.expand = ConvNormAct(in_channels, mid, 3, stride=stride)
            self.project = ConvNorm(mid, out_channels)
        else:
            self.conv = ConvNormAct(in_channels, out_channels, 3)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.widen:
            x = self.expand(x)
            x = self.project(x)
        else:
            x = self.conv(x)
        if self.residual:
            x = self.drop_path(x)
            x = x + shortcut
        return x


class SqueezeExcite(nn.Module):
    def __init__(self, in_channels: int, squeeze: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, squeeze, 1)
        self.act = nn.SiLU()
        self.expand = nn.Conv2d(squeeze, in_channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.gate(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
        return x * weight


class MBConv(nn.Module):
    """Mobile inverted bottleneck (Sandler et al. 2018) with squeeze-and-excitation."""

    def __init__(self, in_channels: int, out_channels: int, drop: float, stride: int = 1, expand: int = 6) -> None:
        super().__init__()
        mid = in_channels * expand
        self.expand = ConvNormAct(in_channels, mid)
        self.dw = ConvNormAct(mid, mid, 3, stride=stride, groups=mid)
        self.se = SqueezeExcite(mid, squeeze=in_channels // 4)
        self.project = ConvNorm(mid, out_channels)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.expand(x)
        x = self.dw(x)
        x = self.se(x)
        x = self.project(x)
        if self.residual:
            x = self.drop_path(x)
            x = x + shortcut
        return x


def stage(
    block: Callable[..., nn.Module],
    in_channels: int,
    out_channels: int,
    repeats: int,
    drops: Iterator[float],
    stride: int = 1,
    **kwargs: int,
) -> nn.Sequential:
    """`repeats` blocks in a row, of which the first one may change width and resolution."""
    first = block(in_channels, out_channels, stride=stride, drop=next(drops), **kwargs)
    rest = [block(out_channels, out_channels, drop=next(drops), **kwargs) for _ in range(repeats - 1)]
    return nn.Sequential(first, *rest)


class EfficientNetV2(nn.Module):
    def __init__(
        self, classes: int = 1000, in_channels: int = 3, drop_rate: float = 0.2, drop_path_rate: float = 0.2
    ) -> None:
        super().__init__()
        self.stem = ConvNormAct(in_channels, 24, 3, stride=2)  # 24 x 192 x 192
        drops = (drop_path_rate * i / 40 for i in range(40))  # stochastic depth, linear in the index of the block
        self.stage1 = stage(FusedMBConv, 24, 24, repeats=2, expand=1, drops=drops)  # 24 x 192 x 192
        self.stage2 = stage(FusedMBConv, 24, 48, repeats=4, stride=2, drops=drops)  # 48 x 96 x 96
        self.stage3 = stage(FusedMBConv, 48, 64, repeats=4, stride=2, drops=drops)  # 64 x 48 x 48
        self.stage4 = stage(MBConv, 64, 128, repeats=6, stride=2, expand=4, drops=drops)  # 128 x 24 x 24
        self.stage5 = stage(MBConv, 128, 160, repeats=9, drops=drops)  # 160 x 24 x 24
        self.stage6 = stage(MBConv, 160, 256, repeats=15, stride=2, drops=drops)  # 256 x 12 x 12
        self.head = ConvNormAct(256, 1280)  # 1280 x 12 x 12
        self.dropout = nn.Dropout(drop_rate)  # 1280
        self.classifier = nn.Linear(1280, classes)  # 1000
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -(module.out_features**-0.5), module.out_features**-0.5)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = {}
        features["stem"] = x = self.stem(x)
        features["stage1"] = x = self.stage1(x)
        features["stage2"] = x = self.stage2(x)
        features["stage3"] = x = self.stage3(x)
        features["stage4"] = x = self.stage4(x)
        features["stage5"] = x = self.stage5(x)
        features["stage6"] = x = self.stage6(x)
        features["head"] = x = self.head(x)
        return features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(x)["head"]
        x = x.mean((2, 3))
        x = self.dropout(x)
        return self.classifier(x)
