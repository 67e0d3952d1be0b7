"""EfficientDet, variant d0: input 3 x 512 x 512, 3,880,067 parameters, 2.49 G multiply-adds.

Compiled by effspec from 14_efficientdet.eff, function 8a96f15d41f8; effspec digest 72ca8fdfbdf9c901.
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
        return x * (keep / (1 - self.rate))


def pad_same(x: torch.Tensor, kernel_size: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """TensorFlow's padding: the odd row and column are at the bottom and to the right."""
    height, width = (max((-(-n // stride) - 1) * stride + kernel_size - n, 0) for n in x.shape[-2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2), value=value)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding, which depends on the size of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(pad_same(x, self.kernel_size[0], self.stride[0]))


class ConvNormAct(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, eps=0.001)
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
        self.norm = nn.BatchNorm2d(out_channels, eps=0.001)

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


class EfficientNet(nn.Module):
    """The model of b0.eff without what follows stage7; returns stage3, stage5 and stage7."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNormAct(3, 32, 3, stride=2)  # 32 x 256 x 256
        drops = (0.2 * i / 16 for i in range(16))  # stochastic depth, linear in the index of the block
        self.stage1 = stage(MBConv, 32, 16, repeats=1, expand=1, drops=drops)  # 16 x 256 x 256
        self.stage2 = stage(MBConv, 16, 24, repeats=2, stride=2, drops=drops)  # 24 x 128 x 128
        self.stage3 = stage(MBConv, 24, 40, repeats=2, kernel_size=5, stride=2, drops=drops)  # 40 x 64 x 64
        self.stage4 = stage(MBConv, 40, 80, repeats=3, stride=2, drops=drops)  # 80 x 32 x 32
        self.stage5 = stage(MBConv, 80, 112, repeats=3, kernel_size=5, drops=drops)  # 112 x 32 x 32
        self.stage6 = stage(MBConv, 112, 192, repeats=4, kernel_size=5, stride=2, drops=drops)  # 192 x 16 x 16
        self.stage7 = stage(MBConv, 192, 320, repeats=1, drops=drops)  # 320 x 16 x 16

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = self.stem(x)
        x = self.stage1(x)
        x = self.stage2(x)
        stage3 = x = self.stage3(x)
        x = self.stage4(x)
        stage5 = x = self.stage5(x)
        x = self.stage6(x)
        stage7 = self.stage7(x)
        return stage3, stage5, stage7


class Resample(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.active = in_channels != out_channels
        if self.active:
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.norm = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.active:
            x = self.conv(x)
            x = self.norm(x)
        return x


class FastSum(nn.Module):
    """Fast normalised fusion."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        w = F.relu(self.weight)
        total = w.sum(0, keepdim=True)
        parts = w.split(1)
        return sum(x * p / (total + 1e-4) for x, p in zip(xs, parts))


class SepConv(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, norm: bool = True) -> None:
        super().__init__()
        self.dw = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pw = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels, eps=0.001) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.pw(self.dw(x)))


class Fuse(nn.Module):
    def __init__(self, inputs: int, out_channels: int) -> None:
        super().__init__()
        self.fuse = FastSum(inputs)
        self.act = nn.SiLU()
        self.conv = SepConv(out_channels, out_channels)

    def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
        return self.conv(self.act(self.fuse(xs)))


class BiFPN(nn.Module):
    """One top-down and one bottom-up pass over any number of levels, fine to coarse."""

    def __init__(self, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([Resample(channels, out_channels) for channels in in_channels])
        n = len(in_channels)
        self.up = nn.ModuleList([Fuse(2, out_channels) for _ in range(n - 1)])
        self.relateral = nn.ModuleDict({str(i): Resample(in_channels[i], out_channels) for i in range(1, n)})
        self.down = nn.ModuleDict({str(i): Fuse(3 if i < n - 1 else 2, out_channels) for i in range(1, n)})

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        n = len(levels)
        cols = [lateral(x) for lateral, x in zip(self.lateral, levels)]
        x = cols[-1]
        up = []
        for i in reversed(range(n - 1)):
            small = F.interpolate(x, size=cols[i].shape[-2:], mode="nearest")
            x = self.up[i]([cols[i], small])
            up.append(x)
        tops = up[::-1]
        x = tops[0]
        down = []
        for i in range(1, n):
            small = F.max_pool2d(pad_same(x, 3, 2, value=-torch.inf), 3, 2)
            own = self.relateral[str(i)](levels[i])
            x = self.down[str(i)]([own, small] + ([tops[i]] if i < n - 1 else []))
            down.append(x)
        return [tops[0]] + down


class Head(nn.Module):
    """The levels share every convolution; each level has its own normalisation."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ModuleList([SepConv(64, 64, norm=False) for _ in range(3)])
        self.norm = nn.ModuleList([nn.ModuleList([nn.BatchNorm2d(64, eps=0.001) for _ in range(5)]) for _ in range(3)])
        self.act = nn.SiLU()
        self.predict = SepConv(64, out_channels, norm=False)

    def forward(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        for conv, norms in zip(self.conv, self.norm):
            xs = [conv(x) for x in xs]
            xs = [norm(x) for norm, x in zip(norms.children(), xs)]
            xs = [self.act(x) for x in xs]
        return [self.predict(x) for x in xs]


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


class EfficientDet(nn.Module):
    def __init__(self, classes: int = 90, anchors: int = 9) -> None:
        super().__init__()
        self.backbone = EfficientNet()
        self.p6 = Resample(320, 64)  # 64 x 16 x 16
        self.cell = nn.Sequential(
            BiFPN([40, 112, 320, 64, 64], 64), *[BiFPN([64, 64, 64, 64, 64], 64) for _ in range(2)]
        )
        self.box_head = Head(4 * anchors)
        self.class_head = Head(classes * anchors)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        stage3, stage5, stage7 = self.backbone(x)
        p6 = F.max_pool2d(pad_same(self.p6(stage7), 3, 2, value=-torch.inf), 3, 2)
        p7 = F.max_pool2d(pad_same(p6, 3, 2, value=-torch.inf), 3, 2)
        xs = self.cell([stage3, stage5, stage7, p6, p7])
        boxes = self.box_head(xs)
        scores = self.class_head(xs)
        return boxes, scores
