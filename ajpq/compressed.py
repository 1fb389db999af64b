"""The two modes of one set of weights, as tensors that :func:`ajpq.graph.execute.execute` takes.

The full-precision mode is the latent weights themselves. The compressed mode is a view of them:
quantized rows, pruned channels zero after BatchNorm too, BatchNorm statistics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.graph.execute import mask_pruned
from ajpq.graph.structure import Graph, layers
from ajpq.policy import CompressionPolicy
from ajpq.quantizers import Quantizer, straight_through
from ajpq.simulation.grids import ActivationRange, fake_quantize
from hw_models.network import FLOAT_BITS, Edge

State = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class CompressedWeights:
    """All that a compressed network needs beside its policy.

    Attributes:
        latent: parameters and buffers by state-dict name, pruned channels included.
        buffers: BatchNorm statistics of the compressed mode by state-dict name.
        ranges: activation ranges of the compressed mode by edge.
        scales: layer name -> ``[O]`` steps of its grids; empty where they are to be fitted.
        widths: layer name -> ``[O]`` widths that training chose in place of the policy's.
        asked: the policy's widths of these layers, with which training would begin again.
    """

    latent: State
    buffers: State
    ranges: Mapping[str, ActivationRange]
    scales: Mapping[str, Tensor] = field(default_factory=dict)
    widths: Mapping[str, Tensor] = field(default_factory=dict)
    asked: Mapping[str, Tensor] = field(default_factory=dict)

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


def own_name(owner: str, role: str) -> str:
    """Under which name a state holds what a method keeps of a layer, or of ``edge_owner(edge)``."""
    return f"{owner}.{role}"


def edge_owner(edge: str) -> str:
    """The owner of what is kept of an edge; a layer may have the name of the edge that it makes."""
    return f"edge.{edge}"


def own_of(state: State, owner: str, roles: Iterable[str]) -> dict[str, Tensor]:
    """Role -> what ``state`` holds of ``owner``."""
    names = {role: own_name(owner, role) for role in roles}
    return {role: state[name] for role, name in names.items() if name in state}


def step_name(layer: str) -> str:
    """Under which name a state holds the steps that training learned for a layer's grids."""
    return own_name(layer, "step")


def width_name(layer: str) -> str:
    """Under which name a state holds the widths that training chose for a layer's channels."""
    return own_name(layer, "width")


def learned_steps(graph: Graph, state: State) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` learned step of every channel's grid; empty if none were learned."""
    names = [layer.name for layer in layers(graph)]
    return {name: state[step_name(name)] for name in names if step_name(name) in state}


def chosen_widths(graph: Graph, state: State) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` widths that training chose; empty if it chose none."""
    names = [layer.name for layer in layers(graph)]
    return {name: state[width_name(name)] for name in names if width_name(name) in state}


def stored_widths(widths: Tensor, stored: Iterable[int]) -> Tensor:
    """``widths [O]``, or where a device does not store such, the next wider one that it does.

    Codes stay what they are. A width that is wider than all that it stores stays too.
    """
    integers = [bits for bits in stored if 0 < bits < FLOAT_BITS]
    wider = {bits: min((b for b in integers if b >= bits), default=bits) for bits in range(1, 9)}
    own = [wider.get(round(bits), bits) for bits in widths.tolist()]
    return torch.tensor(own, dtype=widths.dtype)


def with_widths(policy: CompressionPolicy, widths: Mapping[str, Tensor]) -> CompressionPolicy:
    """``policy`` with other weight widths in some layers."""
    changed = {
        name: policy.layers[name].model_copy(
            update={"weight_bits": tuple(round(width) for width in own.tolist())}
        )
        for name, own in widths.items()
    }
    return policy.model_copy(update={"layers": {**policy.layers, **changed}})


def grid_number(graph: Graph, edge: str) -> int | str:
    """Equal for edges that share a grid; an edge that is in no set of them is alone."""
    return graph.grid_sets.get(edge, edge)


def learned_ranges(
    graph: Graph, grids: Mapping[str, Edge], state: State, known: Mapping[str, ActivationRange]
) -> dict[str, ActivationRange]:
    """Edge name -> the range whose grid has the step that training learned; the others as known.

    Edges that share a grid share its step, which lies under the name of one of them.
    """
    ranges = {
        grid_number(graph, edge): ActivationRange(
            abs(float(state[name])) * grid.code_range[1], grid.signed
        )
        for edge, grid in grids.items()
        if (name := own_name(edge_owner(edge), "step")) in state
    }
    numbers = {edge: grid_number(graph, edge) for edge in grids}
    learned = {edge: ranges[own] for edge, own in numbers.items() if own in ranges}
    return {**known, **learned}


def compressed_view(
    graph: Graph,
    state: State,
    bits: Mapping[str, Tensor],
    scales: Mapping[str, Tensor],
    quantizer: Quantizer,
) -> dict[str, Tensor]:
    """``state`` with every layer quantized and pruned channels zero."""
    return with_weights(
        graph,
        state,
        bits,
        {
            layer.name: straight_through(
                state[layer.node.parameters["weight"]],
                bits[layer.name],
                scales[layer.name],
                quantizer,
            )
            for layer in layers(graph)
        },
    )


def with_weights(
    graph: Graph, state: State, bits: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``state`` with other weights by layer name, channels of 0 bits zero after BatchNorm too."""
    named = {layer.node.parameters["weight"]: weights[layer.name] for layer in layers(graph)}
    return mask_pruned(graph, {**state, **named}, {n: (b != 0).float() for n, b in bits.items()})


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
