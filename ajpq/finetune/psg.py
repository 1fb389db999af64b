"""Position-based scaled gradients (PSG).

Source: Kim, Yoo, Kwak, "Position-based Scaled Gradient for Model Quantization and Pruning",
arXiv 2005.11035. Every weight's gradient is multiplied by its distance to a target point, so
weights far from the grid move freely and weights near it stay. To first order this is gradient
descent after warping the weight space by ``f`` with ``s(x) = 1 / f'(x)**2``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from ajpq.quantizers import Quantizer, rows, snap

Distance = Callable[[Tensor], Tensor]
"""Weights ``[C, ...]`` -> how far each is from its target, same shape, not negative."""
Scaling = Literal["separable", "normalised"]


def zero_distance(weight: Tensor) -> Tensor:
    """The sparse form: one target, zero, so that any share of the weights can be pruned later."""
    return weight.abs()


def channel_distance(weight: Tensor) -> Tensor:
    """The sparse form for whole channels without BatchNorm: the root mean square of the weights.

    An extension of ours: the paper prunes single weights. All weights of a channel share the
    channel's distance to zero, so that weak channels stay weak and any share can be pruned later.
    """
    rms = weight.flatten(1).square().mean(1).sqrt()
    return rows(rms, weight).expand_as(weight).clone()


def grid_distance(bits: Tensor, scales: Tensor, quantizer: Quantizer) -> Distance:
    """The multi-target form: the distance to the nearest point of each channel's own grid.

    Args:
        bits: ``[C]`` widths; rows of 0 bits have the single target 0, rows of 32 bits are their
            own target (only ``eps`` moves them).
        scales: ``[C]`` step of each channel's grid.
        quantizer: the rule that puts a weight on the grid.
    """

    def distance(weight: Tensor) -> Tensor:
        return (weight - snap(weight, bits, quantizer.encode(weight, bits, scales), scales)).abs_()

    return distance


class PSGD(Optimizer):
    """Wraps any optimizer and scales gradients by ``lambda_s * (distance(x) + eps)``.

    The wrapped optimizer's groups and state are shared, so learning-rate schedulers and
    checkpoints treat the pair as one optimizer. Parameters without a distance are not scaled, and
    weight decay never is, because the wrapped optimizer adds it.

    Args:
        inner: the optimizer that takes the step.
        distances: parameter -> function giving the distance of its elements to their targets;
            may be replaced between steps (grids are fitted again at every epoch).
        lambda_s: strength; 150 in the paper for 4 bits on CIFAR-100.
        eps: keeps weights that sit on their target movable.
        scaling: ``"normalised"`` divides the distance by its largest value in the tensor.

    Raises:
        ValueError: ``lambda_s`` is not positive or ``eps`` is negative.
    """

    def __init__(
        self,
        inner: Optimizer,
        distances: Mapping[Tensor, Distance],
        *,
        lambda_s: float = 150.0,
        eps: float = 1e-4,
        scaling: Scaling = "separable",
    ) -> None:
        if lambda_s <= 0 or eps < 0:
            raise ValueError(f"expected lambda_s > 0 and eps >= 0, got {lambda_s=}, {eps=}")
        super().__init__(inner.param_groups, inner.defaults)
        self.inner = inner
        self.param_groups = inner.param_groups
        self.state = inner.state
        self.distances = dict(distances)
        self._lambda_s = lambda_s
        self._eps = eps
        self._scaling = scaling

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Scale the gradients, then let the wrapped optimizer step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = [weight for weight in self.distances if weight.grad is not None]
        distances = [self.distances[weight](weight) for weight in weights]
        if self._scaling == "normalised":
            distances = [d / d.max().clamp_min(torch.finfo(d.dtype).tiny) for d in distances]
        if weights:
            torch._foreach_add_(distances, self._eps)
            torch._foreach_mul_(distances, self._lambda_s)
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            torch._foreach_mul_(gradients, distances)
        self.inner.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the wrapped optimizer's parameters."""
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State of the wrapped optimizer; PSG itself has none."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the wrapped optimizer."""
        self.inner.load_state_dict(state_dict)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
