"""How much every layer minds narrow weights and every group of layers pruned channels.

Single changes in the uncompressed network, measured as the KL divergence from its predictions:
what post-training toolkits plan mixed precision by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.trials import Trials
from ajpq.policy import LayerPolicy
from envs.actions import KEEP_ALL, Knobs, channel_bits
from envs.task import CompressionTask
from hw_models.network import FLOAT_BITS


@dataclass(frozen=True, eq=False)
class SensitivityTable:
    """Divergences in nats, for L layers, W widths, G groups and S sparsity levels.

    Attributes:
        widths: ``[W]`` int64, ascending: what live channels may have.
        kl: ``[L, W]`` with only this layer's weights at this width.
        groups: ``[G]`` int64: the layer that decides the sparsity of each group of layers whose
            channels live and die together.
        levels: ``[S]`` shares of channels to be pruned, ascending, above 0; a target may round
            them to whole blocks.
        kl_pruned: ``[G, S]`` with only this group's least important channels pruned.
    """

    widths: np.ndarray
    kl: np.ndarray
    groups: np.ndarray
    levels: np.ndarray
    kl_pruned: np.ndarray


def measure_sensitivities(
    task: CompressionTask, trials: Trials, sparsity_levels: int = 4
) -> SensitivityTable:
    """Measure the table; equal changes are measured, and paid for, once.

    Args:
        sparsity_levels: S, equal steps up to the most that may be pruned; none where the target
            cannot hold a pruned channel.

    Raises:
        SearchOver: candidates, images or time are used up.
    """
    knobs = task.knobs
    widths = (knobs.fixed_bits,) if knobs.fixed_bits is not None else knobs.weight_bits
    count = sparsity_levels if knobs.max_sparsity > 0 else 0
    levels = knobs.max_sparsity * np.arange(1, count + 1) / max(count, 1)
    groups = [
        index
        for index, name in enumerate(task.scores)
        if task.leaders[index] == index and name not in task.unprunable and count
    ]
    harm = _measured_once(lambda changes: trials.harm(task, changes))
    kl = [[harm(_narrowed(task, name, width)) for width in widths] for name in task.scores]
    pruned = [[harm(_pruned(task, group, level)) for level in levels] for group in groups]
    return SensitivityTable(
        widths=np.array(widths, dtype=np.int64),
        kl=np.array(kl),
        groups=np.array(groups, dtype=np.int64),
        levels=levels,
        kl_pruned=np.array(pruned).reshape(len(groups), count),
    )


def sparsity_setting(knobs: Knobs, level: float) -> float:
    """The setting of the knob ``sparsity`` that prunes the share ``level`` of the channels."""
    return KEEP_ALL + (1 - KEEP_ALL) * level / max(knobs.max_sparsity, 1e-12)


def _narrowed(task: CompressionTask, name: str, width: int) -> dict[str, LayerPolicy]:
    if width == FLOAT_BITS:
        return {}
    return {name: _weights_only([width] * len(task.scores[name]))}


def _pruned(task: CompressionTask, group: int, level: float) -> dict[str, LayerPolicy]:
    """All layers that follow ``group``, pruned but not quantized; empty if nothing is pruned."""
    values = task.knobs.loosest.copy()
    values[task.knobs.names.index("sparsity")] = sparsity_setting(task.knobs, level)
    changes = {}
    for (name, scores), leader in zip(task.scores.items(), task.leaders, strict=True):
        live = channel_bits(scores, task.knobs, values, name not in task.unprunable) > 0
        if leader == group and not live.all():
            changes[name] = _weights_only(np.where(live, FLOAT_BITS, 0).tolist())
    return changes


def _weights_only(bits: Sequence[int]) -> LayerPolicy:
    return LayerPolicy(weight_bits=tuple(bits), activation_bits=FLOAT_BITS)


def _measured_once(
    harm: Callable[[Mapping[str, LayerPolicy]], float],
) -> Callable[[dict[str, LayerPolicy]], float]:
    """``harm`` of changes, asked once each; nothing does none."""
    known: dict[tuple[tuple[str, tuple[int, ...]], ...], float] = {(): 0.0}

    def ask(changes: dict[str, LayerPolicy]) -> float:
        key = tuple((name, layer.weight_bits) for name, layer in changes.items())
        if key not in known:
            known[key] = harm(changes)
        return known[key]

    return ask
