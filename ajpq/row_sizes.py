"""Bits of scales and biases in a packed file under many policies, without network IRs.

The class of a scale or a bias (:mod:`ajpq.packed.numbers`) depends on the row, its width, and the
grid of the layer's input. All are looked up in a table, and only their histogram is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ajpq.folding import folded, integer_rows
from ajpq.graph.channels import Masks
from ajpq.graph.structure import Layer
from ajpq.packed.numbers import CLASS_BITS, of_biases, of_scales
from ajpq.problem import Problem
from hw_models.network import FLOAT_BITS, Edge

_WIDTHS = (2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)
_COLUMN = np.zeros(FLOAT_BITS + 1, np.int64)
_COLUMN[list(_WIDTHS)] = range(len(_WIDTHS))
_CLASSES = 2**CLASS_BITS

Rows = tuple[np.ndarray, np.ndarray]
"""``[8, O]`` float32 scales of a layer's rows at every width, and their ``[8, O]`` biases."""


@dataclass(frozen=True, eq=False)
class RowTable:
    """Classes of all rows of the layers in a network, shifted to 0..63.

    Attributes:
        classes: ``[2, 2, 8, R]`` in layers that are integer, and in those that are not: classes of
            scales and of biases, at every width.
        lengths: number of rows of each layer.
    """

    classes: np.ndarray
    lengths: tuple[int, ...]

    def counts(self, widths: np.ndarray) -> np.ndarray:
        """``[2, 64]`` how often each class of scales and of biases occurs at ``widths [R]``."""
        real = np.zeros(len(widths), np.int64)
        if FLOAT_BITS in widths:
            starts = np.cumsum([0, *self.lengths[:-1]])
            real = np.repeat(np.maximum.reduceat(widths, starts) == FLOAT_BITS, self.lengths) + 0
        live = np.flatnonzero(widths)
        found = self.classes[real[live], :, _COLUMN[widths[live]], live]
        return np.stack([np.bincount(own, minlength=_CLASSES) for own in found.T])


def all_rows(problem: Problem, layer: Layer) -> Rows:
    """Scales and biases of a layer's uncompressed weights, BatchNorm folded in, not yet rounded."""
    fusion = next(own for own in problem.graph.fusions if own.node is layer.node)
    factor, offset = folded(problem.graph, problem.state, fusion)
    weight = problem.state[layer.node.parameters["weight"]]
    made = [
        problem.codes(weight, torch.full((layer.channels,), width))[1].numpy()
        for width in _WIDTHS[:-1]
    ]
    scales = np.stack([*made, np.ones(layer.channels)]).astype(np.float64) * factor
    bias = np.broadcast_to(offset.astype(np.float32), scales.shape)
    return scales.astype(np.float32), bias


def row_table(
    named: Sequence[Layer], rows: Mapping[str, Rows], kept: Masks, sources: Mapping[str, Edge]
) -> RowTable:
    """The classes of the rows that stay.

    Args:
        named: layers in execution order.
        rows: :func:`all_rows` of each.
        sources: the edge that each reads.
    """
    own = [
        _classes(rows[layer.name], kept[layer.node.output], sources[layer.name]) for layer in named
    ]
    none = np.zeros((2, 2, len(_WIDTHS), 0), np.int64)
    return RowTable(
        np.concatenate([none, *own], axis=-1), tuple(found.shape[-1] for found in own)
    )


def _classes(rows: Rows, kept: np.ndarray, source: Edge) -> np.ndarray:
    exact = rows[0][:, kept], rows[1][:, kept]
    integer = exact if source.bits == FLOAT_BITS else integer_rows(*exact, source)
    found = [
        (of_scales(scales), of_biases(bias, np.float32(source.scale) * scales))
        for scales, bias in (integer, exact)
    ]
    return np.stack([[own.classes for own in pair] for pair in found]).astype(np.int64) + _CLASSES // 2
