"""Grids fitted to the weights at the start of every epoch, gradients passing straight through."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from ajpq.compressed import fit_scales, step_name
from ajpq.finetune.goal import Moment
from ajpq.methods.base import Method, Own, Settled
from ajpq.quantizers import Quantizer, straight_through


@final
class StraightThrough(Method):
    """The straight-through estimator (Bengio et al., arXiv 1308.3432) on the quantizer's grids.

    Its steps are not learned, but fitted anew at the start of every epoch and once more in the end.
    """

    layer_roles: ClassVar[tuple[str, ...]] = ("step",)

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {"step": quantizer.fit(weight, bits)}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        return straight_through(weight, bits, own["step"], quantizer)

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`."""
        return Settled(weight)

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        goal = moment.goal
        fitted = fit_scales(moment.graph, moment.state, goal.bits, goal.quantizer)
        return {step_name(layer): steps for layer, steps in fitted.items()}
