"""ResNet-20/32/44/56/110 for 32 x 32 images: He et al., "Deep Residual Learning" (2015), 4.2.

Parameter names and arithmetic are those of the checkpoints published in
akamaster/pytorch_resnet_cifar10, so these load without translation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGE_WIDTHS = (16, 32, 64)


class OptionAShortcut(nn.Module):
    """Every second pixel, the missing channels zero, half of them before and half behind.

    The shortcut without parameters, option A of He et al. (2015), section 3.3.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.before, self.behind = missing // 2, missing - missing // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.behind))


def projection_shortcut(in_channels: int, out_channels: int) -> nn.Module:
    """Every second pixel through a 1 x 1 convolution: option B of He et al. (2015)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), nn.BatchNorm2d(out_channels)
    )


Shortcut = Callable[[int, int], nn.Module]
"""Input and output channels -> what leads around a block of stride 2."""


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same_shape else shortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of ``blocks`` residual blocks, 16, 32 and 64 channels wide.

    Args:
        blocks: blocks per stage; the network has ``6 * blocks + 2`` layers.
        in_channels: channels of the image.
        classes: number of logits.
        shortcut: what leads around the first block of the second and the third stage.
    """

    def __init__(
        self,
        blocks: int,
        in_channels: int,
        classes: int,
        shortcut: Shortcut = OptionAShortcut,
    ) -> None:
        super().__init__()
        narrow, middle, wide = STAGE_WIDTHS
        self.conv1 = nn.Conv2d(in_channels, narrow, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.layer1 = _stage(narrow, narrow, blocks, 1, shortcut)
        self.layer2 = _stage(narrow, middle, blocks, 2, shortcut)
        self.layer3 = _stage(middle, wide, blocks, 2, shortcut)
        self.linear = nn.Linear(wide, classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(
        first, *(BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(1, blocks))
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
