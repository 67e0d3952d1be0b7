"""ResNet, variant r50d: input 3 x 224 x 224, 25,576,264 parameters, 4.33 G multiply-adds.

Compiled by effspec from 05_resnet.eff, function 298e2f1f604e; effspec digest 2e88de2e18d0a739.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F


class ConvNormAct(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class DeepStem(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.a = ConvNormAct(in_channels, out_channels // 2, 3, stride=2)
        self.b = ConvNormAct(out_channels // 2, out_channels // 2, 3)
        self.c = ConvNormAct(out_channels // 2, out_channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


class ConvNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Downsample(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv_norm = ConvNorm(in_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return self.conv_norm(x)


class Bottleneck(nn.Module):
    """ResNet v1.5: the 3x3 convolution carries the stride."""

    def __init__(self, in_channels: int, out_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.downsample = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else Downsample(in_channels, out_channels, stride=stride)
        )
        self.a = ConvNormAct(in_channels, width)
        self.b = ConvNormAct(width, width, 3, stride=stride)
        self.c = ConvNorm(width, out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.downsample(x)
        x = self.a(x)
        x = self.b(x)
        x = self.c(x)
        x = x + residual
        return self.act(x)


def stage(
    block: Callable[..., nn.Module], in_channels: int, out_channels: int, repeats: int, stride: int = 1, **kwargs: int
) -> nn.Sequential:
    """`repeats` blocks in a row, of which the first one may change width and resolution."""
    first = block(in_channels, out_channels, stride=stride, **kwargs)
    rest = [block(out_channels, out_channels, **kwargs) for _ in range(repeats - 1)]
    return nn.Sequential(first, *rest)


class ResNet(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = DeepStem(3, 64)  # 64 x 112 x 112
        self.stage = nn.ModuleDict(
            {
                "1": stage(Bottleneck, 64, 256, repeats=3, width=64),  # 256 x 56 x 56
                "2": stage(Bottleneck, 256, 512, repeats=4, width=128, stride=2),  # 512 x 28 x 28
                "3": stage(Bottleneck, 512, 1024, repeats=6, width=256, stride=2),  # 1024 x 14 x 14
                "4": stage(Bottleneck, 1024, 2048, repeats=3, width=512, stride=2),  # 2048 x 7 x 7
            }
        )
        self.fc = nn.Linear(2048, classes)  # 1000
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = {}
        features["stem"] = x = self.stem(x)
        x = F.max_pool2d(x, 3, 2, 1)
        for name, stage in self.stage.items():
            features[f"stage.{name}"] = x = stage(x)
        return features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(x)["stage.4"]
        x = x.mean((2, 3))
        return self.fc(x)
