"""Measured quality and cost of one compressed network."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ajpq.packed import estimated_bytes, pack
from hw_models.base import NetworkCost, Target
from hw_models.checks import checked_cost
from hw_models.network import Network, bops, macs


class Bops(BaseModel):
    """Bit operations of one image in the three conventions of :func:`hw_models.network.bops`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fl32: int
    fl8: int
    all: int


class Costs(BaseModel):
    """What a network costs; ``None`` where the target does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latency_s: float | None
    packed_bytes: int
    flash_bytes: int | None
    bops: Bops
    macs: int
    peak_activation_bytes: int | None = None
    energy_j: float | None = None


class Metrics(Costs):
    """Costs, and quality on validation images.

    Attributes:
        top1_val: percent of validation images classified right.
        kl: mean KL divergence from the uncompressed network's predictions, nats per image.
        images: how many validation images a candidate was shown before it was given up, or all;
            None where nothing is ever given up. With 0 its calibration told enough.
        given_up: was judging it stopped early, because others within the budget that it was asked
            for are better? Accuracy and divergence are estimates then, too rough to call it the
            best of another budget. Never against a bound on the drop, which has one rival for all.
        gains: points of top-1 that a candidate with a training gained between each look at it and
            the end; None if there was no look, or not all images were seen.
    """

    top1_val: float
    kl: float
    images: int | None = None
    given_up: bool = False
    gains: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Images:
    """Normalised images ``[N, C, H, W]``, their labels ``[N]`` and, where it is known, what the
    uncompressed network answers, ``[N, classes]``."""

    images: Tensor
    labels: Tensor
    float_logits: Tensor | None = None


def top1(logits: Tensor, labels: Tensor) -> float:
    """Percent of rows whose largest logit is the label's."""
    return 100.0 * float((logits.argmax(1) == labels).double().mean())


def kl_divergence(wanted_logits: Tensor, logits: Tensor) -> float:
    """Mean ``KL(wanted || got)`` over images, in nats."""
    return float(kl_of_images(wanted_logits, logits).mean())


def kl_of_images(wanted_logits: Tensor, logits: Tensor) -> Tensor:
    """``KL(wanted || got)`` of each image, ``[N]`` float64, in nats."""
    divergence = F.kl_div(
        F.log_softmax(logits.double(), dim=1),
        F.log_softmax(wanted_logits.double(), dim=1),
        log_target=True,
        reduction="none",
    )
    return divergence.sum(1)


def costs_in_loop(network: Network, target: Target) -> Costs:
    """Costs with the packed size estimated from histogram entropies (core of the search)."""
    return _costs(network, target, estimated_bytes(network))


def exact_costs(network: Network, target: Target) -> Costs:
    """Costs with the packed size taken from the packed file itself."""
    return _costs(network, target, len(pack(network)))


def layer_latencies(network: Network, target: Target) -> dict[str, float]:
    """Operator name -> seconds on the target; empty where the target tells nothing about them."""
    layers = checked_cost(target, network).per_layer
    return {layer.name: layer.latency_s for layer in layers if layer.latency_s is not None}


def _costs(network: Network, target: Target, packed_bytes: int) -> Costs:
    return costs_of(network, checked_cost(target, network), packed_bytes)


def costs_of(network: Network, cost: NetworkCost, packed_bytes: int) -> Costs:
    """Join what a target says with what the network tells itself."""
    return Costs(
        latency_s=cost.latency_s,
        packed_bytes=packed_bytes,
        flash_bytes=cost.flash_bytes,
        bops=Bops(**bops(network)),
        macs=macs(network),
        peak_activation_bytes=cost.peak_activation_bytes,
        energy_j=cost.energy_j,
    )


def measured(costs: Costs, logits: Tensor, sample: Images) -> Metrics:
    """Join costs with the quality of ``logits [N, classes]`` on ``sample``."""
    kl = 0.0 if sample.float_logits is None else kl_divergence(sample.float_logits, logits)
    return Metrics(**costs.model_dump(), top1_val=top1(logits, sample.labels), kl=kl)
