"""UNet, variant base: input 3 x 256 x 256, 31,037,698 parameters, 48.17 G multiply-adds.

Compiled by effspec from 15_unet.eff, function d96693a7ac0a; effspec digest de7d5b607df4650e.
"""

import torch
from torch import nn
from torch.nn import functional as F


class ConvNormAct(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.norm(self.conv(x)))


class Double(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.a = ConvNormAct(in_channels, out_channels)
        self.b = ConvNormAct(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


class UNet(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [
                Double(3, 64),  # 64 x 256 x 256
                Double(64, 128),  # 128 x 128 x 128
                Double(128, 256),  # 256 x 64 x 64
                Double(256, 512),  # 512 x 32 x 32
            ]
        )
        self.bottom = Double(512, 1024)  # 1024 x 16 x 16
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(1024, 512, 2, stride=2),  # 512 x 32 x 32
                nn.ConvTranspose2d(512, 256, 2, stride=2),  # 256 x 64 x 64
                nn.ConvTranspose2d(256, 128, 2, stride=2),  # 128 x 128 x 128
                nn.ConvTranspose2d(128, 64, 2, stride=2),  # 64 x 256 x 256
            ]
        )
        self.fuse = nn.ModuleList(
            [
                Double(1024, 512),  # 512 x 32 x 32
                Double(512, 256),  # 256 x 64 x 64
                Double(256, 128),  # 128 x 128 x 128
                Double(128, 64),  # 64 x 256 x 256
            ]
        )
        self.head = nn.Conv2d(64, classes, 1)  # 2 x 256 x 256
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.ConvTranspose2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, fuse, skip in zip(self.up, self.fuse, skips[::-1]):
            x = up(x)
            x = torch.cat([skip, x], dim=1)
            x = fuse(x)
        return self.head(x)
