"""NFNet, n = 0: input 3 x 192 x 192.

71,489,284 parameters.
Compiled by effspec from 09_nfnet.eff.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F


class DropPath(nn.Module):
    """Stochastic depth: drop the branch of a whole sample while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


def pad_same(x: torch.Tensor, kernel_size: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """TensorFlow's padding: the odd row and column are at the bottom and to the right."""
    height, width = (max((-(-n // stride) - 1) * stride + kernel_size - n, 0) for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2), value=value)


class StandardiseConv2d(nn.Conv2d):
    """A convolution whose weight passes through `Standardise` (09_nfnet.eff:5) before use."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fan_in = self.weight[0].numel()
        centred = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        variance = (centred**2).mean((1, 2, 3), keepdim=True)
        weight = centred * self.gain * (1.7015043497085571 / fan_in**0.5) / (variance + 1e-6) ** 0.5
        return self._conv_forward(pad_same(x, self.kernel_size[0], self.stride[0]), weight, self.bias)


class Shortcut(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = StandardiseConv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True)
        return self.conv(x)


class SE(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        squeeze = in_channels // 2
        self.fc1 = nn.Conv2d(in_channels, squeeze, 1)
        self.fc2 = nn.Conv2d(squeeze, in_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
        return x * weight


class NFBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, beta: float, drop: float, stride: int = 1) -> None:
        super().__init__()
        mid = out_channels // 2
        groups = mid // 128
        self.act = nn.GELU()
        self.beta = beta
        self.downsample = (
            None if stride == 1 and in_channels == out_channels else Shortcut(in_channels, out_channels, stride)
        )
        self.conv1 = StandardiseConv2d(in_channels, mid, 1)
        self.conv2 = StandardiseConv2d(mid, mid, 3, stride=stride, groups=groups)
        self.conv2b = StandardiseConv2d(mid, mid, 3, groups=groups)
        self.conv3 = StandardiseConv2d(mid, out_channels, 1)
        self.attention = SE(out_channels)
        self.drop_path = DropPath(drop)
        self.skip_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inputs = x
        x = self.act(x)
        x = x * self.beta
        shortcut = inputs if self.downsample is None else self.downsample(x)
        x = self.act(self.conv1(x))
        x = self.act(self.conv2(x))
        x = self.act(self.conv2b(x))
        x = self.conv3(x)
        x = self.attention(x)
        x = self.drop_path(x)
        return x * 2 * self.skip_gain * 0.2 + shortcut


def stage(
    block: Callable[..., nn.Module],
    in_channels: int,
    out_channels: int,
    repeats: int,
    beta: float,
    drops: Iterator[float],
    stride: int = 1,
) -> nn.Sequential:
    """`repeats` blocks in a row, of which the first one changes width and resolution."""
    first = block(in_channels, out_channels, beta=beta, stride=stride, drop=next(drops))
    rest = [
        block(out_channels, out_channels, beta=(1 + 0.2**2 * i) ** -0.5, drop=next(drops)) for i in range(1, repeats)
    ]
    return nn.Sequential(first, *rest)


class NFNet(nn.Module):
    def __init__(self, drop_path_rate: float = 0.2, classes: int = 1000) -> None:
        super().__init__()
        drops = (drop_path_rate * i / 12 for i in range(12))  # stochastic depth, linear in the index of the block
        self.stem = nn.ModuleList(
            [
                StandardiseConv2d(3, 16, 3, stride=2),  # 16 x 96 x 96
                StandardiseConv2d(16, 32, 3),  # 32 x 96 x 96
                StandardiseConv2d(32, 64, 3),  # 64 x 96 x 96
                StandardiseConv2d(64, 128, 3, stride=2),  # 128 x 48 x 48
            ]
        )
        self.stage = nn.ModuleList(
            [
                stage(NFBlock, 128, 256, repeats=1, beta=1.0, drops=drops),  # 256 x 48 x 48
                stage(
                    NFBlock, 256, 512, repeats=2, beta=(1 + 0.2**2 * 1) ** -0.5, stride=2, drops=drops
                ),  # 512 x 24 x 24
                stage(
                    NFBlock, 512, 1536, repeats=6, beta=(1 + 0.2**2 * 2) ** -0.5, stride=2, drops=drops
                ),  # 1536 x 12 x 12
                stage(
                    NFBlock, 1536, 1536, repeats=3, beta=(1 + 0.2**2 * 6) ** -0.5, stride=2, drops=drops
                ),  # 1536 x 6 x 6
            ]
        )
        self.final = StandardiseConv2d(1536, 3072, 1)  # 3072 x 6 x 6
        self.fc = nn.Linear(3072, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, stem in enumerate(self.stem):
            x = stem(x)
            if i < 3:
                x = F.gelu(x)
        for stage in self.stage:
            x = stage(x)
        x = self.final(x)
        x = F.gelu(x)
        x = x.mean((2, 3))
        return self.fc(x)
