"""Element-wise gradient scaling (EWGS): discretization errors steer the gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from ajpq.compressed import edge_owner, own_name, own_of
from ajpq.finetune.goal import Moment
from ajpq.graph.structure import layers
from ajpq.methods.activations import mse_step, onto_codes, scaled_gradient
from ajpq.methods.base import Group, Method, Own, Settled, is_narrow
from ajpq.methods.curvature import Curvature, curvatures
from ajpq.methods.lsq import fitted_steps
from ajpq.methods.mid_rise import half_levels, mid_rise_codes, mid_rise_steps
from ajpq.quantizers import Quantizer, last_code, rows
from hw_models.network import FLOAT_BITS, Edge


@final
class EWGS(Method):
    """EWGS (Lee, Kim, Ham, "Network Quantization with Element-wise Gradient Scaling", CVPR 2021,
    arXiv 2104.00903).

    The quantizer maps a value to ``x`` in [0, 1], rounds it to ``x_q``, and on the way back
    multiplies the gradient ``g`` of ``x_q`` by ``1 + delta * sign(g) * (x - x_q)``: a value that
    has farther to go to the next level takes longer steps. ``delta`` is the same for a whole layer.
    It is fixed, or the mean curvature of the loss over a large gradient: ``trace(H) / N / G``, not
    below zero, where ``H`` is the Hessian of the loss with respect to the ``N`` values ``x_q`` and
    ``G`` three standard deviations of ``g``. The trace is estimated by Hutchinson's method:
    ``v . H v`` with random signs ``v``.

    Different from the paper: the interval ends are ``-Q`` and ``Q`` steps (0 and ``Q`` where
    nothing is negative), so one number is learned per output channel of a layer and per edge, the
    step, with LSQ's scaling of its gradient (the paper learns two ends per layer, and a factor
    behind every convolution, which BatchNorm makes superfluous); steps start where the squared
    error is least; the optimizer is the stage's.
    One product with the Hessian serves all layers and edges at once: their signs are independent of
    each other, so the terms between them are zero on average.

    Attributes:
        levels: of weights. ``mid_tread`` has the codes of the policy's widths: zero among them,
            ternary at 2 bits. ``mid_rise`` has the ``2**b`` levels of the paper, none of them zero,
            in rows of less than 8 bits; as multiples of half a step they are stored one bit wider.
        step: how the steps of the weights are trained.
        activation_step: how those of the activations are.
        delta: the fixed one.
        hessian_every: so many epochs apart the Hessian's trace is measured; None: ``delta`` stays.
        probes: products with the Hessian that are averaged each time.
    """

    levels: Literal["mid_tread", "mid_rise"] = "mid_tread"
    step: Group = Group()
    activation_step: Group = Group()
    delta: float = Field(default=1e-3, ge=0)
    hessian_every: int | None = Field(default=None, ge=1)
    probes: int = Field(default=3, ge=1)
    layer_roles: ClassVar[tuple[str, ...]] = ("step", "delta")
    edge_roles: ClassVar[tuple[str, ...]] = ("step", "delta")

    def keeping_widths(self) -> EWGS | None:
        """As of :class:`Method`; none with ``2**b`` levels, which ``b`` bits do not have here."""
        return self if self.levels == "mid_tread" else None

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
        steps = fitted_steps(weight, bits, quantizer)
        between = self._between(bits)
        if between.any():
            steps = torch.where(between, mid_rise_steps(weight, bits), steps)
        return {"step": steps, "delta": torch.tensor(self.delta)}

    def start_edge(self, values: Tensor, edge: Edge) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {"step": mse_step(values, edge), "delta": torch.tensor(self.delta)}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        last = rows(self._last(bits), weight)
        size = rows(own["step"].abs(), weight)
        size = scaled_gradient(size, (last * weight[0].numel()).rsqrt())
        position = weight / size
        codes = torch.maximum(torch.minimum(position.detach().round(), last), -last)
        between = rows(self._between(bits), weight)
        if between.any():
            odd = mid_rise_codes(position, rows(half_levels(bits), weight))
            codes = torch.where(between, odd, codes)
        inside = position.detach().abs() < last
        made = scaled_codes(position, codes, inside, own["delta"], 2 * last)
        live = rows((bits > 0) & (bits < FLOAT_BITS), weight)
        untouched = rows(bits == FLOAT_BITS, weight)
        return torch.where(live, made * size, torch.where(untouched, weight, 0.0))

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`."""
        between = self._between(bits)
        if not between.any():
            return Settled(weight, own["step"])
        made = self.quantized(weight, bits, own, quantizer)
        return Settled(
            torch.where(rows(between, weight), made, weight),
            torch.where(between, own["step"] / 2, own["step"]),
            torch.where(between, bits + 1, bits),
        )

    def _between(self, bits: Tensor) -> Tensor:
        """``[O]`` bool: rows whose levels lie half-way between whole steps."""
        return is_narrow(bits) & (self.levels == "mid_rise")

    def _last(self, bits: Tensor) -> Tensor:
        """``[O]`` the outermost level, in steps."""
        return torch.where(self._between(bits), half_levels(bits) - 0.5, last_code(bits))

    def quantized_edge(self, values: Tensor, edge: Edge, own: Own) -> Tensor:
        """As of :class:`Method`."""
        low, high = edge.code_range
        size = scaled_gradient(own["step"].abs(), (values[0].numel() * high) ** -0.5)
        position = values / size
        codes, inside = onto_codes(position, low, high)
        return scaled_codes(position, codes, inside, own["delta"], high - low) * size

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """New scaling factors, where it is their epoch."""
        if self.hessian_every is None or moment.epoch % self.hessian_every:
            return {}
        goal, state, found = moment.goal, moment.state, dict[str, Tensor]()
        weights, units = {}, {}
        for layer in layers(moment.graph):
            own = own_of(state, layer.name, self.layer_roles)
            weight, bits = state[layer.node.parameters["weight"]], goal.bits[layer.name]
            weights[layer.name] = self.quantized(weight, bits, own, goal.quantizer)
            coded = (bits > 0) & (bits < FLOAT_BITS)
            units[layer.name] = rows(own["step"].abs() * 2 * self._last(bits) * coded, weight)

        def edge_unit(edge: str, values: Tensor) -> Tensor | None:
            if edge not in moment.owners:
                return None
            owner, grid = moment.owners[edge]
            low, high = grid.code_range
            return state[own_name(edge_owner(owner), "step")].abs() * (high - low)

        by_layer, by_edge = curvatures(moment, weights, units, edge_unit, self.probes)
        for layer_name, curvature in by_layer.items():
            found[own_name(layer_name, "delta")] = delta_of(curvature)
        for edge, curvature in by_edge.items():
            found[own_name(edge_owner(moment.owners[edge][0]), "delta")] = delta_of(curvature)
        return found


def delta_of(curvature: Curvature) -> Tensor:
    """Mean curvature over a large gradient, three standard deviations; never below zero."""
    tiny = torch.finfo(curvature.spread.dtype).tiny
    return (curvature.mean / (3 * curvature.spread).clamp_min(tiny)).clamp_min(0.0)


class _ScaledGradient(torch.autograd.Function):
    """Exactly ``codes`` forward; the scaled gradient backward, in units of [0, 1]."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, codes: Tensor, factor: Tensor) -> Tensor:
        # A constant: kept with its graph, a second derivative would go through the scaling itself.
        ctx.save_for_backward(factor * (position - codes))
        return codes.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (scaling,) = ctx.saved_tensors
        g = gradients[0]
        return g + g.abs() * scaling, None, None


def scaled_codes(
    position: Tensor, codes: Tensor, inside: Tensor, delta: Tensor, span: Tensor | int
) -> Tensor:
    """``codes``; gradients reach the ``position`` (in steps) where it is ``inside``, scaled.

    Args:
        delta: ``[]``.
        span: steps between the ends of the interval, which ``delta`` counts as 1.
    """
    reached = torch.where(inside, position, codes)
    made: Tensor = _ScaledGradient.apply(reached, codes, delta / span)
    return made
