"""What the controller sees before it decides a layer; every entry lies in [0, 1]."""

from __future__ import annotations

import numpy as np

from envs.actions import channel_bits, with_sparsity_of
from envs.task import CompressionTask, LayerFacts

_STATIC = 14
_SPENT = 4
_BUDGET = 5


def observation_size(task: CompressionTask) -> int:
    """Length of the observation vector."""
    return _STATIC + _SPENT + _BUDGET + 2 * len(task.knobs.names)


def observe(task: CompressionTask, index: int, taken: np.ndarray) -> np.ndarray:
    """The observation at layer ``index``; ``taken [index, K]`` are the settings so far.

    ``index`` may be the number of layers: the observation after the last decision.
    """
    facts = task.layers[min(index, len(task.layers) - 1)]
    prior = task.prior[min(index, len(task.layers) - 1)]
    previous = taken[-1] if index else np.full(len(task.knobs.names), 0.5)
    vector = np.concatenate(
        [
            _static(facts, index, len(task.layers)),
            _spent(task, taken),
            budget_bounds(task),
            prior,
            previous,
        ]
    )
    return np.clip(vector, 0.0, 1.0).astype(np.float32)


def _log(value: float, largest: float) -> float:
    return float(np.log2(1 + value) / np.log2(1 + largest))


def _static(facts: LayerFacts, index: int, count: int) -> np.ndarray:
    return np.array(
        [
            index / count,
            facts.kind == "conv",
            facts.depthwise,
            facts.coupled,
            _log(facts.inputs, 4096),
            _log(facts.outputs, 4096),
            facts.kernel / 7,
            (facts.stride - 1) / 3,
            _log(facts.positions, 224 * 224),
            facts.macs_share,
            facts.weights_share,
            facts.latency_share,
            *facts.sensitivity,
        ],
        dtype=np.float64,
    )


def _spent(task: CompressionTask, taken: np.ndarray) -> np.ndarray:
    """Weight bits and MACs spent so far and still open, as shares of the 8-bit network."""
    bits = macs = passed_bits = passed_macs = 0.0
    live_inputs = 1.0
    for index, own in enumerate(taken):
        facts = task.layers[index]
        values = with_sparsity_of(own, taken[task.leaders[index]])
        prunable = facts.name not in task.unprunable
        widths = channel_bits(task.scores[facts.name], task.knobs, values, prunable)
        live = float((widths > 0).mean())
        bits += facts.weights_share * float(widths.mean()) / 8
        macs += facts.macs_share * live * (1.0 if facts.depthwise else live_inputs)
        live_inputs = live
        passed_bits += facts.weights_share
        passed_macs += facts.macs_share
    return np.array([bits, macs, 1 - passed_bits, 1 - passed_macs])


def budget_bounds(task: CompressionTask) -> np.ndarray:
    """``[5]`` bounds on latency, flash, SRAM and energy, and four times that on size."""
    bounds = task.budget.bounds
    others = [bounds.get(name, 1.0) for name in ("latency", "flash", "sram", "energy")]
    return np.array([*others, 4 * bounds.get("size", 0.25)])
