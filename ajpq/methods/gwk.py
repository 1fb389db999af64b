"""Gradient-weighted k-means: product quantization below one bit per weight."""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from ajpq.compressed import State, own_name, own_of
from ajpq.finetune.goal import Goal, Moment
from ajpq.graph.structure import Graph, Layer, layers
from ajpq.methods.activations import straight
from ajpq.methods.base import STORED, Method, Own, Settled, is_narrow
from ajpq.methods.blocks import (
    Blocks,
    at_rate_within,
    block_length,
    cut,
    deviations,
    importance_of,
    packed_bits_per_weight,
)
from ajpq.quantizers import Quantizer, rows, straight_through
from ajpq.quantizers.codebook import Codebook, refined, spread

_START_ROUNDS, _EPOCH_ROUNDS = 20, 3
_KEPT = 0.99
"""Share of the bits that an epoch begins with, for weights move on."""


@final
class GWK(Method):
    """GWK ("Deep learning model compression using network sensitivity and gradients").

    Rows of less than 8 bits become blocks, a kernel each, or ``channels`` input channels where
    kernels have one tap. All blocks of a layer, divided by their row's standard deviation, share a
    codebook. In every step blocks are assigned anew and centroids are the means of their members,
    weighted by gradient magnitudes; gradients pass straight through to the weights behind them.
    Once an epoch gradients are added up, and a price of the bits that name a centroid is found, one
    for all layers, at which the packed file keeps within ``bits_per_weight``; once more in the end,
    should they have become too many. In the last part of a training neither is done: weights gather
    where one centroid is as near as another, so every change of price or importance moves many at
    once, and late steps are too small to mend it. In the end a layer has 8-bit codes of few
    distinct blocks, which that file stores as a codebook (:mod:`ajpq.packed.blocks`). Rows of 8
    bits, depthwise kernels and layers of too few blocks are quantized weight by weight.

    In a search, whose rows have widths of their own, centroids are rounded for every row to the
    grid of its width, which makes as many words of each as there are widths in the layer, and rows
    without a codebook have their own widths too.

    From the paper are the gradient-weighted centroids, and bits counted with the codebook. Its
    equations are not known: how gradients are gathered and until when, the row's scale, assignment
    in every step, the price of bits and the grid of the centroids are a reconstruction.

    Attributes:
        bits_per_weight: of the layers with codebooks in the packed file, words included.
        words: distinct blocks of a layer, at most, or two for each width that it has.
        blocks_per_word: in a layer of few blocks so many share a centroid on average.
        channels: length of a block where kernels have one tap.
        word_bits: width of the grid that centroids are on; None: that of the row.
        nudge: exponent of the gradient magnitudes; 0 is plain k-means.
        refitted_for: share of a training in which codebooks, prices, importances and grids are
            found anew; at 0 that is once, when it begins.
        least_blocks: layers of fewer blocks have no codebook.
        alone_bits: width of the rows of such layers, and of rows of a single block, such as
            depthwise kernels; None: the policy's.
    """

    bits_per_weight: float = Field(default=0.8, gt=0)
    words: int = Field(default=96, ge=2, le=256)
    blocks_per_word: int = Field(default=8, ge=2)
    channels: Literal[2, 4, 8, 16] = 4
    word_bits: int | None = Field(default=5, ge=2, le=8)
    nudge: float = Field(default=0.5, ge=0)
    refitted_for: float = Field(default=0.5, ge=0, le=1)
    least_blocks: int = Field(default=2, ge=2)
    alone_bits: int | None = Field(default=4, ge=2, le=8)
    layer_roles: ClassVar[tuple[str, ...]] = (
        "step",
        "gain",
        "gradient",
        "centroids",
        "lengths",
        "rate",
    )
    narrow_only: ClassVar[bool] = True
    undone_by_others: ClassVar[bool] = True

    def keeping_widths(self) -> GWK:
        """As of :class:`Method`: on grids of the rows' own widths."""
        return self.model_copy(update={"word_bits": None, "alone_bits": None})

    def start(self, weight: Tensor, bits: Tensor, quantizer: Quantizer) -> dict[str, Tensor]:
        """As of :class:`Method`: plain k-means, because no gradient is known yet."""
        own = {"step": quantizer.fit(weight, self._stored(weight, bits))}
        coded = self._coded(weight, bits)
        if not coded.any():
            return own
        gain = deviations(weight)
        blocks = cut(weight, coded, gain, block_length(weight, self.channels))
        grids = len(bits[coded].unique()) if self.word_bits is None else 1
        words = max(2, min(self.words, len(blocks) // self.blocks_per_word) // grids)
        seeds = spread(blocks, words)
        book = refined(blocks, torch.ones_like(blocks), seeds, 0.0, _START_ROUNDS)
        return {
            **own,
            "gain": gain,
            "gradient": torch.zeros_like(weight),
            "centroids": book.centroids,
            "lengths": book.bits,
            "rate": torch.zeros(()),
        }

    def quantized(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Tensor:
        """As of :class:`Method`; value and gradient of rows with a codebook are exact."""
        coded = self._coded(weight, bits)
        if not coded.any():
            return straight_through(weight, self._stored(weight, bits), own["step"], quantizer)
        codes, steps = self._blocks(weight.detach(), bits, own).codes()
        made = straight(weight, codes * rows(steps, weight))
        if coded.all():
            return made
        alone = straight_through(weight, self._stored(weight, bits), own["step"], quantizer)
        return torch.where(rows(coded, weight), made, alone)

    def settled(self, weight: Tensor, bits: Tensor, own: Own, quantizer: Quantizer) -> Settled:
        """As of :class:`Method`: codes of 8 bits, without a codebook as :attr:`alone_bits` says."""
        coded, narrow = self._coded(weight, bits), is_narrow(bits)
        stored = self._stored(weight, bits)
        made = self.quantized(weight, bits, own, quantizer).detach()
        steps = torch.where(narrow, own["step"], quantizer.fit(weight, stored))
        if coded.any():
            steps = torch.where(coded, self._blocks(weight, bits, own).codes()[1], steps)
        return Settled(torch.where(rows(narrow, weight), made, weight), steps, stored)

    @torch.no_grad()
    def refreshed(self, moment: Moment) -> dict[str, Tensor]:
        """As of :class:`Method`: gradients are added up, codebooks and steps fitted anew."""
        if moment.progress > self.refitted_for:
            return {}
        gradients, found = self._gradients(moment), dict[str, Tensor]()
        books: dict[str, Blocks] = {}
        for layer in layers(moment.graph):
            name, (weight, bits, own) = layer.name, self._of(moment, layer)
            found[own_name(name, "step")] = moment.goal.quantizer.fit(
                weight, self._stored(weight, bits)
            )
            coded = self._coded(weight, bits)
            if coded.any():
                own["gradient"] = own["gradient"] + gradients[name].abs()
                own["gain"] = deviations(weight)
                found |= {own_name(name, role): own[role] for role in ("gradient", "gain")}
                books[name] = self._blocks(weight, bits, own)
        if not books:
            return found
        for name, book in zip(books, self._refitted([*books.values()]), strict=True):
            found[own_name(name, "centroids")] = book.book.centroids
            found[own_name(name, "lengths")] = book.book.bits
            found[own_name(name, "rate")] = torch.tensor(book.rate)
        return found

    @torch.no_grad()
    def finished(self, graph: Graph, goal: Goal, state: State) -> dict[str, Tensor]:
        """As of :class:`Method`; bits have a price at which they are few enough."""
        books: dict[str, Blocks] = {}
        for layer in layers(graph):
            weight, bits = state[layer.node.parameters["weight"]], goal.bits[layer.name]
            coded = self._coded(weight, bits)
            if coded.any():
                own = own_of(state, layer.name, self.layer_roles)
                books[layer.name] = self._blocks(weight, bits, own)
        if not books or packed_bits_per_weight(books.values()) <= self.bits_per_weight:
            return super().finished(graph, goal, state)
        priced = at_rate_within(books.values(), self.bits_per_weight)
        rates = {
            own_name(name, "rate"): torch.tensor(book.rate)
            for name, book in zip(books, priced, strict=True)
        }
        return super().finished(graph, goal, {**state, **rates})

    def _refitted(self, books: list[Blocks]) -> list[Blocks]:
        budget = _KEPT * self.bits_per_weight
        for _ in range(_EPOCH_ROUNDS):
            books = [book.moved() for book in at_rate_within(books, budget)]
        return at_rate_within(books, budget)

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

    def _of(self, moment: Moment, layer: Layer) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weight = moment.state[layer.node.parameters["weight"]]
        own = own_of(moment.state, layer.name, self.layer_roles)
        return weight, moment.goal.bits[layer.name], own

    def _blocks(self, weight: Tensor, bits: Tensor, own: Own) -> Blocks:
        coded, length = self._coded(weight, bits), block_length(weight, self.channels)
        return Blocks(
            weight,
            coded,
            own["gain"],
            importance_of(own["gradient"], coded, length, self.nudge),
            Codebook(own["centroids"], own["lengths"]),
            float(own["rate"]),
            bits if self.word_bits is None else torch.full_like(bits, self.word_bits),
        )

    def _coded(self, weight: Tensor, bits: Tensor) -> Tensor:
        """``[O]`` bool: the rows with a codebook; one that is a single block has none."""
        length, narrow = block_length(weight, self.channels), is_narrow(bits)
        blocks = int(narrow.sum()) * weight[0].numel() // length
        many = weight[0].numel() > length and blocks >= self.least_blocks
        return narrow if many else torch.zeros_like(narrow)

    def _stored(self, weight: Tensor, bits: Tensor) -> Tensor:
        """``[O]`` widths of the codes in the end."""
        alone = bits
        if self.alone_bits is not None:
            alone = torch.where(is_narrow(bits), self.alone_bits, bits)
        return torch.where(self._coded(weight, bits), STORED, alone)
