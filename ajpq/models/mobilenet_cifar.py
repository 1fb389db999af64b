"""MobileNetV2 (Sandler et al., 2018) for small images."""

from __future__ import annotations

from torch import nn
from torchvision.models import MobileNetV2

# Expansion, channels, repeats, stride: table 2 of the paper with the first stride 2 made 1, as is
# the custom for 32 x 32 images. With the stem at stride 1 the last map is 4 x 4.
SMALL_IMAGE_STAGES = [
    [1, 16, 1, 1],
    [6, 24, 2, 1],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
]


def cifar_mobilenet_v2(width: float, in_channels: int, classes: int) -> nn.Module:
    """MobileNetV2 with a stem of stride 1.

    Args:
        width: multiplier of all channel counts, which are rounded to multiples of 8.
        in_channels: channels of the image.
        classes: number of logits.
    """
    model = MobileNetV2(
        num_classes=classes, width_mult=width, inverted_residual_setting=SMALL_IMAGE_STAGES
    )
    stem = nn.Conv2d(in_channels, model.features[0][0].out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    model.features[0][0] = stem
    return model
