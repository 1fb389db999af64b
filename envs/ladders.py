"""From the most expensive policy down, by what every step saves on the target and harms."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ajpq.evaluate import Costs
from ajpq.policy import CompressionPolicy, LayerPolicy
from envs.actions import KEEP_ALL, Knobs, live_channels
from envs.budget import Budget
from envs.greedy import Rungs, greedy_path
from hw_models.network import FLOAT_BITS

# Nats of divergence, summed over steps, beyond which no network is worth pricing.
_MOST_HARM = 1.0
# A layer of many channels loses an eighth of them at a time.
_PARTS = 8


@dataclass(frozen=True)
class Ladder:
    """One knob of the layers that share it, and its settings, from the most expensive down."""

    layers: tuple[int, ...]
    knob: int
    settings: tuple[float, ...]


def ladders(
    knobs: Knobs,
    channels: Sequence[int],
    pruned_together: Sequence[int],
    read_together: Sequence[int],
    prunable: Sequence[bool],
) -> list[Ladder]:
    """All that can be made cheaper, a ladder each.

    Args:
        channels: of each layer.
        pruned_together: for each layer the first of those whose channels live and die with its.
        read_together: for each layer the first of those that read the same stream.
        prunable: may the layer lose channels?
    """
    found = []
    for layer, count in enumerate(channels):
        ways = {
            "sparsity": (pruned_together, _sparsities(count, knobs) if prunable[layer] else ()),
            "bits": (range(len(channels)), _spaced(knobs.weight_bits)),
            "activation": (read_together, _spaced(range(len(knobs.activation_bits)))),
        }
        for name, (leaders, settings) in ways.items():
            if name in knobs.names and leaders[layer] == layer and len(settings) > 1:
                alike = tuple(i for i, leader in enumerate(leaders) if leader == layer)
                found.append(Ladder(alike, knobs.names.index(name), settings))
    return found


def _spaced(values: Sequence[int]) -> tuple[float, ...]:
    """Positions of ascending ``values`` between the first and the last, from 1 to 0."""
    reach = max(values[-1] - values[0], 1)
    return tuple((value - values[0]) / reach for value in reversed(values))


def _sparsities(count: int, knobs: Knobs) -> tuple[float, ...]:
    """Settings that keep all channels, then some blocks fewer each, as far as the knob goes."""
    block = knobs.granularity
    step = -(-count // (_PARTS * block)) * block
    least = live_channels(count, knobs, 1.0)
    fewer = [live for live in range(count - 1, least, -1) if live % step == 0]
    shares = [(count - live) / count / knobs.max_sparsity for live in fewer]
    ends = (1.0,) if least < count else ()
    return (KEEP_ALL / 2, *(KEEP_ALL + (1 - KEEP_ALL) * share for share in shares), *ends)


def cheapening(
    knobs: Knobs,
    found: Sequence[Ladder],
    layers: int,
    policy: Callable[[np.ndarray], CompressionPolicy],
    price: Callable[[CompressionPolicy], Costs],
    divergence: Callable[[Mapping[str, LayerPolicy]], float],
    budget: Budget,
) -> tuple[np.ndarray, ...]:
    """``[L, K]`` settings, each cheaper than the one before.

    Args:
        layers: how many there are.
        policy: what settings stand for.
        price: the target's answer; what counts is :meth:`envs.budget.Budget.cost`.
        divergence: nats lost when the uncompressed network has only these layers changed.
    """

    def settings(rungs: Rungs) -> np.ndarray:
        return settings_at(knobs, layers, found, rungs)

    whole = policy(richest(knobs, layers))

    @functools.cache
    def harm(index: int, rung: int) -> float:
        rungs = [0] * len(found)
        rungs[index] = rung
        return divergence(differences(whole, policy(settings(tuple(rungs)))))

    path = greedy_path(
        [len(ladder.settings) for ladder in found],
        related(found),
        lambda rungs: budget.cost(price(policy(settings(rungs)))),
        harm,
        _MOST_HARM,
    )
    return tuple(settings(rungs) for rungs in path)


def richest(knobs: Knobs, layers: int) -> np.ndarray:
    """``[L, K]`` settings that prune nothing, everything as wide as the target offers."""
    values = {"sparsity": KEEP_ALL / 2, "spread": 0.0}
    loosest = zip(knobs.names, knobs.loosest.tolist(), strict=True)
    return np.tile([values.get(name, value) for name, value in loosest], (layers, 1))


def settings_at(knobs: Knobs, layers: int, found: Sequence[Ladder], rungs: Rungs) -> np.ndarray:
    """``[L, K]`` settings of a position on the ladders."""
    values = richest(knobs, layers)
    for ladder, rung in zip(found, rungs, strict=True):
        values[list(ladder.layers), ladder.knob] = ladder.settings[rung]
    return values


def rungs_near(found: Sequence[Ladder], settings: np.ndarray) -> Rungs:
    """The position on the ladders that is nearest to ``settings [L, K]``."""
    return tuple(
        int(np.abs(np.array(ladder.settings) - settings[ladder.layers[0], ladder.knob]).argmin())
        for ladder in found
    )


def related(found: Sequence[Ladder]) -> list[list[int]]:
    """For each ladder those that share a layer with it, itself included."""
    return [[i for i, b in enumerate(found) if set(a.layers) & set(b.layers)] for a in found]


def differences(whole: CompressionPolicy, changed: CompressionPolicy) -> dict[str, LayerPolicy]:
    """The layers in which ``changed`` differs, with real numbers where it does not."""
    found = {}
    for name, layer in changed.layers.items():
        before = whole.layers[name]
        if layer != before:
            pairs = zip(before.weight_bits, layer.weight_bits, strict=True)
            same = layer.activation_bits == before.activation_bits
            found[name] = LayerPolicy(
                weight_bits=tuple(FLOAT_BITS if old == new else new for old, new in pairs),
                activation_bits=FLOAT_BITS if same else layer.activation_bits,
            )
    return found
