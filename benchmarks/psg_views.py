"""What ``benchmarks/psg.py`` does to trained weights: grids and pruning, without any correction."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ajpq.compressed import State, compressed_view, fit_scales, weight_bits
from ajpq.finetune.goal import Goal
from ajpq.graph.channels import inner_layers
from ajpq.graph.structure import Graph, Layer, layers
from ajpq.methods.psg import strength, weak_channels, without_weights
from ajpq.policy import uniform_policy
from ajpq.quantizers.uniform import UniformQuantizer

Granularity = Literal["channel", "tensor"]
WIDTHS = (8, 4, 3, 2)
GRANULARITIES: tuple[Granularity, ...] = ("channel", "tensor")
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
FULL = "full precision"
BY_L1 = "-l1"

View = Callable[[State], State]


def views(graph: Graph) -> dict[str, View]:
    """Setting, such as ``4-tensor`` or ``weights-0.3`` -> what it does to a state."""
    found: dict[str, View] = {FULL: lambda state: state}
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            goal = goal_of(graph, bits, granularity)
            found[f"{bits}-{granularity}"] = functools.partial(quantized, graph, goal=goal)
    for share in SPARSITIES:
        found[f"weights-{share}"] = functools.partial(without_weights, graph, share=share)
        found[f"channels-{share}"] = functools.partial(without_channels, graph, share=share)
        found[f"channels-{share}{BY_L1}"] = functools.partial(
            without_channels, graph, share=share, strength=l1_strength
        )
    return found


def goal_of(graph: Graph, bits: int, granularity: Granularity) -> Goal:
    """The grids of one setting; at 3 and 2 bits the outer layers have 8; activations stay real."""
    channels = {layer.name: layer.channels for layer in layers(graph)}
    policy = uniform_policy(channels, bits, 32, outer_bits=8 if bits <= 3 else None)
    return Goal(weight_bits(graph, policy), UniformQuantizer("mse", granularity), {})


@torch.no_grad()
def quantized(graph: Graph, state: State, goal: Goal) -> dict[str, Tensor]:
    """``state`` with its weights on the grids of ``goal``, and nothing else changed."""
    scales = fit_scales(graph, state, goal.bits, goal.quantizer)
    return compressed_view(graph, state, goal.bits, scales, goal.quantizer)


def l1_strength(state: State, layer: Layer) -> Tensor:
    """A channel is as strong as its L1 norm, by rank in its layer (Li et al., 1608.08710)."""
    norms = state[layer.node.parameters["weight"]].abs().flatten(1).sum(1)
    return norms.argsort(stable=True).argsort(stable=True).float() / len(norms)


def without_channels(
    graph: Graph,
    state: State,
    share: float,
    strength: Callable[[State, Layer], Tensor] = strength,
) -> dict[str, Tensor]:
    """``state`` without the weakest of all channels inside residual blocks."""
    bits = {layer.name: torch.full((layer.channels,), 32) for layer in layers(graph)}
    strengths = {layer.name: strength(state, layer) for layer in inner_layers(graph)}
    for name, weak in weak_channels(strengths, share).items():
        bits[name][weak] = 0
    return quantized(graph, state, Goal(bits, UniformQuantizer(), {}))
