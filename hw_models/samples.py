"""Small networks in the IR, with random codes, to try whatever reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hw_models.network import FLOAT_BITS, Edge, Network, Operator, Weights

INPUT_SCALE = 0.02


def random_weights(
    shape: tuple[int, ...], rng: np.random.Generator, bits: int = 8, gain: float = 1.0
) -> Weights:
    """Rows of one width; outputs spread about ``gain`` times as far as inputs do."""
    top = 2 ** (min(bits, 8) - 1) - 1
    codes = np.clip(np.rint(rng.normal(0, top / 3, shape)), -top, top)
    fan_in = int(np.prod(shape[1:]))
    rows = rng.uniform(0.7, 1.3, shape[0]) * gain * 3 / (top * np.sqrt(fan_in))
    bias = rng.normal(0, 0.2, shape[0])
    return Weights(
        codes.astype(np.float32 if bits == FLOAT_BITS else np.int8),
        rows.astype(np.float32),
        np.full(shape[0], bits, np.uint8),
        bias.astype(np.float32),
    )


class NetworkBuilder:
    """Chains operators; every method returns the name of the edge that it makes."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng = rng
        self.edges = {"input": Edge("input", shape, 8, True, INPUT_SCALE)}
        self.operators: list[Operator] = []

    def add(
        self,
        kind: str,
        inputs: tuple[str, ...],
        edge: Edge,
        *,
        weights: Weights | None = None,
        activation: str | None = None,
        **attributes: Any,
    ) -> str:
        """Any operator; ``edge`` is its output, the operator gets the edge's name."""
        self.edges[edge.name] = edge
        self.operators.append(
            Operator(edge.name, kind, inputs, edge.name, attributes, weights, activation)
        )
        return edge.name

    def name(self, kind: str) -> str:
        """A name that is not taken yet."""
        return f"{kind}{len(self.operators)}"

    def like(self, source: str, kind: str, shape: tuple[int, ...]) -> Edge:
        """A new edge on the grid of another."""
        old = self.edges[source]
        return Edge(self.name(kind), shape, old.bits, old.signed, old.scale)

    def conv(
        self,
        source: str,
        channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bits: int = 8,
        activation: str | None = "relu",
        name: str | None = None,
        weights: Weights | None = None,
        scale: float | None = None,
    ) -> str:
        """A convolution; unsigned output after relu, relu6 and hardsigmoid."""
        depth, *size = self.edges[source].shape
        padding = dilation * (kernel // 2) if padding is None else padding
        reach = dilation * (kernel - 1) + 1
        rows, columns = ((s + 2 * padding - reach) // stride + 1 for s in size)
        if weights is None:
            shape = (channels, depth // groups, kernel, kernel)
            weights = random_weights(shape, self.rng, bits)
        edge = Edge(
            name or self.name("conv"),
            (channels, rows, columns),
            8,
            activation in (None, "hardswish", "silu"),
            scale or (0.015 if activation == "relu" else 0.03),
        )
        return self.add(
            "conv",
            (source,),
            edge,
            weights=weights,
            activation=activation,
            stride=(stride, stride),
            padding=(padding, padding),
            dilation=(dilation, dilation),
            groups=groups,
        )

    def join(self, first: str, second: str, activation: str | None = "relu") -> str:
        """A residual sum."""
        shape = self.edges[first].shape
        edge = Edge(self.name("add"), shape, 8, activation is None, 0.02)
        return self.add("add", (first, second), edge, activation=activation)

    def head(self, source: str, classes: int, bits: int = 8) -> str:
        """Global average, flatten, linear layer with real outputs."""
        channels = self.edges[source].shape[0]
        pooled = self.like(source, "pool", (channels, 1, 1))
        pooled = Edge(pooled.name, pooled.shape, 8, pooled.signed, pooled.scale * 0.6)
        pool = self.add("globalavgpool", (source,), pooled)
        flat = self.add("flatten", (pool,), self.like(pool, "flat", (channels,)))
        return self.linear(flat, classes, bits=bits)

    def linear(self, source: str, classes: int, *, bits: int = 8) -> str:
        """The last linear layer."""
        weights = random_weights((classes, self.edges[source].shape[0]), self.rng, bits)
        return self.add("linear", (source,), Edge("logits", (classes,)), weights=weights)

    def build(self, output: str, name: str = "tiny") -> Network:
        """The network that ends in ``output``."""
        edges: Mapping[str, Edge] = dict(self.edges)
        return Network(name, "input", output, edges, tuple(self.operators))


def conv_network(
    *,
    bits: int = 8,
    channels: int = 8,
    rng: np.random.Generator | None = None,
    name: str = "tiny",
) -> Network:
    """Two convolutions, global average and a linear layer, for images of 3 x 8 x 8."""
    b = NetworkBuilder((3, 8, 8), rng or np.random.default_rng(0))
    first = b.conv("input", channels, bits=bits)
    second = b.conv(first, 2 * channels, stride=2, bits=bits)
    return b.build(b.head(second, 4, bits), name)


def residual_network(*, bits: int = 8) -> Network:
    """One residual block and a linear layer; the sum keeps the channels of its second layer."""
    b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
    stem = b.conv("input", 16, bits=bits)
    inner = b.conv(stem, 16, bits=bits)
    branch = b.conv(inner, 16, bits=bits, activation=None)
    return b.build(b.head(b.join(branch, stem), 4, bits), "residual")


def grouped_network(*, bits: int = 8) -> Network:
    """A depthwise, a pointwise and a grouped convolution."""
    b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
    x = b.conv("input", 16, bits=bits)
    x = b.conv(x, 16, groups=16, bits=bits)
    x = b.conv(x, 24, kernel=1, bits=bits)
    x = b.conv(x, 16, groups=2, bits=bits)
    return b.build(b.head(x, 4, bits), "grouped")


def with_widths(
    network: Network, rng: np.random.Generator, widths: Sequence[int], name: str
) -> Network:
    """The network with rows of random widths; codes are cut to what each width holds."""
    operators = []
    for op in network.operators:
        if op.weights is not None and op.kind in ("conv", "linear"):
            bits = rng.choice(list(widths), len(op.weights.bits)).astype(np.uint8)
            top = np.where(bits > 0, 2.0 ** (np.maximum(bits, 1) - 1.0) - 1, 0)
            top = top.reshape(-1, *[1] * (op.weights.codes.ndim - 1))
            codes = np.clip(op.weights.codes, -top, top).astype(op.weights.codes.dtype)
            bias = np.where(bits > 0, op.weights.bias, 0).astype(np.float32)
            weights = replace(op.weights, bits=bits, codes=codes, bias=bias)
            operators.append(replace(op, weights=weights))
        else:
            operators.append(op)
    return replace(network, operators=tuple(operators), name=name)


def resnet20_network(
    keep: float = 1.0, bits: int = 8, rng: np.random.Generator | None = None
) -> Network:
    """The shape of CIFAR ResNet-20 with option-A shortcuts and random codes.

    Args:
        keep: share of the channels inside the blocks; the residual streams keep theirs.
        bits: width of all weights but those of the first and last layer.
        rng: makes the codes; seed 0 if it is not given.
    """
    b = NetworkBuilder((3, 32, 32), rng or np.random.default_rng(0))
    x = b.conv("input", 16, name="conv1")
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            inner = max(1, round(width * keep))
            x = _basic_block(b, x, f"layer{stage}.{block}", (inner, width), bits)
    return b.build(b.head(x, 10), "resnet20")


def _basic_block(b: NetworkBuilder, x: str, name: str, widths: tuple[int, int], bits: int) -> str:
    inner, width = widths
    channels, height, wide = b.edges[x].shape
    stride = 1 if channels == width else 2
    y = b.conv(x, inner, stride=stride, bits=bits, name=f"{name}.conv1")
    y = b.conv(y, width, bits=bits, activation=None, name=f"{name}.conv2")
    if stride == 2:
        half = b.like(x, "subsample", (channels, height // 2, wide // 2))
        x = b.add("subsample", (x,), half, stride=(2, 2))
        margin = (-1,) * ((width - channels) // 2)
        index = np.array([*margin, *range(channels), *margin])
        x = b.add("select", (x,), b.like(x, "select", (width, height // 2, wide // 2)), index=index)
    return b.join(y, x)
