"""Learned step size quantization (LSQ), the common baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from ajpq.methods.base import Group, Method, Own
from ajpq.quantizers import Quantizer, learned_step
from hw_models.errors import AjpqError


@final
class LSQ(Method):
    """LSQ (Esser et al., arXiv 1902.08153): the step of every grid is trained with the weights.

    Different from the paper: one step per output channel instead of one per layer, codes are
    symmetric, and steps start where the squared error is least.

    Attributes:
        step: how the steps of the weights are trained.
        activation_step: how those of the activations are.
    """

    step: Group = Group()
    activation_step: Group = Group()
    layer_roles: ClassVar[tuple[str, ...]] = ("step",)

    @property
    def groups(self) -> Mapping[str, Group]:
        """As of :class:`Method`."""
        return {"step": self.step}

    @property
    def edge_groups(self) -> Mapping[str, Group]:
        """As of :class:`Method`."""
        return {"step": self.activation_step}

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {"step": fitted_steps(weight, bits, quantizer)}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        return learned_step(weight, bits, own["step"], quantizer)


def fitted_steps(weight: Tensor, bits: Tensor, quantizer: Quantizer) -> Tensor:
    """``[O]`` steps to start from.

    Raises:
        AjpqError: the quantizer has one grid per tensor.
    """
    if getattr(quantizer, "granularity", "channel") != "channel":
        raise AjpqError("learned grids are one per channel; the quantizer wants one per tensor")
    return quantizer.fit(weight, bits)
