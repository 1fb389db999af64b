"""Builds small networks whose edges have realistic ranges, one operator at a time."""

from __future__ import annotations

import numpy as np
import torch

from ajpq.reference import simulate
from hw_models.network import Edge, Network, Operator, Weights

IMAGE = (3, 12, 12)


def random_images(count: int, seed: int = 5, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    """Smooth pictures: float32 ``[N, C, H, W]``, about normalised."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, shape[0], -(-shape[1] // 3), -(-shape[2] // 3)))
    images = coarse.repeat(3, 2).repeat(3, 3)[:, :, : shape[1], : shape[2]]
    return (images + 0.2 * rng.normal(size=images.shape)).astype(np.float32)


def random_weights(
    rng: np.random.Generator, shape: tuple[int, ...], bits: np.ndarray, step: float
) -> Weights:
    """Gaussian rows on their own grids; scales have both signs.

    Biases are whole numbers of steps of their row, ``step`` being the input's scale: that is all
    that an int32 bias can hold.
    """
    rows = (-1, *[1] * (len(shape) - 1))
    sizes = np.sqrt(2 / np.prod(shape[1:])) * rng.uniform(0.5, 1.5, shape[0])
    real = rng.normal(size=shape) * sizes.reshape(rows)
    top = np.maximum(2.0 ** (np.where(bits == 32, 8, bits) - 1) - 1, 1)
    scales = np.abs(real).reshape(shape[0], -1).max(1) / top * rng.choice([-1, 1], shape[0])
    scales = np.where(bits == 32, 1, np.where(bits == 0, 0, scales)).astype(np.float32)
    codes = np.where((bits == 0).reshape(rows), 0, real / np.where(scales, scales, 1).reshape(rows))
    codes = np.where((bits == 32).reshape(rows), codes, np.rint(codes))
    bias = np.where(bits == 0, 0, 0.1 * rng.normal(size=shape[0]))
    grid = np.where(bits == 32, 1e-9, np.float32(step) * np.where(scales, scales, 1))
    bias = (np.rint(bias / grid) * grid).astype(np.float32)
    kind = np.float32 if 32 in bits else np.int8
    return Weights((codes + 0.0).astype(kind), scales, bits.astype(np.uint8), bias)


class Builder:
    """Grows a network; every method returns the name of the new edge."""

    def __init__(self, seed: int = 0, shape: tuple[int, ...] = IMAGE) -> None:
        self.rng = np.random.default_rng(seed)
        self.images = random_images(64, seed=1, shape=shape)
        scale = float(np.float32(np.abs(self.images).max() / 127))
        self.edges = {"input": Edge("input", shape, 8, True, scale)}
        self.operators: list[Operator] = []

    def network(self, output: str) -> Network:
        """The network so far, ending at an edge."""
        return Network("built", "input", output, dict(self.edges), tuple(self.operators))

    def layer(
        self,
        kind: str,
        source: str,
        channels: int,
        *,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        groups: int = 1,
        widths: tuple[int, ...] = (8,),
        **edge,
    ) -> str:
        """A conv, linear or affine; the rows take ``widths`` in turn."""
        edges = self.edges[source]
        bits = np.resize(widths, channels)
        attributes = {}
        shape: tuple[int, ...] = (channels, edges.shape[0])
        output: tuple[int, ...] = (channels,)
        if kind == "affine":
            shape, output = (channels, 1, 1, 1), edges.shape
        if kind == "conv":
            attributes = {
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "groups": groups,
            }
            shape = (channels, edges.shape[0] // groups, *kernel)
            reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
            sizes = zip(edges.shape[1:], reach, stride, padding, strict=True)
            output = (channels, *((n + 2 * p - r - 1) // s + 1 for n, r, s, p in sizes))
        weights = random_weights(self.rng, shape, bits, edges.scale)
        return self.add(kind, (source,), output, attributes, weights, **edge)

    def add(
        self,
        kind: str,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        attributes: dict | None = None,
        weights: Weights | None = None,
        *,
        activation: str | None = None,
        bits: int = 8,
        scale: float | None = None,
    ) -> str:
        """Any operator whose output has a grid of its own, measured unless ``scale`` is given."""
        name = f"{kind}{len(self.operators)}"
        self.edges[name] = Edge(name, shape)
        self.operators.append(
            Operator(name, kind, inputs, name, attributes or {}, weights, activation)
        )
        function = (attributes or {}).get("function", activation)
        signed = function in (None, "hardswish", "silu")
        if bits < 32:
            edge = Edge(name, shape, bits, signed, 1.0)
            if scale is None:
                values = simulate(self.network(name), torch.from_numpy(self.images))
                scale = float(np.float32(0.8 * float(values.abs().max()) / edge.code_range[1]))
            self.edges[name] = Edge(name, shape, bits, signed, scale)
        return name

    def move(self, kind: str, inputs: tuple[str, ...], shape: tuple[int, ...], **attributes) -> str:
        """An operator that only moves codes."""
        name = f"{kind}{len(self.operators)}"
        old = self.edges[inputs[0]]
        self.edges[name] = Edge(name, shape, old.bits, old.signed, old.scale)
        self.operators.append(Operator(name, kind, inputs, name, attributes))
        return name

    def classifier(self, source: str, classes: int = 10, **layer) -> Network:
        """Average, flatten, linear: logits."""
        channels = self.edges[source].shape[0]
        bits = max(8, self.edges[source].bits)
        pooled = self.add("globalavgpool", (source,), (channels, 1, 1), bits=bits)
        flat = self.move("flatten", (pooled,), (channels,))
        return self.network(self.layer("linear", flat, classes, bits=32, **layer))
