"""What is pruned where PSG has made weights small: single ones, or whole channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ajpq.compressed import State, width_name
from ajpq.finetune.recipe import PSGSettings
from ajpq.graph.channels import inner_layers
from ajpq.graph.structure import Graph, Layer, layers


def pruned(
    settings: PSGSettings, graph: Graph, state: State, bits: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state that a sparse form of PSG ends with (arXiv 2005.11035).

    The paper prunes single weights of the whole network by magnitude. Whole channels are an
    extension of ours: they get 0 bits, the others keep theirs.

    Args:
        bits: layer name -> ``[O]`` widths of the policy.
    """
    if settings.form == "sparse_channels":
        strengths = {layer.name: strength(state, layer) for layer in inner_layers(graph)}
        weak = weak_channels(strengths, settings.sparsity)
        chosen = {name: torch.where(own, 0, bits[name]).float() for name, own in weak.items()}
        return {**state, **{width_name(name): own for name, own in chosen.items()}}
    return without_weights(graph, state, settings.sparsity)


def without_weights(graph: Graph, state: State, share: float) -> dict[str, Tensor]:
    """``state`` without the smallest weights of the whole network."""
    names = [layer.node.parameters["weight"] for layer in layers(graph)]
    sizes = torch.cat([state[name].abs().flatten() for name in names])
    threshold = sizes.kthvalue(max(1, round(share * len(sizes)))).values
    kept = {name: state[name] * (state[name].abs() > threshold) for name in names}
    return {**state, **kept}


def weak_channels(strengths: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Layer name -> ``[O]`` bool: the weakest of all channels inside residual blocks.

    Those of the streams between blocks stay, as in Li et al., arXiv 1608.08710: they cannot go
    without touching every block. The strongest channel of every layer stays as well, because a
    layer may be the only way through the network.

    Args:
        strengths: of the channels of every layer of :func:`ajpq.graph.channels.inner_layers`.
        share: of all these channels; fewer go if only strongest ones are left.
    """
    lengths = [len(own) for own in strengths.values()]
    every = torch.cat([_without_strongest(own) for own in strengths.values()])
    count = min(round(share * len(every)), len(every) - len(lengths))
    weak = torch.zeros(len(every), dtype=torch.bool)
    weak[every.topk(count, largest=False).indices] = True
    return dict(zip(strengths, weak.split(lengths), strict=True))


def _without_strongest(strengths: Tensor) -> Tensor:
    """``[O]`` with infinity for the strongest channel, which is then the last to go."""
    return strengths.index_fill(0, strengths.argmax(), torch.inf)


def strength(state: State, layer: Layer) -> Tensor:
    """``[O]``: a channel is as strong as its BatchNorm factor (Liu et al., arXiv 1708.06519), or
    where there is none as its weights."""
    if layer.batchnorm is None or "weight" not in layer.batchnorm.parameters:
        return state[layer.node.parameters["weight"]].flatten(1).square().mean(1).sqrt()
    return state[layer.batchnorm.parameters["weight"]].abs()
