"""GDRQ: Scale-Clip for weights, in groups of filters, and for activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import torch
from pydantic import Field
from torch import Tensor

from ajpq.compressed import edge_owner, own_name, own_of
from ajpq.finetune.goal import Moment
from ajpq.graph.structure import layers
from ajpq.methods.activations import on_grid
from ajpq.methods.base import Group, Method, Own, Settled
from ajpq.quantizers import Quantizer, last_code, rows
from hw_models.network import FLOAT_BITS, Edge


@final
class GDRQ(Method):
    """GDRQ (Yu, Wen, Cheng, Sun, Han, Shi, "GDRQ: Group-based Distribution Reshaping for
    Quantization", arXiv 1908.01477).

    Scale-Clip cuts weights and activations off at ``T = k * mean |x|``, and levels lie at equal
    distances up to ``T``. A uniform distribution on ``[-T, T]`` has ``mean |x| = T / 2``, so for
    ``k = 2`` it is what clipping leaves alone, and what repeated clipping reshapes others to. A
    group of consecutive filters shares its ``T``; their scales are merged into BatchNorm, as all
    scales of rows are here.

    Reconstructions, because only the abstract was at hand: real weights are clipped, and every
    ``T`` is found anew, at the start of every epoch, so that weights beyond ``T``, which get no
    gradient there, come back into its reach; the ``T`` of activations follows a running mean, over
    the first batches of the epochs; zeros, of which ReLU makes half of an edge, do not count in
    it; gradients pass straight through rounding.

    Attributes:
        k: of the weights.
        activation_k: of the activations.
        group: so many filters share their ``T``; the last group of a layer may be smaller.
        momentum: share of the newest batch in the running mean.
    """

    k: float = Field(default=2.0, gt=0)
    activation_k: float = Field(default=2.0, gt=0)
    group: int = Field(default=1, ge=1)
    momentum: float = Field(default=0.5, gt=0, le=1)
    layer_roles: ClassVar[tuple[str, ...]] = ("clip",)
    edge_roles: ClassVar[tuple[str, ...]] = ("clip",)

    @property
    def edge_groups(self) -> Mapping[str, Group]:
        """Nothing of edges is trained."""
        return {}

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {"clip": self.k * group_means(weight, bits, self.group)}

    def start_edge(self, values: Tensor, edge: Edge) -> dict[str, Tensor]:
        """As of :class:`Method`."""
        return {"clip": self.activation_k * mean_size(values)}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`."""
        last = rows(last_code(bits), weight)
        made = on_grid(weight, rows(own["clip"], weight) / last, -last, last)
        untouched = torch.where(rows(bits == FLOAT_BITS, weight), weight, 0.0)
        return torch.where(rows(coded(bits), weight), made, untouched)

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`."""
        return Settled(weight, own["clip"] / last_code(bits))

    def quantized_edge(self, values: Tensor, edge: Edge, own: Own) -> Tensor:
        """As of :class:`Method`."""
        return on_grid(values, self.edge_step(edge, own), *edge.code_range)

    def edge_step(self, edge: Edge, own: Own) -> Tensor:
        """As of :class:`Method`."""
        return own["clip"] / edge.code_range[1]

    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """Clipped weights, and where weights and activations are cut off."""
        found, state = {}, moment.state
        for layer in layers(moment.graph):
            name, bits = layer.node.parameters["weight"], moment.goal.bits[layer.name]
            clip = self.k * group_means(state[name], bits, self.group)
            found[own_name(layer.name, "clip")] = clip
            found[name] = clipped(state[name], clip, bits)
        means = edge_means(moment, self._weights(moment, found)) if moment.owners else {}
        for owner, mean in means.items():
            name = own_name(edge_owner(owner), "clip")
            found[name] = state[name].lerp(self.activation_k * mean, self.momentum)
        return found

    def _weights(self, moment: Moment, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Layer name -> what the epoch will begin with."""
        quantizer, bits = moment.goal.quantizer, moment.goal.bits
        return {
            layer.name: self.quantized(
                found[layer.node.parameters["weight"]],
                bits[layer.name],
                own_of(found, layer.name, self.layer_roles),
                quantizer,
            )
            for layer in layers(moment.graph)
        }


def coded(bits: Tensor) -> Tensor:
    """``[O]`` bool: rows that are put on codes."""
    return (bits > 0) & (bits < FLOAT_BITS)


def clipped(weight: Tensor, clip: Tensor, bits: Tensor) -> Tensor:
    """``weight`` cut off at ``clip [O]`` on both sides; rows without codes stay."""
    bound = rows(torch.where(coded(bits), clip, torch.inf), weight)
    return torch.minimum(torch.maximum(weight, -bound), bound)


def group_means(weight: Tensor, bits: Tensor, group: int) -> Tensor:
    """``[O]`` mean size of the weights of every row's group; 1 where all of them are zero.

    Rows without codes are in a group, but do not count.
    """
    numbers = torch.arange(len(weight), device=weight.device) // group
    counted = coded(bits).to(weight.dtype)
    sizes = weight.detach().abs().flatten(1).mean(1) * counted
    sums = torch.zeros(len(weight), dtype=weight.dtype).index_add(0, numbers, sizes)
    counts = torch.zeros_like(sums).index_add(0, numbers, counted)
    means = (sums / counts.clamp_min(1))[numbers]
    return torch.where(means > 0, means, 1.0)


def mean_size(values: Tensor) -> Tensor:
    """``[]`` mean size of the values that are not zero; 1 where all are."""
    sizes = values.detach().float().abs()
    count = (sizes > 0).sum()
    return torch.where(count > 0, sizes.sum() / count.clamp_min(1), 1.0)


@torch.no_grad()
def edge_means(moment: Moment, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Owner of a grid -> mean size of the values of all its edges in the epoch's first batch."""
    seen: dict[str, list[Tensor]] = {}

    def hook(edge: str, values: Tensor) -> Tensor:
        if edge in moment.owners:
            seen.setdefault(moment.owners[edge][0], []).append(mean_size(values))
        return moment.hook(edge, values)

    moment.loss(weights, hook)
    return {owner: torch.stack(means).mean() for owner, means in seen.items()}
