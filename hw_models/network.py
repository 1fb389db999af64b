"""The network IR: a compressed network as hardware sees it, free of torch.

One object feeds targets, exporters, the packed loader, the reference simulation and the MAC
counter. Real values never appear inside: an edge holds integer codes and a scale
(``real = scale * code``, zero point 0), a weight row holds integer codes and a scale in which
BatchNorm is already folded.

======================  ==========================================================================
operator kind           attributes (shapes without the batch dimension)
======================  ==========================================================================
``conv``                ``stride`` (h, w), ``padding`` (h, w) on both sides, ``dilation`` (h, w),
                        ``groups``; weights ``[O, I/groups, kH, kW]``
``linear``              weights ``[O, I]``; the input edge has shape ``(I,)``
``affine``              one factor and bias per channel (a BatchNorm that no convolution absorbs);
                        weights ``[C, 1, 1, 1]``; not counted as MACs
``activation``          ``function``: ``relu``, ``relu6``, ``hardswish``, ``hardsigmoid``,
                        ``sigmoid`` or ``silu``
``requantize``          the same values on the grid of the output: what a layer reads that wants
                        fewer bits than its neighbours
``add``, ``mul``        two inputs; ``mul`` broadcasts a second input of shape
                        ``(C, 1, 1)`` or ``(C,)`` over space
``concat``              along channels, any number of inputs
``select``              ``index``: the input channel of every output channel, -1 for a zero channel
``subsample``           ``stride`` (h, w): every h-th row, every w-th column
``pad``                 ``padding`` (left, right, top, bottom) with zeros
``maxpool``             ``kernel``, ``stride``, ``padding`` (h, w), ``ceil_mode``
``avgpool``             the same and ``count_include_pad``
``globalavgpool``       output shape ``(C, 1, 1)``
``flatten``             ``(C, H, W)`` to ``(C * H * W,)``, channels outermost
======================  ==========================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = frozenset(
    [
        "conv",
        "linear",
        "affine",
        "activation",
        "requantize",
        "add",
        "mul",
        "concat",
        "select",
        "subsample",
        "pad",
        "maxpool",
        "avgpool",
        "globalavgpool",
        "flatten",
    ]
)
ACTIVATIONS = frozenset(["relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu"])
FLOAT_BITS = 32


@dataclass(frozen=True)
class Edge:
    """A tensor between two operators.

    Attributes:
        shape: ``(C, H, W)`` or ``(C,)``.
        bits: width of a code, 2..8; 32 means real values, and then ``scale`` is 1.
        signed: codes in ``[-(2**(bits-1) - 1), 2**(bits-1) - 1]``, otherwise ``[0, 2**bits - 1]``.
        scale: real value of one code step.
    """

    name: str
    shape: tuple[int, ...]
    bits: int = FLOAT_BITS
    signed: bool = True
    scale: float = 1.0

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        if self.signed:
            top = 2 ** (self.bits - 1) - 1
            return -top, top
        return 0, 2**self.bits - 1


@dataclass(frozen=True, eq=False)
class Weights:
    """Rows of a layer; row ``o`` makes output channel ``o``.

    Attributes:
        codes: ``[O, ...]`` int8; float32 if any row is 32 bits wide (such a row holds real values).
        scales: ``[O]`` float32, real weight = code * scale, BatchNorm folded in (may be negative).
        bits: ``[O]`` uint8, the width of each row; 0 is a zero row with zero bias.
        bias: ``[O]`` float32, real values.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Operator:
    """One operation. ``activation`` is fused after it and before its output is put on codes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    activation: str | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """Operators in execution order and the edges between them."""

    name: str
    input: str
    output: str
    edges: Mapping[str, Edge]
    operators: tuple[Operator, ...]

    @property
    def layers(self) -> tuple[Operator, ...]:
        """The operators that multiply and accumulate: convolutions and linear layers."""
        return tuple(op for op in self.operators if op.kind in ("conv", "linear"))


def row_macs(network: Network, operator: Operator) -> int:
    """Multiply-accumulates that one output channel of a layer costs for one image."""
    assert operator.weights is not None
    positions = math.prod(network.edges[operator.output].shape[1:])
    return positions * math.prod(operator.weights.codes.shape[1:])


def macs(network: Network) -> int:
    """Multiply-accumulates of the layers for one image, zero rows that still exist included."""
    total = 0
    for op in network.layers:
        assert op.weights is not None
        total += row_macs(network, op) * len(op.weights.bits)
    return total


BOPS_CONVENTIONS = {"fl32": 32, "fl8": 8, "all": 0}


def bops(network: Network) -> dict[str, int]:
    """Bit operations of one image in the three conventions (MACs x weight bits x input bits).

    ``fl32`` prices the first and the last layer at no less than 32 bits, ``fl8`` at no less than 8,
    ``all`` as quantized. A zero row that was not removed is priced like the widest row of its
    layer, because hardware still computes it.
    """
    totals = dict.fromkeys(BOPS_CONVENTIONS, 0)
    outer = {op.name for op in (*network.layers[:1], *network.layers[-1:])}
    for op in network.layers:
        assert op.weights is not None
        rows = op.weights.bits.astype(np.int64)
        rows[rows == 0] = rows.max(initial=0)
        inputs, each = network.edges[op.inputs[0]].bits, row_macs(network, op)
        inside = each * int(rows.sum()) * inputs
        for name, floor in BOPS_CONVENTIONS.items():
            if op.name in outer:
                totals[name] += each * int(np.maximum(rows, floor).sum()) * max(inputs, floor)
            else:
                totals[name] += inside
    return totals


def bops_sparse(network: Network) -> int:
    """Bit operations of one image, as quantized, of the weights that are not zero.

    What hardware would do that skips every single zero; no target here does.
    """
    total = 0
    for op in network.layers:
        assert op.weights is not None
        positions = math.prod(network.edges[op.output].shape[1:])
        each = np.count_nonzero(op.weights.codes.reshape(len(op.weights.codes), -1), axis=1)
        rows = each.astype(np.int64) * op.weights.bits.astype(np.int64)
        total += positions * int(rows.sum()) * network.edges[op.inputs[0]].bits
    return total
