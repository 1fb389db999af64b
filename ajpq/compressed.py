"""The two modes of one set of weights, as tensors that :func:`ajpq.graph.execute.execute` takes.

The full-precision mode is the latent weights themselves. The compressed mode is a view of them:
quantized rows, pruned channels zero after BatchNorm too, BatchNorm statistics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.graph.execute import mask_pruned
from ajpq.graph.structure import Graph, layers
from ajpq.grids import ActivationRange, fake_quantize
from ajpq.policy import CompressionPolicy
from ajpq.quantizers import Estimator, Quantizer, straight_through
from hw_models.network import Edge

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class CompressedWeights:
    """All that a compressed network needs beside its policy.

    Attributes:
        latent: parameters and buffers by state-dict name, pruned channels included.
        buffers: BatchNorm statistics of the compressed mode by state-dict name.
        ranges: activation ranges of the compressed mode by edge.
        scales: layer name -> ``[O]`` steps of its grids; empty where they are to be fitted.
    """

    latent: State
    buffers: State
    ranges: Mapping[str, ActivationRange]
    scales: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def compressed_state(self) -> dict[str, Tensor]:
        """Latent parameters with the statistics of the compressed mode."""
        return {**self.latent, **self.buffers}


def weight_bits(graph: Graph, policy: CompressionPolicy) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` int64 widths."""
    return {
        layer.name: torch.tensor(policy.layers[layer.name].weight_bits, dtype=torch.int64)
        for layer in layers(graph)
    }


def fit_scales(
    graph: Graph, state: State, bits: Mapping[str, Tensor], quantizer: Quantizer
) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` step of every channel's grid for the present weights."""
    return {
        layer.name: quantizer.fit(state[layer.node.parameters["weight"]], bits[layer.name])
        for layer in layers(graph)
    }


def step_name(layer: str) -> str:
    """Under which name a state holds the steps that training learned for a layer's grids."""
    return f"{layer}.step"


def learned_steps(graph: Graph, state: State) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` learned step of every channel's grid; empty if none were learned."""
    names = [layer.name for layer in layers(graph)]
    return {name: state[step_name(name)] for name in names if step_name(name) in state}


def compressed_view(
    graph: Graph,
    state: State,
    bits: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    quantizer: Quantizer,
    estimator: Estimator = straight_through,
) -> dict[str, Tensor]:
    """``state`` with every layer quantized and pruned channels zero; ``estimator`` says how the
    gradient passes."""
    view = dict(state)
    for layer in layers(graph):
        name, width = layer.node.parameters["weight"], bits[layer.name]
        view[name] = estimator(state[name], width, scales[layer.name], quantizer)
    return mask_pruned(graph, view, {n: (b != 0).float() for n, b in bits.items()})


def quantize_edges(grids: Mapping[str, Edge]) -> Callable[[str, Tensor], Tensor]:
    """The ``edge`` hook that puts activations on codes, gradients passing straight through."""

    def hook(edge: str, values: Tensor) -> Tensor:
        grid = grids.get(edge)
        return values if grid is None else fake_quantize(values, grid.bits, grid.signed, grid.scale)

    return hook


def batchnorm_buffers(graph: Graph, state: State) -> dict[str, Tensor]:
    """The running statistics in ``state``, copied."""
    return {
        node.parameters[role]: state[node.parameters[role]].detach().clone()
        for node in graph.nodes
        if node.kind == "batchnorm"
        for role in ("running_mean", "running_var")
    }
