"""Small PyTorch networks with every structure that pruning has to respect, for tests.

``NETWORKS`` maps a name to a builder; all take ``[N, 3, 12, 12]`` images and give 5 logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq.apply import ActivationRange
from ajpq.graph.execute import execute
from ajpq.graph.structure import Graph, layers, nonnegative_edges
from ajpq.graph.trace import trace
from ajpq.policy import CompressionPolicy, LayerPolicy

IMAGE = (3, 12, 12)
CLASSES = 5


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    """Convolution without bias, then BatchNorm."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class OptionABlock(nn.Module):
    """CIFAR ResNet block whose shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra), "constant", 0)
        return F.relu(y + x)


class OptionANet(nn.Module):
    """Two stages of two blocks: the CIFAR ResNets in small."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = OptionABlock(width, width)
        self.layer2 = nn.Sequential(
            OptionABlock(width, 2 * width, 2), OptionABlock(2 * width, 2 * width)
        )
        self.linear = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


class ConcatNet(nn.Module):
    """DenseNet-like: pre-activation BatchNorm behind a concatenation, overlapping pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.grow1 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.left = conv_bn(10, 5, 1)
        self.right = conv_bn(10, 3, 3)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        x = torch.cat([x, self.grow1(F.relu(self.norm1(x)))], 1)
        pooled = F.avg_pool2d(x, 3, 1, 1)
        x = torch.cat([F.relu(self.left(x)), F.relu6(self.right(pooled))], 1)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """MobileNetV2 block; ``gate`` adds squeeze-excite on 1 x 1 convolutions."""

    def __init__(self, inputs: int, hidden: int, outputs: int, gate: int = 0) -> None:
        super().__init__()
        self.expand = conv_bn(inputs, hidden, 1)
        self.depthwise = conv_bn(hidden, hidden, 3, groups=hidden)
        self.project = conv_bn(hidden, outputs, 1)
        self.squeeze = nn.Conv2d(hidden, gate, 1) if gate else None
        self.excite = nn.Conv2d(gate, hidden, 1) if gate else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.expand(x))
        y = F.relu6(self.depthwise(y))
        if self.squeeze is not None and self.excite is not None:
            pooled = F.adaptive_avg_pool2d(y, 1)
            y = F.hardsigmoid(self.excite(F.relu(self.squeeze(pooled)))) * y
        y = self.project(y)
        return x + y if x.shape == y.shape else y


class DepthwiseNet(nn.Module):
    """Inverted residuals with a linear bottleneck: an addition without an activation."""

    def __init__(self, gate: int = 0) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6, 3, stride=2)
        self.blocks = nn.Sequential(
            InvertedResidual(6, 12, 6, gate), InvertedResidual(6, 10, 8, gate)
        )
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.hardswish(self.stem(x)))
        return self.head(x.mean([2, 3]))


class GroupedNet(nn.Module):
    """ResNeXt-like: a grouped convolution between two pointwise ones, a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.reduce = conv_bn(8, 12, 1)
        self.grouped = conv_bn(12, 18, 3, groups=3, stride=2)
        self.expand = conv_bn(18, 8, 1)
        self.shortcut = conv_bn(8, 8, 1, stride=2)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.grouped(F.relu(self.reduce(x))))
        x = F.silu(self.expand(y) + self.shortcut(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class GatedNet(nn.Module):
    """Squeeze-excite as first published: linear layers and a view back to a map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.conv = conv_bn(8, 6, 3, stride=2)
        self.head = nn.Linear(6 * 3 * 3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        pooled = F.adaptive_avg_pool2d(x, 1).view(x.shape[0], 8)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(pooled))))
        x = x * gate.view(x.shape[0], 8, 1, 1)
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.head(F.dropout(x, training=self.training).flatten(1))


class ShuffleNet(nn.Module):
    """Channel split and shuffle; the head reads all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, stride=2)
        self.branch = conv_bn(4, 4, 1)
        self.mix = conv_bn(8, 4, 3, stride=2)
        self.head = nn.Linear(4 * 3 * 3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = F.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([kept, F.relu(self.branch(moved))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.head(F.relu(self.mix(x)).reshape(n, -1))


class FunctionalNet(nn.Module):
    """No submodules: bare parameters and functions, an explicit pad in front of a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(6, 3, 3, 3) * 0.3)
        self.second = nn.Parameter(torch.randn(6, 6, 3, 3) * 0.2)
        self.head = nn.Parameter(torch.randn(CLASSES, 6) * 0.4)
        self.offset = nn.Parameter(torch.randn(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.first, padding=1))
        x = F.relu_(F.conv2d(F.pad(x, (0, 1, 0, 1)), self.second, stride=2)).add_(x[:, :, ::2, ::2])
        return F.linear(x.mean((-1, -2)), self.head, self.offset)


class ConcatGroupedNet(nn.Module):
    """Grouped convolutions on both sides of a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.left = conv_bn(8, 8, 3, groups=2)
        self.right = nn.Conv2d(8, 4, 1)
        self.grouped = conv_bn(12, 12, 3, groups=4, stride=2)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([F.relu(self.left(x)), self.right(x)], 1)
        return self.head(F.relu(self.grouped(x)).mean((2, 3)))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "option_a": OptionANet,
    "concat": ConcatNet,
    "depthwise": DepthwiseNet,
    "squeeze_excite": lambda: DepthwiseNet(gate=3),
    "grouped": GroupedNet,
    "gated": GatedNet,
    "shuffle": ShuffleNet,
    "functional": FunctionalNet,
    "concat_grouped": ConcatGroupedNet,
}


def build(name: str, seed: int = 0) -> nn.Module:
    """A network of :data:`NETWORKS` in evaluation mode with random BatchNorm statistics."""
    torch.manual_seed(seed)
    return randomize_batchnorm(NETWORKS[name]()).eval()


def randomize_batchnorm(model: nn.Module) -> nn.Module:
    """Random factors, offsets and running statistics, so that folding errors show."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.1, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
    return model


@cache
def traced(name: str, seed: int = 0) -> tuple[Graph, dict[str, Tensor]]:
    """Graph and state dict of a network of :data:`NETWORKS`; shared, so do not change them."""
    model = build(name, seed)
    return trace(model, IMAGE), model.state_dict()


def images(count: int = 4, seed: int = 0) -> Tensor:
    """Random images for :data:`NETWORKS`."""
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed))


def minmax(weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
    """The simplest quantizer: each row's largest value gets the largest code."""
    shape = (-1,) + (1,) * (weight.dim() - 1)
    top = (2.0 ** (bits - 1) - 1).float()
    largest = weight.abs().flatten(1).amax(1)
    scales = torch.where(largest > 0, largest, torch.ones_like(largest)) / top
    top = top.view(shape)
    return (weight / scales.view(shape)).round().clamp(-top, top).to(torch.int8), scales


def ranges(graph: Graph, tensors: Mapping[str, Tensor], x: Tensor) -> dict[str, ActivationRange]:
    """Largest magnitudes of the edges on some images."""
    found: dict[str, float] = {}

    def record(edge: str, value: Tensor) -> Tensor:
        found[edge] = float(value.abs().max())
        return value

    with torch.no_grad():
        execute(graph, tensors, x, edge=record)
    unsigned = nonnegative_edges(graph)
    return {edge: ActivationRange(top, edge not in unsigned) for edge, top in found.items()}


def random_policy(
    graph: Graph, rng: np.random.Generator, widths: tuple[int, ...] = (0, 0, 2, 3, 4, 6, 8)
) -> CompressionPolicy:
    """A random width for every channel and every layer's input."""
    return CompressionPolicy(
        layers={
            layer.name: LayerPolicy(
                weight_bits=tuple(rng.choice(widths, layer.channels).tolist()),
                activation_bits=int(rng.integers(2, 9)),
            )
            for layer in layers(graph)
        }
    )


def pruning_policy(graph: Graph, pruned: Mapping[str, list[int]]) -> CompressionPolicy:
    """Eight bits everywhere, the given channels of the given layers pruned."""
    return CompressionPolicy(
        layers={
            layer.name: LayerPolicy(
                weight_bits=tuple(
                    0 if c in pruned.get(layer.name, ()) else 8 for c in range(layer.channels)
                )
            )
            for layer in layers(graph)
        }
    )
