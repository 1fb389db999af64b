"""From a controller's numbers to bit-widths of channels, and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ajpq.policy import CompressionPolicy, LayerPolicy, QuantizerSpec
from envs.allocation import Ladder, widths_with_mean
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS

# Width of the ramp of bits across a layer's channels at full spread. A ramp one bit wide (spread
# 0) already realises every fractional mean: its rounding gives two neighbouring widths.
_WIDEST_RAMP_BITS = 4.0
# Sparsity settings up to here mean "prune nothing": leaving a layer whole is a decision that a
# controller must be able to reach without hitting one exact number.
KEEP_ALL = 0.5


@dataclass(frozen=True)
class Knobs:
    """What a controller sets for a layer, each a number in [0, 1].

    Attributes:
        names: ``sparsity`` always; ``bits`` and ``spread`` unless the precision is fixed;
            ``activation`` if the target offers more than one activation width.
        weight_bits: live widths that the target stores, ascending.
        activation_bits: widths of activations that the target computes with, ascending.
        max_sparsity: the sparsity that 1 stands for.
        fixed_bits: every live channel has this width.
        granularity: live channels come in blocks of so many.
        width_block: so many live channels share a width, those that want the widest first.
    """

    names: tuple[str, ...]
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    max_sparsity: float
    fixed_bits: int | None
    granularity: int = 1
    width_block: int = 1

    @property
    def loosest(self) -> np.ndarray:
        """``[K]`` values that give the most expensive layer; spread does not matter there."""
        return 1.0 - self.tightest

    @property
    def tightest(self) -> np.ndarray:
        """``[K]`` values that give the cheapest layer."""
        cheap = {"sparsity": 1.0, "bits": 0.0, "spread": 0.0, "activation": 0.0}
        return np.array([cheap[name] for name in self.names])


def make_knobs(
    weight_bits: Sequence[int],
    activation_bits: Sequence[int],
    *,
    max_sparsity: float,
    fixed_bits: int | None,
    granularity: int = 1,
    width_block: int = 1,
) -> Knobs:
    """The knobs that a target leaves free.

    Raises:
        AjpqError: the target does not store ``fixed_bits`` or cannot hold a pruned channel.
    """
    live = tuple(sorted(width for width in weight_bits if 0 < width <= 8)) or _only_real(
        weight_bits
    )
    if fixed_bits is not None and fixed_bits not in live:
        raise AjpqError(f"the target stores weights of {live} bits, got --fixed-bits {fixed_bits}")
    activations = tuple(sorted(w for w in activation_bits if w <= 8)) or _only_real(activation_bits)
    if not live or not activations:
        raise AjpqError("the target offers no width for live weights or for activations")
    names = ["sparsity"]
    if fixed_bits is None and len(live) > 1:
        names += ["bits", "spread"]
    if len(activations) > 1:
        names.append("activation")
    reachable = max_sparsity if 0 in weight_bits else 0.0
    return Knobs(tuple(names), live, activations, reachable, fixed_bits, granularity, width_block)


def _only_real(widths: Sequence[int]) -> tuple[int, ...]:
    """32 bits where a target has nothing narrower, such as weight-only quantization."""
    return tuple(width for width in widths if width == FLOAT_BITS)


def channel_bits(
    scores: np.ndarray,
    knobs: Knobs,
    values: np.ndarray,
    prunable: bool,
    ladder: Ladder | None = None,
) -> np.ndarray:
    """Widths of one layer's channels: the least important are pruned, the rest share the mean.

    Args:
        scores: ``[C]`` importance.
        values: ``[K]`` knob settings in [0, 1].
        prunable: False for the layer that makes the logits.
        ladder: who buys the bits; without one widths ramp up with importance.

    Returns:
        ``[C]`` int64, read-only; at least one channel is live.
    """
    asked = np.asarray(scores, np.float64), np.asarray(values, np.float64)
    return _channel_bits(knobs, prunable, ladder, *(numbers.tobytes() for numbers in asked))[0]


@functools.lru_cache(maxsize=1 << 14)
def _channel_bits(
    knobs: Knobs, prunable: bool, ladder: Ladder | None, scores: bytes, values: bytes
) -> tuple[np.ndarray, bytes, int]:
    """:func:`channel_bits`, their bytes, and :func:`activation_width`.

    A projection moves one layer at a time and decodes all of them.
    """
    setting = np.frombuffer(values)
    found = _decoded(np.frombuffer(scores), knobs, setting, prunable, ladder)
    found.setflags(write=False)
    return found, found.tobytes(), activation_width(knobs, setting)


def _decoded(
    scores: np.ndarray, knobs: Knobs, values: np.ndarray, prunable: bool, ladder: Ladder | None
) -> np.ndarray:
    setting = dict(zip(knobs.names, values.tolist(), strict=True))
    count = len(scores)
    live = live_channels(count, knobs, setting["sparsity"]) if prunable else count
    order = np.argsort(scores, kind="stable")
    bits = np.zeros(count, dtype=np.int64)
    kept = order[count - live :]
    if ladder is not None and "bits" in setting:
        bits[kept] = 1
        bits = widths_with_mean(ladder, bits > 0, mean_width(knobs, setting["bits"]))
    else:
        bits[kept] = _ramp(live, knobs, setting)
    return _in_blocks(bits, scores, knobs) if knobs.width_block > 1 else bits


def _in_blocks(bits: np.ndarray, scores: np.ndarray, knobs: Knobs) -> np.ndarray:
    """``bits [C]`` whose live channels share widths in blocks, each the nearest to its mean."""
    found, offered = bits.copy(), np.array(knobs.weight_bits)
    blocks = np.where(bits > 0, width_blocks(bits, scores, knobs), -1)
    for number in range(blocks.max() + 1):
        block = blocks == number
        found[block] = offered[np.abs(offered - bits[block].mean()).argmin()]
    return found


def width_blocks(bits: np.ndarray, scores: np.ndarray, knobs: Knobs) -> np.ndarray:
    """``[C]`` numbers of the blocks whose channels share a width; pruned channels have the last.

    Of channels that want the same width the more important ones come first.
    """
    order = np.lexsort((scores, bits))[::-1]
    found = np.empty(len(bits), dtype=np.int64)
    found[order] = np.arange(len(bits)) // knobs.width_block
    live = int((bits > 0).sum())
    return np.where(bits > 0, found, -(-live // knobs.width_block))


def mean_width(knobs: Knobs, setting: float) -> float:
    """Mean width of live channels that a setting of the knob ``bits`` stands for."""
    low, high = knobs.weight_bits[0], knobs.weight_bits[-1]
    return low + setting * (high - low)


def live_channels(count: int, knobs: Knobs, setting: float) -> int:
    """How many of ``count`` channels a setting of the knob ``sparsity`` leaves, in whole blocks."""
    sparsity = max(0.0, (setting - KEEP_ALL) / (1 - KEEP_ALL)) * knobs.max_sparsity
    wanted = max(count - int(np.floor(sparsity * count + 1e-9)), 1)
    blocks = max(round(wanted / knobs.granularity), 1)
    return count if wanted == count else min(blocks * knobs.granularity, count)


def _ramp(live: int, knobs: Knobs, setting: Mapping[str, float]) -> np.ndarray:
    """``[live]`` ascending widths with the wanted mean, as far as the offered widths allow."""
    if "bits" not in setting:
        return np.full(live, knobs.fixed_bits or knobs.weight_bits[-1], dtype=np.int64)
    low, high = knobs.weight_bits[0], knobs.weight_bits[-1]
    mean = mean_width(knobs, setting["bits"])
    width = 1.0 + setting.get("spread", 0.0) * (_WIDEST_RAMP_BITS - 1.0)
    position = (np.arange(live) + 0.5) / live - 0.5
    wanted = np.clip(mean + width * position, low, high)
    offered = np.array(knobs.weight_bits)
    return offered[np.abs(wanted[:, None] - offered[None, :]).argmin(axis=1)]


def with_sparsity_of(values: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """``values [K]`` with the sparsity, the first knob, of another layer."""
    return np.concatenate([leader[:1], values[1:]])


def activation_width(knobs: Knobs, values: np.ndarray) -> int:
    """Width of the codes that the layer reads."""
    setting = dict(zip(knobs.names, values.tolist(), strict=True))
    top = len(knobs.activation_bits) - 1
    return knobs.activation_bits[round(setting.get("activation", 1.0) * top)]


def decode(
    actions: np.ndarray,
    scores: Mapping[str, np.ndarray],
    leaders: Sequence[int],
    unprunable: frozenset[str],
    knobs: Knobs,
    quantizer: QuantizerSpec,
    ladders: Sequence[Ladder] | None = None,
) -> CompressionPolicy:
    """The policy of a whole walk.

    Args:
        actions: ``[L, K]`` in [0, 1], layers in the order of ``scores``.
        leaders: for each layer the index of the layer whose sparsity it takes: the first of those
            whose channels live and die together. A channel pruned in one of them alone would stay
            in the network as a row of zeros.
        ladders: of each layer, who buys its bits; None for ramps.
    """
    asked = np.array(actions, dtype=np.float64)
    asked[:, 0] = asked[list(leaders), 0]
    found = []
    for index, (name, own) in enumerate(scores.items()):
        ladder, values = ladders[index] if ladders else None, asked[index].tobytes()
        importance = np.asarray(own, np.float64).tobytes()
        found.append(
            (name, *_channel_bits(knobs, name not in unprunable, ladder, importance, values)[1:])
        )
    return _policy(tuple(found), quantizer.model_dump_json())


@functools.lru_cache(maxsize=1 << 12)
def _policy(layers: tuple[tuple[str, bytes, int], ...], quantizer: str) -> CompressionPolicy:
    """Many proposals decode to the same policy: one object stands for all of them."""
    return CompressionPolicy(
        layers={name: _layer_policy(*own) for name, *own in layers},
        quantizer=QuantizerSpec.model_validate_json(quantizer),
    )


@functools.lru_cache(maxsize=1 << 14)
def _layer_policy(bits: bytes, activation_bits: int) -> LayerPolicy:
    """Validated once: layers are frozen, so that policies may share them."""
    widths = np.frombuffer(bits, np.int64).tolist()
    return LayerPolicy(weight_bits=tuple(widths), activation_bits=activation_bits)
