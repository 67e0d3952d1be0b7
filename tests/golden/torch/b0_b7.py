"""EfficientNet, variant b7: input 3 x 600 x 600, 66,347,960 parameters, 37.75 G multiply-adds.

Prepare image: mean [0.485, 0.456, 0.406], std [0.229, 0.224, 0.225], interpolation bicubic, crop 0.9493670886075949.
Compiled by effspec from b0.eff, function 07d53b891864; effspec digest 8477ba8c8ab110fe.
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


class ConvNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class MBConv(nn.Module):
    """Mobile inverted bottleneck (Sandler et al. 2018) with squeeze-and-excitation."""

    def __init__(
        self, in_channels: int, out_channels: int, drop: float, kernel_size: int = 3, stride: int = 1, expand: int = 6
    ) -> None:
        super().__init__()
        mid = in_channels * expand
        self.expand = ConvNormAct(in_channels, mid) if expand != 1 else nn.Identity()
        self.dw = ConvNormAct(mid, mid, kernel_size, stride=stride, groups=mid)
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


class EfficientNet(nn.Module):
    def __init__(
        self, classes: int = 1000, in_channels: int = 3, drop_rate: float = 0.5, drop_path_rate: float = 0.2
    ) -> None:
        super().__init__()
        self.stem = ConvNormAct(in_channels, 64, 3, stride=2)  # 64 x 300 x 300
        drops = (drop_path_rate * i / 55 for i in range(55))  # stochastic depth, linear in the index of the block
        self.stage1 = stage(MBConv, 64, 32, repeats=4, expand=1, drops=drops)  # 32 x 300 x 300
        self.stage2 = stage(MBConv, 32, 48, repeats=7, stride=2, drops=drops)  # 48 x 150 x 150
        self.stage3 = stage(MBConv, 48, 80, repeats=7, kernel_size=5, stride=2, drops=drops)  # 80 x 75 x 75
        self.stage4 = stage(MBConv, 80, 160, repeats=10, stride=2, drops=drops)  # 160 x 38 x 38
        self.stage5 = stage(MBConv, 160, 224, repeats=10, kernel_size=5, drops=drops)  # 224 x 38 x 38
        self.stage6 = stage(MBConv, 224, 384, repeats=13, kernel_size=5, stride=2, drops=drops)  # 384 x 19 x 19
        self.stage7 = stage(MBConv, 384, 640, repeats=4, drops=drops)  # 640 x 19 x 19
        self.head = ConvNormAct(640, 2560)  # 2560 x 19 x 19
        self.dropout = nn.Dropout(drop_rate)  # 2560
        self.classifier = nn.Linear(2560, classes)  # 1000
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
        features["stage7"] = x = self.stage7(x)
        features["head"] = x = self.head(x)
        return features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(x)["head"]
        x = x.mean((2, 3))
        x = self.dropout(x)
        return self.classifier(x)
