"""A network as a user might write one, for ``benchmarks/exports.py``: grouped, joined, added.

Every block of a stage computes a grouped and a plain convolution of the same input and
concatenates them; a pointwise one mixes the halves, and the input is added again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 4
WIDTHS = (32, 64, 128)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    """Convolution without bias, then BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """Two branches side by side, joined, mixed, and added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.grouped = conv_bn(channels, half, 3, groups=GROUPS)
        self.plain = conv_bn(channels, half, 3)
        self.mix = conv_bn(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([F.relu(self.grouped(x)), F.relu6(self.plain(x))], 1)
        return F.relu(self.mix(joined) + x)


def network(in_channels: int, classes: int) -> nn.Module:
    """Three stages of one block each behind strided convolutions."""
    layers: list[nn.Module] = []
    channels = in_channels
    for number, width in enumerate(WIDTHS):
        layers += [
            conv_bn(channels, width, 3, stride=1 if number == 0 else 2),
            nn.ReLU(),
            Block(width),
        ]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
