"""CoDeQ: a quantizer whose dead zone, and if wanted whose width, is learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from ajpq.compressed import own_name
from ajpq.finetune.goal import Moment
from ajpq.graph.structure import layers
from ajpq.methods.activations import straight
from ajpq.methods.base import STORED, Group, Method, Own, Settled, is_narrow
from ajpq.quantizers import Quantizer, rows, straight_through

_LAST = 2 ** (STORED - 1) - 1
_TERNARY = 2
_REACH = 0.99
_LEAST_STEP = 1e-8


@final
class CoDeQ(Method):
    """CoDeQ (Wenshoj, Chen, Pepin, Selvan, arXiv 2512.12981), see :func:`dead_zone`.

    A layer has one dead zone and one width. Weight decay pulls the dead-zone logits to zero, which
    widens the dead zones until everything is pruned; the loss pulls the other way. So the decay is
    the one number that sets the sparsity. Width logits are pulled towards 2 bits likewise.

    Levels are not multiples of one step, hence training rounds them to the 8-bit grid whose last
    code is the highest level, and gradients ignore that. Such rows are 8 bits wide in the end,
    ternary ones 2. A channel without a weight outside the dead zone is pruned, in training too.

    Different from the published code: ``absmax`` is taken at the start of every epoch, not in every
    step, and rows of 8 bits (the layers that the code excludes by name) keep the quantizer's grid.
    Activations, which the code leaves alone, have LSQ's steps where they are of less than 8 bits.

    Attributes:
        dead_zone: how the dead-zone logits are trained; its weight decay sets the sparsity.
        width: how the width logits are.
        activation_step: how the steps of such activations are.
        max_bits: widths are learned, at most this, whatever width below 8 the policy has; None:
            they stay as the policy has them.
        start_logit: all logits at first; 3 is nearly no dead zone and nearly the largest width.
    """

    dead_zone: Group = Group(learning_rate=1e-4, weight_decay=2.0)
    width: Group = Group(learning_rate=1e-4, weight_decay=3.0)
    activation_step: Group = Group()
    max_bits: int | None = Field(default=None, ge=2, le=STORED)
    start_logit: float = Field(default=3.0, gt=0)
    layer_roles: ClassVar[tuple[str, ...]] = ("step", "dead_zone_logit", "width_logit")
    narrow_only: ClassVar[bool] = True
    undone_by_others: ClassVar[bool] = True

    def keeping_widths(self) -> CoDeQ | None:
        """As of :class:`Method`; none if they are learned."""
        return self if self.max_bits is None else None

    @property
    def groups(self) -> Mapping[str, Group]:
        """As of :class:`Method`."""
        trained = {"dead_zone_logit": self.dead_zone}
        return trained if self.max_bits is None else {**trained, "width_logit": self.width}

    @property
    def edge_groups(self) -> Mapping[str, Group]:
        """As of :class:`Method`."""
        return {"step": self.activation_step}

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        logits = {role: torch.tensor(self.start_logit) for role in self.groups}
        return {"step": grids(weight, bits, quantizer), **logits}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        step, widths = rows(own["step"], weight), rows(self._widths(bits, own), weight)
        levels = dead_zone(weight, _LAST * step, own["dead_zone_logit"], widths)
        made = straight(levels, (levels.detach() / step).round() * step)
        narrow = is_narrow(bits)
        if narrow.all():
            return made
        alone = straight_through(weight, bits, own["step"], quantizer)
        return torch.where(rows(narrow, weight), made, alone)

    def living(self, bits: Tensor, made: Tensor) -> Tensor:
        """As of :class:`Method`."""
        return torch.where(is_narrow(bits) & ~made.detach().flatten(1).any(1), 0, bits)

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`: rows of 8 bits, or 2, or none."""
        made, narrow = self.quantized(weight, bits, own, quantizer), is_narrow(bits)
        ternary = narrow & (self._widths(bits, own) == _TERNARY)
        stored = torch.where(ternary, _TERNARY, torch.where(narrow, STORED, bits))
        return Settled(
            torch.where(rows(narrow, weight), made, weight),
            torch.where(ternary, _LAST * own["step"], own["step"]),
            torch.where(self.living(bits, made) == 0, 0, stored),
        )

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {
            own_name(layer.name, "step"): grids(
                moment.state[layer.node.parameters["weight"]],
                moment.goal.bits[layer.name],
                moment.goal.quantizer,
            )
            for layer in layers(moment.graph)
        }

    def _widths(self, bits: Tensor, own: Own) -> Tensor:
        """``[O]`` real widths of the rows that have a dead zone; of the others any."""
        if self.max_bits is None:
            return bits.clamp(_TERNARY, STORED).float()
        width = (self.max_bits - _TERNARY) * own["width_logit"].tanh().abs() + _TERNARY
        return straight(width, width.detach().round()).expand(len(bits))


def dead_zone(weight: Tensor, absmax: Tensor, logit: Tensor, bits: Tensor) -> Tensor:
    """Weights on the levels ``step * q + shift * sign(q)``, ``q`` from ``-Q`` to ``Q``.

    ``Q`` is ``2**(bits - 1) - 1``. Zero are the weights within ``absmax * (1 - |tanh(logit)|)`` of
    zero; the highest level is ``absmax``. Rounding, clipping and the ReLU pass gradients on as they
    are, so pruned and clipped weights keep theirs; they reach ``logit`` and ``bits`` through
    ``step`` and ``shift``.

    Source: ``DeadZoneLDZCompander`` of the code of arXiv 2512.12981.

    Args:
        weight: ``[O, ...]``.
        absmax: where weights are clipped, without a gradient; broadcasts.
        logit: ``[]``.
        bits: whole numbers from 2, real; broadcasts.
    """
    last = 2 ** (bits - 1) - 1
    width = 2 * absmax * (1 - logit.tanh().abs())
    step = (absmax - width / 2) / (last - 0.5) + _LEAST_STEP
    shift = width / 2 - step / 2
    beyond = weight.abs() - shift
    position = weight.sign() * straight(beyond, beyond.detach().relu()) / step
    codes = torch.maximum(torch.minimum(position.detach().round(), last), -last)
    q = straight(position, codes.detach())
    return step * q + shift * q.sign()


@torch.no_grad()
def grids(weight: Tensor, bits: Tensor, quantizer: Quantizer) -> Tensor:
    """``[O]`` steps: where there is a dead zone, the last of 8-bit codes is at the 0.99 quantile of
    the layer's magnitudes (of such rows)."""
    steps, narrow = quantizer.fit(weight, bits), is_narrow(bits)
    if not narrow.any():
        return steps
    absmax = torch.quantile(weight[narrow].abs().flatten().float(), _REACH)
    return torch.where(narrow, absmax.clamp_min(_LEAST_STEP) / _LAST, steps)
