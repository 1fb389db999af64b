"""Gradient-weighted k-means: product quantization below one bit per weight."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from ajpq.compressed import own_name, own_of
from ajpq.finetune.goal import Moment
from ajpq.graph.structure import Layer, layers
from ajpq.methods.base import Method, Own, Settled
from ajpq.quantizers import Quantizer, rows, straight_through
from ajpq.quantizers.codebook import (
    Codebook,
    assigned,
    means,
    on_grid,
    refined,
    spread,
)

_STORED = 8
_START_ROUNDS, _EPOCH_ROUNDS = 20, 3


@final
class GWK(Method):
    """GWK ("Deep learning model compression using network sensitivity and gradients").

    Rows of less than 8 bits become blocks, a kernel each, or ``channels`` input channels where
    kernels have one tap. All blocks of a layer, divided by their row's standard deviation, share a
    codebook. In every step blocks are assigned anew and centroids are the means of their members,
    weighted by gradient magnitudes, which are added up once an epoch; gradients pass straight
    through to the weights behind them. In the end a layer has 8-bit codes of few distinct blocks,
    which the packed file stores as a codebook (:mod:`ajpq.packed.blocks`). Rows of 8 bits, and
    depthwise kernels, which are too few for a codebook, are quantized on their own.

    From the paper are the gradient-weighted centroids and the training with quantized activations
    before it. Its equations are not known: how gradients are gathered, the row's scale, assignment
    in every step, the price of bits and the grid of the centroids are a reconstruction.

    Attributes:
        words: centroids of a layer, at most.
        blocks_per_word: in a layer of few blocks so many share a centroid on average.
        channels: length of a block where kernels have one tap.
        word_bits: width of the grid that centroids are on.
        rate: squared error, in units of a weight's variance, that one bit is worth.
        nudge: exponent of the gradient magnitudes; 0 is plain k-means.
    """

    words: int = Field(default=96, ge=2, le=256)
    blocks_per_word: int = Field(default=8, ge=2)
    channels: Literal[2, 4, 8, 16] = 4
    word_bits: int = Field(default=5, ge=2, le=8)
    rate: float = Field(default=0.3, ge=0)
    nudge: float = Field(default=1.0, ge=0)
    layer_roles: ClassVar[tuple[str, ...]] = ("step", "gain", "centroids", "bits", "gradient")

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`; no gradient is known yet."""
        own = {"step": quantizer.fit(weight, _stored(bits))}
        coded = self._coded(weight, bits)
        if not coded.any():
            return own
        deviation = weight.flatten(1).std(1)
        own["gain"] = torch.where(deviation > 0, deviation, torch.ones(()))
        own["gradient"] = torch.zeros_like(weight)
        blocks, importance = self._blocks(weight, coded, own)
        words = max(2, min(self.words, len(blocks) // self.blocks_per_word))
        book = refined(blocks, importance, spread(blocks, words), self.rate, _START_ROUNDS)
        return own | {"centroids": book.centroids, "bits": book.bits}

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`; value and gradient of rows with a codebook are exact."""
        coded = self._coded(weight, bits)
        if not coded.any():
            return straight_through(weight, _stored(bits), own["step"], quantizer)
        codes, steps = self._codes(weight.detach(), coded, own)
        made: Tensor = _StraightThrough.apply(weight, codes * rows(steps, weight))
        if coded.all():
            return made
        alone = straight_through(weight, _stored(bits), own["step"], quantizer)
        return torch.where(rows(coded, weight), made, alone)

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`: codes of 8 bits."""
        coded, stored = self._coded(weight, bits), _stored(bits)
        if not coded.any():
            return Settled(weight, bits=stored)
        codes, steps = self._codes(weight, coded, own)
        made = torch.where(rows(coded, weight), codes * rows(steps, weight), weight)
        return Settled(made, torch.where(coded, steps, quantizer.fit(weight, stored)), stored)

    @torch.no_grad()
    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """As of :class:`Method`: gradients are added up, codebooks and steps fitted anew."""
        found: dict[str, Tensor] = {}
        gradients = self._gradients(moment)
        for layer in layers(moment.graph):
            weight, bits, own = self._of(moment, layer)
            own["step"] = moment.goal.quantizer.fit(weight, _stored(bits))
            if self._coded(weight, bits).any():
                own["gradient"] = own["gradient"] + gradients[layer.name].abs()
                own |= self._moved(weight, self._coded(weight, bits), own)
            found |= {own_name(layer.name, role): value for role, value in own.items()}
        return found

    def _of(self, moment: Moment, layer: Layer) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weight = moment.state[layer.node.parameters["weight"]]
        own = own_of(moment.state, layer.name, self.layer_roles)
        return weight, moment.goal.bits[layer.name], own

    @torch.enable_grad()
    def _gradients(self, moment: Moment) -> dict[str, Tensor]:
        """Layer name -> gradient of the loss by its quantized weights."""
        weights = {
            layer.name: self.quantized(*self._of(moment, layer), moment.goal.quantizer)
            .detach()
            .requires_grad_()
            for layer in layers(moment.graph)
        }
        loss = moment.loss(weights, moment.hook)
        return dict(zip(weights, torch.autograd.grad(loss, [*weights.values()]), strict=True))

    def _moved(self, weight: Tensor, coded: Tensor, own: Own) -> dict[str, Tensor]:
        blocks, importance = self._blocks(weight, coded, own)
        book = Codebook(own["centroids"], own["bits"])
        book = refined(blocks, importance, book, self.rate, _EPOCH_ROUNDS)
        return {"centroids": book.centroids, "bits": book.bits}

    def _codes(self, weight: Tensor, coded: Tensor, own: Own) -> tuple[Tensor, Tensor]:
        """Codes ``[O, ...]``, zero where no codebook is, and their steps ``[O]``."""
        blocks, importance = self._blocks(weight, coded, own)
        book = Codebook(own["centroids"], own["bits"])
        members = assigned(blocks, importance, book, self.rate)
        centroids = means(blocks, importance, members, book.centroids)
        words, step = on_grid(centroids, 2 ** (self.word_bits - 1) - 1)
        codes = torch.zeros_like(weight)
        codes[coded] = words[members].reshape(-1, *weight.shape[1:])
        return codes, own["gain"] * step

    def _blocks(self, weight: Tensor, coded: Tensor, own: Own) -> tuple[Tensor, Tensor]:
        """Blocks ``[N, d]`` of the rows with a codebook and their importance, 1 on average."""
        length = self._length(weight)
        blocks = (weight / rows(own["gain"], weight))[coded].reshape(-1, length)
        gradient = own["gradient"][coded].reshape(-1, length)
        mean = gradient.mean()
        share = gradient / mean if mean > 0 else torch.ones_like(gradient)
        importance = share.pow(self.nudge)
        return blocks, importance / importance.mean()

    def _length(self, weight: Tensor) -> int:
        taps = math.prod(weight.shape[2:])
        if taps > 1:
            return taps
        return next(d for d in (16, 8, 4, 2, 1) if d <= self.channels and weight.shape[1] % d == 0)

    def _coded(self, weight: Tensor, bits: Tensor) -> Tensor:
        """``[O]`` bool: the rows with a codebook; one that is a single block has none."""
        narrow = (bits > 0) & (bits < _STORED)
        return narrow & (weight[0].numel() > self._length(weight))


def _stored(bits: Tensor) -> Tensor:
    """``[O]`` widths of the codes in the end."""
    return torch.where((bits > 0) & (bits < _STORED), _STORED, bits)


class _StraightThrough(torch.autograd.Function):
    """Exactly ``made`` forward; the gradient goes to ``weight`` as it is."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, made: Tensor) -> Tensor:
        return made.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0], None
