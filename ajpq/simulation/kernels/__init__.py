"""How a convolution of codes is computed where speed counts: by float32, or by int8 instructions.

Both give the codes of the reference but for ties and rounding; :func:`fastest` picks what this
processor does best.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ajpq.simulation.kernels.floats import FloatKernels
from ajpq.simulation.kernels.int8 import Int8Kernels
from hw_models.network import Edge, Operator

__all__ = ["FloatKernels", "Int8Kernels", "Kernels", "fastest", "int8_in_hardware"]

Step = Callable[..., Tensor]


class Kernels(Protocol):
    """One way to keep codes on an edge and to compute operators from them.

    Attributes:
        images_at_once: whose activations caches hold.
    """

    @property
    def images_at_once(self) -> int:
        """See above."""
        ...

    def store(self, codes: Tensor, edge: Edge) -> Tensor:
        """Float32 codes, or real values on a real edge, as this way keeps them."""
        ...

    def load(self, stored: Tensor, edge: Edge) -> Tensor:
        """Float32 codes or real values; not to be written to."""
        ...

    def layer(self, op: Operator, source: Edge, out: Edge) -> Step:
        """A convolution or linear layer with a clamping activation or none, stored to stored."""
        ...

    def rescale(self, op: Operator, source: Edge, out: Edge) -> Step:
        """Codes onto another grid, through a clamping function or none, stored to stored."""
        ...

    def add(
        self, op: Operator, left: Edge, right: Edge, out: Edge, spare: int | None = None
    ) -> Step:
        """An ``add`` with a clamping activation or none, stored to stored.

        Args:
            spare: which of the two (0 or 1) may be written over; None: neither.
        """
        ...

    def move(self, op: Operator, inputs: Sequence[Edge], out: Edge) -> Step:
        """An operator that only moves codes, stored to stored."""
        ...


@functools.cache
def int8_in_hardware() -> bool:
    """Does this processor add products of bytes without saturating in between (VNNI or AMX)?"""
    capable = torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()
    return bool(capable) and hasattr(torch.ops.onednn, "qconv2d_pointwise")


@functools.cache
def fastest() -> Kernels:
    """What this processor does best."""
    return Int8Kernels() if int8_in_hardware() else FloatKernels()
