"""Scales and biases of a packed file under many policies, without network IRs.

The class of a scale or a bias (:mod:`ajpq.packed.numbers`) depends on the row, its width, and the
grid of the layer's input. All are looked up in a table, and only their histogram is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True, eq=False)
class RowTable:
    """All rows of the layers of a network, at every width and with BatchNorm folded in.

    Attributes:
        scales: ``[8, R]`` float32, not rounded yet; ``biases`` likewise.
        scale_in: ``[R]`` float32, of the edge that each row reads.
        real_in: ``[R]`` bool: that edge is not quantized.
        lengths: number of rows of each layer.
    """

    scales: np.ndarray
    biases: np.ndarray
    scale_in: np.ndarray
    real_in: np.ndarray
    lengths: np.ndarray

    def counts(self, widths: np.ndarray) -> np.ndarray:
        """``[2, 64]`` how often each class of scales and of biases occurs at ``widths [R]``."""
        live = np.flatnonzero(widths)
        column = _COLUMN[widths[live]]
        found = self._integer[:, column, live]
        if FLOAT_BITS in widths:
            starts = np.cumsum(self.lengths) - self.lengths
            widest = np.maximum.reduceat(widths, starts)
            real = np.repeat(widest == FLOAT_BITS, self.lengths)[live]
            found = np.where(real, self._exact[:, column, live], found)
        return np.stack([np.bincount(own, minlength=_CLASSES) for own in found])

    @cached_property
    def _integer(self) -> np.ndarray:
        """``[2, 8, R]`` classes in layers of codes alone, shifted to 0..63."""
        short = integer_rows(self.scales, self.biases, self.scale_in)
        exact = self.scales, self.biases
        chosen = [np.where(self.real_in, *pair) for pair in zip(exact, short, strict=True)]
        return self._classes(*chosen)

    @cached_property
    def _exact(self) -> np.ndarray:
        """The same in layers with rows of real values."""
        return self._classes(self.scales, self.biases)

    def _classes(self, scales: np.ndarray, biases: np.ndarray) -> np.ndarray:
        pair = of_scales(scales), of_biases(biases, self.scale_in * scales)
        return np.stack([own.classes for own in pair]).astype(np.int64) + _CLASSES // 2


Rows = tuple[np.ndarray, np.ndarray]
"""``[8, O]`` float32 scales of all rows of a layer at every width, and ``[O]`` biases."""


def all_rows(problem: Problem, layer: Layer) -> Rows:
    """Rows of a layer's uncompressed weights."""
    fusion = next(own for own in problem.graph.fusions if own.node is layer.node)
    factor, offset = folded(problem.graph, problem.state, fusion)
    weight = problem.state[layer.node.parameters["weight"]]
    made = [
        problem.codes(weight, torch.full((layer.channels,), width))[1].numpy()
        for width in _WIDTHS[:-1]
    ]
    scales = np.stack([*made, np.ones(layer.channels)]).astype(np.float64) * factor
    return scales.astype(np.float32), offset.astype(np.float32)


def row_table(
    named: Sequence[Layer], rows: Mapping[str, Rows], kept: Masks, sources: Mapping[str, Edge]
) -> RowTable:
    """The rows that stay.

    Args:
        named: layers in execution order.
        rows: :func:`all_rows` of each.
        sources: the edge that each reads.
    """
    stay = [kept[layer.node.output] for layer in named]
    own = [rows[layer.name] for layer in named]
    lengths = np.array([int(mask.sum()) for mask in stay])
    edges = [sources[layer.name] for layer in named]
    scales = np.concatenate([pair[0][:, mask] for pair, mask in zip(own, stay, strict=True)], 1)
    biases = np.concatenate([pair[1][mask] for pair, mask in zip(own, stay, strict=True)])
    return RowTable(
        scales,
        np.broadcast_to(biases, scales.shape),
        np.repeat(np.array([edge.scale for edge in edges], np.float32), lengths),
        np.repeat([edge.bits == FLOAT_BITS for edge in edges], lengths),
        lengths,
    )
