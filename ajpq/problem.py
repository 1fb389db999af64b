"""The compression problem: one trained network, its data, one target, one way to measure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ajpq import data as ajpq_data
from ajpq.apply import Quantize, apply_policy, apply_unshrunk
from ajpq.compressed import (
    CompressedWeights,
    State,
    batchnorm_buffers,
    with_widths,
)
from ajpq.evaluate import Images
from ajpq.finetune.training import Batches
from ajpq.graph.execute import execute, frozen_batchnorm
from ajpq.graph.structure import Graph, layers
from ajpq.policy import CompressionPolicy, QuantizerSpec, uniform_policy
from ajpq.quantizers import make_quantizer
from ajpq.quantizers.given import on_grids
from ajpq.quantizers.tabulated import tabulated
from ajpq.simulation.grids import ActivationRange
from hw_models.base import Target
from hw_models.network import Network


@dataclass(frozen=True, eq=False)
class Problem:
    """What stays the same for all candidates of a search.

    Attributes:
        state: the uncompressed network's parameters and buffers.
        ranges: activation ranges of the uncompressed network.
        scores: layer name -> importance of its output channels.
        search_sample: augmented validation images that rank candidates.
        loop_target: what prices candidates in place of ``target``, where that is measured.
    """

    graph: Graph
    state: State
    dataset: ajpq_data.Dataset
    split: ajpq_data.Split
    target: Target
    quantizer: QuantizerSpec
    ranges: Mapping[str, ActivationRange]
    scores: Mapping[str, np.ndarray]
    search_sample: Images
    seed: int
    loop_target: Target | None = None

    @property
    def pricing(self) -> Target:
        """The target that candidates are priced by."""
        return self.loop_target or self.target

    @property
    def channels(self) -> dict[str, int]:
        """Layer name -> number of output channels."""
        return {layer.name: layer.channels for layer in layers(self.graph)}

    @cached_property
    def codes(self) -> Quantize:
        """The quantizer for the uncompressed weights: their codes at every width are made once."""
        weights = [self.state[layer.node.parameters["weight"]] for layer in layers(self.graph)]
        return tabulated(make_quantizer(self.quantizer), weights)

    @property
    def float_bytes(self) -> int:
        """Bytes of the float32 state dict."""
        return 4 * sum(value.numel() for value in self.state.values())

    def uniform(self, bits: int) -> CompressionPolicy:
        """The policy with the same width everywhere and 8-bit activations (32 stays real)."""
        activation = 32 if bits == 32 else 8
        policy = uniform_policy(self.channels, bits, activation)
        return policy.model_copy(update={"quantizer": self.quantizer})


def training_batches(
    problem_data: ajpq_data.Dataset,
    indices: np.ndarray,
    batch_size: int,
    seed: int,
    cutout: int = 0,
) -> Batches:
    """Epoch number -> augmented, shuffled full batches; a pure function of seed and epoch.

    Fewer images than a batch make one batch of all of them.
    """
    size = min(batch_size, len(indices))

    def epoch_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ajpq_data.training_batches(
            problem_data, indices, size, seed=seed, epoch=epoch, cutout=cutout
        )

    return epoch_batches


def augmented_images(
    dataset: ajpq_data.Dataset, train: np.ndarray, seed: int, *, count: int, batch_size: int = 128
) -> Iterator[Tensor]:
    """The images of :func:`augmented_batches`."""
    batches = augmented_batches(dataset, train, seed, count=count, batch_size=batch_size)
    return (images for images, _ in batches)


def augmented_batches(
    dataset: ajpq_data.Dataset, train: np.ndarray, seed: int, *, count: int, batch_size: int = 128
) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` batches of augmented training images with labels, apart from those of any
    training."""
    batches = training_batches(dataset, train, batch_size, seed + 104729)(0)
    return itertools.islice(batches, count)


def network_of(problem: Problem, policy: CompressionPolicy, weights: CompressedWeights) -> Network:
    """The network IR that the policy and the weights stand for, pruned channels removed."""
    policy = with_widths(policy, weights.widths)
    quantize = quantize_of(problem, policy, weights.latent, weights.scales)
    tensors = weights.compressed_state
    return apply_policy(problem.graph, tensors, policy, weights.ranges, quantize)


def unshrunk_of(problem: Problem, policy: CompressionPolicy, weights: CompressedWeights) -> Network:
    """:func:`network_of` with pruned channels still there, as zeros: it answers alike."""
    policy = with_widths(policy, weights.widths)
    quantize = quantize_of(problem, policy, weights.latent, weights.scales)
    tensors = weights.compressed_state
    return apply_unshrunk(problem.graph, tensors, policy, weights.ranges, quantize)


def untrained(problem: Problem, policy: CompressionPolicy, latent: State) -> bool:
    """Are these the uncompressed weights themselves, under the problem's quantizer?"""
    names = (layer.node.parameters["weight"] for layer in layers(problem.graph))
    same = all(latent[name] is problem.state[name] for name in names)
    return same and policy.quantizer == problem.quantizer


def known_scales(problem: Problem, bits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """:func:`ajpq.compressed.fit_scales` of the uncompressed weights, from the table."""
    found = {}
    for layer in layers(problem.graph):
        own, weight = bits[layer.name], problem.state[layer.node.parameters["weight"]]
        coded = (own > 0) & (own <= 8)
        scales = problem.codes(weight, torch.where(coded, own, 8))[1]
        found[layer.name] = torch.where(coded, scales, torch.ones(()))
    return found


def quantize_of(
    problem: Problem, policy: CompressionPolicy, latent: State, scales: Mapping[str, Tensor]
) -> Quantize:
    """The policy's quantizer, on grids that are known already where there are ``scales``."""
    if untrained(problem, policy, latent):
        return problem.codes
    grids = (
        (latent[layer.node.parameters["weight"]], scales[layer.name])
        for layer in layers(problem.graph)
        if layer.name in scales
    )
    return on_grids(make_quantizer(policy.quantizer), grids)


def direct_weights(problem: Problem) -> CompressedWeights:
    """The uncompressed weights as they are, for pricing a policy before any training."""
    return CompressedWeights(
        latent=problem.state,
        buffers=batchnorm_buffers(problem.graph, problem.state),
        ranges=problem.ranges,
    )


@torch.no_grad()
def float_logits(graph: Graph, state: State, images: Tensor, batch_size: int = 500) -> Tensor:
    """Logits ``[N, classes]`` of the uncompressed network."""
    return torch.cat(
        [
            execute(graph, state, part, batchnorm=frozen_batchnorm)
            for part in images.split(batch_size)
        ]
    )
