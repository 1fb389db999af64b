"""Pruning ternary quantization (PTQ): rows of 2 bits, most of them zeros."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ajpq.compressed import own_name
from ajpq.finetune.goal import Moment
from ajpq.graph.structure import layers
from ajpq.methods.activations import straight
from ajpq.methods.base import Group, Method, Own, Settled
from ajpq.methods.lsq import fitted_steps
from ajpq.quantizers import Quantizer, learned_step, rows


@final
class PTQ(Method):
    """PTQ (Liu, Chen, Fu, Ma, Liu, "Pruning Ternary Quantization", arXiv 2107.10998).

    A row ``w`` of 2 bits becomes ``a * t``: weights that are small after L2 normalisation,
    ``|w| / ||w|| < threshold``, are pruned, ``t`` holds the signs of the ``k`` others, and
    ``a = <w, t> / k`` projects ``w`` onto the direction ``t`` with the least squared error. Left
    to itself a row keeps as many weights as bring ``t`` closest to it, see
    :func:`best_thresholds`; asked for a sparsity, all rows of the network share one threshold, so
    that long rows lose more weights than short ones. Thresholds are found anew at the start of
    every epoch, and gradients reach pruned weights too, which may come back. Rows of more bits
    are trained as by LSQ.

    From the paper's abstract are normalisation, pruning, projection, a refined straight-through
    estimator, and weight decay against what that estimator neglects. Reconstructions:

    - the estimator: pruning and projection of the normalised row are passed straight through, its
      length has its true derivative. The gradient of ``w`` is ``g + w <g, a * t - w> / ||w||**2``,
      which is exact along ``w`` itself.
    - the decay: it pulls weights to their projection; ``decay * (w - a * t)`` joins the gradient.
    - the schedule: sparsity grows along a cubic (Zhu and Gupta, arXiv 1710.01878), from the share
      of zeros that the best thresholds make.
    - the row as the unit: a scale for each costs no bytes, because rows have scales of their own
      once BatchNorm is folded into them, and under BatchNorm the length of a row means nothing.

    Attributes:
        sparsity: share of zeros among the weights of all 2-bit rows; None: as many as is closest.
        ramp_epochs: over so many epochs the sparsity grows to what is asked for.
        decay: of the distance to the projection.
        step: how the steps of rows with more bits are trained.
    """

    sparsity: float | None = Field(default=None, ge=0, lt=1)
    ramp_epochs: int = Field(default=10, ge=0)
    decay: float = Field(default=1e-3, ge=0)
    step: Group = Group()
    layer_roles: ClassVar[tuple[str, ...]] = ("step", "threshold")
    undone_by_others: ClassVar[bool] = True

    @property
    def groups(self) -> Mapping[str, Group]:
        """As of :class:`Method`."""
        return {"step": self.step}

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        steps = fitted_steps(weight, bits, quantizer)
        return {"step": steps, "threshold": best_thresholds(weight)}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        ternary = rows(bits == 2, weight)
        made = projected(weight, own["threshold"])
        pulled: Tensor = _Pulled.apply(made, weight, self.decay * ternary)
        return torch.where(ternary, pulled, learned_step(weight, bits, own["step"], quantizer))

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """The projections themselves: no rounding would find them again."""
        made = projected(weight, own["threshold"])
        scales = made.abs().flatten(1).amax(1)
        steps = torch.where((bits == 2) & (scales > 0), scales, own["step"])
        return Settled(torch.where(rows(bits == 2, weight), made, weight), steps)

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """Thresholds for the present weights."""
        found, ternary = {}, []
        for layer in layers(moment.graph):
            weight = moment.state[layer.node.parameters["weight"]]
            found[own_name(layer.name, "threshold")] = best_thresholds(weight)
            ternary.append(weight[moment.goal.bits[layer.name] == 2])
        ternary = [weight for weight in ternary if len(weight)]
        if self.sparsity is None or not ternary:
            return found
        share = self.share(moment.epoch, ternary)
        threshold = shared_threshold(ternary, share)
        return {name: torch.full_like(own, threshold) for name, own in found.items()}

    def share(self, epoch: int, weights: Iterable[Tensor]) -> float:
        """Zeros that an epoch asks for: from what is closest along a cubic to ``sparsity``."""
        assert self.sparsity is not None
        left = max(0.0, 1 - epoch / self.ramp_epochs) if self.ramp_epochs else 0.0
        zeros = torch.cat([(directions(w, best_thresholds(w)) == 0).flatten() for w in weights])
        return self.sparsity + (float(zeros.float().mean()) - self.sparsity) * left**3


def normalised(weight: Tensor) -> Tensor:
    """``[O, ...]`` rows of length 1; zeros stay."""
    return weight / rows(lengths(weight), weight)


def lengths(weight: Tensor) -> Tensor:
    """``[O]`` L2 norms, not quite zero."""
    return weight.flatten(1).norm(dim=1).clamp_min(torch.finfo(weight.dtype).tiny)


def best_thresholds(weight: Tensor) -> Tensor:
    """``[O]`` thresholds of normalised sizes with which ``t`` is closest to every row.

    With sizes in falling order, the cosine between ``w`` and ``t`` is
    ``(|w_1| + ... + |w_k|) / (||w|| sqrt(k))``; the best ``k`` makes it largest. No other ternary
    vector comes closer, and weights of equal size are kept or pruned together. A threshold lies
    halfway between the smallest size that is kept and the next one.
    """
    sizes = normalised(weight).abs().flatten(1).sort(1, descending=True).values
    counts = torch.arange(1, sizes.shape[1] + 1, device=weight.device)
    best = (sizes.cumsum(1) / counts.sqrt()).argmax(1, keepdim=True)
    halfway = (sizes + F.pad(sizes, (0, 1))[:, 1:]) / 2
    return halfway.gather(1, best).squeeze(1)


def shared_threshold(weights: Iterable[Tensor], share: float) -> float:
    """The threshold of all rows together that leaves this share of their weights below it."""
    sizes = torch.cat([normalised(weight).abs().flatten() for weight in weights])
    pruned = min(int(share * len(sizes)), len(sizes) - 1)
    ends = [float(sizes.kthvalue(k).values) if k else 0.0 for k in (pruned, pruned + 1)]
    return sum(ends) / 2


def directions(weight: Tensor, thresholds: Tensor) -> Tensor:
    """``t [O, ...]``: signs of what is kept, zeros elsewhere."""
    return weight.sign() * (normalised(weight).abs() >= rows(thresholds, weight))


def projected(weight: Tensor, thresholds: Tensor) -> Tensor:
    """``a * t`` with the refined gradient of :class:`PTQ`."""
    length = rows(lengths(weight), weight)
    unit = weight / length
    t = directions(weight.detach(), thresholds)
    kept = t.abs().flatten(1).sum(1)
    scales = (unit.detach() * t).flatten(1).sum(1) / kept.clamp_min(1)
    return straight(unit, rows(scales, weight) * t) * length


class _Pulled(torch.autograd.Function):
    """``made`` forward; backward the ``weight`` also gets the pull of a weight decay to it."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, weight: Tensor, decay: Tensor) -> Tensor:
        ctx.save_for_backward(decay * (weight - made))
        return made.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (pull,) = ctx.saved_tensors
        return gradients[0], pull, None
