"""Quantizers by name. A new one is a file here and a line in ``QUANTIZERS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ajpq.policy import QuantizerSpec
from ajpq.quantizers.uniform import UniformQuantizer, last_code
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.network import FLOAT_BITS

__all__ = [
    "QUANTIZERS",
    "Estimator",
    "Quantizer",
    "last_code",
    "learned_step",
    "make_quantizer",
    "rows",
    "snap",
    "straight_through",
]


class Quantizer(Protocol):
    """A map from real weights to codes and scales, row by row."""

    @property
    def name(self) -> str:
        """Key in ``QUANTIZERS``."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever equal weights would get other codes."""
        ...

    def fit(self, weight: Tensor, bits: Tensor) -> Tensor:
        """Scales ``[C]`` of the grids of ``weight [C, ...]`` at ``bits [C]``."""
        ...

    def encode(self, weight: Tensor, bits: Tensor, scales: Tensor) -> Tensor:
        """Codes ``[C, ...]`` int8 on given grids."""
        ...

    def quantize(self, weight: Tensor, bits: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[C, ...]`` int8 and scales ``[C]`` of ``weight [C, ...]`` at ``bits [C]``."""
        ...


Estimator = Callable[[Tensor, Tensor, Tensor, Quantizer], Tensor]
"""(weight, bits, scales, quantizer) -> quantized weights with a gradient."""

QUANTIZERS: dict[str, Callable[..., Quantizer]] = {"uniform": UniformQuantizer}


def make_quantizer(spec: QuantizerSpec) -> Quantizer:
    """Build the quantizer that a policy names.

    Raises:
        UnknownNameError: no quantizer has this name.
        AjpqError: the version or a parameter is unknown.
    """
    if spec.name not in QUANTIZERS:
        raise UnknownNameError("quantizer", spec.name, QUANTIZERS)
    try:
        quantizer = QUANTIZERS[spec.name](**spec.params)
    except (TypeError, ValueError) as error:
        raise AjpqError(f"quantizer {spec.name!r}: {error}") from error
    if quantizer.version != spec.version:
        raise AjpqError(
            f"quantizer {spec.name!r} is at version {quantizer.version}, "
            f"the policy wants version {spec.version}"
        )
    return quantizer


def rows(values: Tensor, weight: Tensor) -> Tensor:
    """``[C]`` values reshaped so that they broadcast over the rows of ``weight [C, ...]``."""
    return values.view(-1, *[1] * (weight.dim() - 1))


def snap(weight: Tensor, bits: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """Real weights of the codes: zero at 0 bits, the weight itself at 32 bits."""
    on_grid = codes.to(weight.dtype) * rows(scales, weight)
    return torch.where(rows(bits == 32, weight), weight, on_grid)


def straight_through(weight: Tensor, bits: Tensor, scales: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantized weights whose gradient reaches ``weight`` unchanged; pruned rows get none.

    Source: straight-through estimator, Bengio et al., arXiv 1308.3432.
    """
    with torch.no_grad():
        snapped = snap(weight, bits, quantizer.encode(weight, bits, scales), scales)
        live = rows(bits != 0, weight).to(weight.dtype)
    return weight * live + (snapped - weight * live).detach()


def learned_step(weight: Tensor, bits: Tensor, steps: Tensor, quantizer: Quantizer) -> Tensor:
    """Quantized weights whose gradient reaches ``weight`` and the ``steps [C]`` of its grids.

    A weight beyond the last code gets no gradient, its step gets the code instead. The gradient of
    a step is divided by ``sqrt(weights in the row * last code)``.

    Source: LSQ, Esser et al., arXiv 1902.08153, equations 3 and 5 and section 2.2.
    """
    with torch.no_grad():
        codes = quantizer.encode(weight, bits, steps).to(weight.dtype)
        last = last_code(bits)
        share = rows((last * weight[0].numel()).rsqrt(), weight)
        size = rows(steps, weight)
        inside = ((weight / size).abs() < rows(last, weight)) & rows(bits != 0, weight)
    size = rows(steps, weight)
    size = size * share + (size * (1 - share)).detach()
    position = torch.where(inside, weight / size, codes)
    on_grid = (position + (codes - position).detach()) * size
    return torch.where(rows(bits == FLOAT_BITS, weight), weight, on_grid)
