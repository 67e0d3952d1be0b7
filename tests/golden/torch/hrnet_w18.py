"""HRNet, variant w18: input 3 x 224 x 224, 21,299,004 parameters, 4.28 G multiply-adds.

Compiled by effspec from 13_hrnet.eff, function d5f79bf9f388; effspec digest 85b1b965b133f84b.
"""

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


class ConvNorm(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = nn.Identity() if in_channels == out_channels else ConvNorm(in_channels, out_channels)
        self.a = ConvNormAct(in_channels, out_channels // 4)
        self.b = ConvNormAct(out_channels // 4, out_channels // 4, 3)
        self.c = ConvNorm(out_channels // 4, out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.downsample(x)
        x = self.a(x)
        x = self.b(x)
        x = self.c(x)
        x = x + residual
        return self.act(x)


class Adapt(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, out_channels, 3) if in_channels != out_channels else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Transition(nn.Module):
    """Adapt the branches to `widths`, the last new one by a stride from the lowest resolution."""

    def __init__(self, in_channels: list[int], widths: list[int]) -> None:
        super().__init__()
        self.conv = nn.ModuleList([Adapt(in_channels[i], widths[i]) for i in range(len(in_channels))])
        self.new = ConvNormAct(in_channels[-1], widths[-1], 3, stride=2)

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        kept = [conv(x) for conv, x in zip(self.conv, branches)]
        return kept + [self.new(branches[-1])]


class Basic(nn.Module):
    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.a = ConvNormAct(out_channels, out_channels, 3)
        self.b = ConvNorm(out_channels, out_channels, 3)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.a(x)
        x = self.b(x)
        x = x + shortcut
        return self.act(x)


class Branch(nn.Module):
    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*[Basic(out_channels) for _ in range(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Exchange(nn.Module):
    """Carry branch `src` to the resolution and width of branch `dst`."""

    def __init__(self, src: int, dst: int, widths: list[int]) -> None:
        super().__init__()
        self.src = src
        self.dst = dst
        if src > dst:
            self.conv = ConvNorm(widths[src], widths[dst])
            self.scale = 2 ** (src - dst)
        elif src < dst:
            self.down = nn.Sequential(
                *[ConvNormAct(widths[src], widths[src], 3, stride=2) for _ in range(dst - src - 1)]
            )
            self.last = ConvNorm(widths[src], widths[dst], 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.src > self.dst:
            x = self.conv(x)
            x = F.interpolate(x, scale_factor=self.scale, mode="nearest")
        elif self.src < self.dst:
            x = self.down(x)
            x = self.last(x)
        return x


class Module(nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.branch = nn.ModuleList([Branch(width) for width in widths])
        n = len(widths)
        self.fuse = nn.ModuleList(
            [nn.ModuleList([Exchange(src=j, dst=i, widths=widths) for j in range(n)]) for i in range(n)]
        )
        self.act = nn.ReLU()

    def forward(self, branches: list[torch.Tensor]) -> list[torch.Tensor]:
        xs = [branch(x) for branch, x in zip(self.branch, branches)]
        return [self.act(sum(fuse(x) for fuse, x in zip(fuses.children(), xs))) for fuses in self.fuse]


class Down(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class Final(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class HRNet(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem1 = ConvNormAct(3, 64, 3, stride=2)  # 64 x 112 x 112
        self.stem2 = ConvNormAct(64, 64, 3, stride=2)  # 64 x 56 x 56
        self.stage1 = nn.Sequential(Bottleneck(64, 256), *[Bottleneck(256, 256) for _ in range(3)])  # 256 x 56 x 56
        self.transition = nn.ModuleList(
            [
                Transition([256], widths=[18, 36]),
                Transition([18, 36], widths=[18, 36, 72]),
                Transition([18, 36, 72], widths=[18, 36, 72, 144]),
            ]
        )
        self.stage = nn.ModuleDict(
            {
                "2": nn.Sequential(Module(widths=[18, 36])),
                "3": nn.Sequential(*[Module(widths=[18, 36, 72]) for _ in range(4)]),
                "4": nn.Sequential(*[Module(widths=[18, 36, 72, 144]) for _ in range(3)]),
            }
        )
        self.widen = nn.ModuleList(
            [
                Bottleneck(18, 128),  # 128 x 56 x 56
                Bottleneck(36, 256),  # 256 x 28 x 28
                Bottleneck(72, 512),  # 512 x 14 x 14
                Bottleneck(144, 1024),  # 1024 x 7 x 7
            ]
        )
        self.down = nn.ModuleList(
            [
                Down(128, 256),  # 256 x 28 x 28
                Down(256, 512),  # 512 x 14 x 14
                Down(512, 1024),  # 1024 x 7 x 7
            ]
        )
        self.final = Final(1024, 2048)  # 2048 x 7 x 7
        self.classifier = nn.Linear(2048, classes)  # 1000
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem1(x)
        x = self.stem2(x)
        x = self.stage1(x)
        xs = [x]
        for transition, stage in zip(self.transition, self.stage.values()):
            xs = transition(xs)
            xs = stage(xs)
        heads = [widen(x) for widen, x in zip(self.widen, xs)]
        x = heads[0]
        for down, h in zip(self.down, heads[1:]):
            x = down(x)
            x = x + h
        x = self.final(x)
        x = x.mean((2, 3))
        return self.classifier(x)
