"""How much every layer minds narrow weights and every group of layers pruned channels.

Single changes in the uncompressed network, measured as the KL divergence from its predictions:
what post-training toolkits plan mixed precision by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agents.trials import Trials
from ajpq.policy import LayerPolicy
from envs.actions import KEEP_ALL, Knobs, channel_bits
from envs.task import CompressionTask
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS
from hw_models.plain import clipped, read_json, shown

FILE = "sensitivities.json"


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


_Nats = Annotated[float, Field(ge=-1e-9, allow_inf_nan=False)]  # a zero may be rounded below 0
_Share = Annotated[float, Field(gt=0, le=1)]


class _Saved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    widths: list[int]
    kl: list[list[_Nats]]
    groups: list[int]
    levels: list[_Share]
    kl_pruned: list[list[_Nats]]

    @model_validator(mode="after")
    def _check_shapes(self) -> _Saved:
        if any(low >= high for low, high in pairwise(self.levels)):
            raise ValueError(f"levels: expected ascending ones, got {shown(self.levels)}")
        if len(self.kl_pruned) != len(self.groups):
            wanted, got = len(self.groups), len(self.kl_pruned)
            raise ValueError(f"kl_pruned: expected {wanted} rows, got {got}")
        _check_rows("kl", self.kl, len(self.widths))
        _check_rows("kl_pruned", self.kl_pruned, len(self.levels))
        return self


def _check_rows(name: str, rows: list[list[float]], columns: int) -> None:
    for place, row in enumerate(rows):
        if len(row) != columns:
            raise ValueError(f"{name}.{place}: expected {columns} values, got {len(row)}")


def save_sensitivities(folder: Path, table: SensitivityTable) -> None:
    """Write ``sensitivities.json``: for another budget they need not be measured again.

    Divergences that are not all finite are not written: JSON has no such numbers.
    """
    if not (np.isfinite(table.kl).all() and np.isfinite(table.kl_pruned).all()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    saved = _Saved(**{name: values.tolist() for name, values in asdict(table).items()})
    (folder / FILE).write_text(saved.model_dump_json() + "\n")


def load_sensitivities(folder: Path, task: CompressionTask) -> SensitivityTable | None:
    """What :func:`save_sensitivities` wrote; None if nothing, or of other layers, widths or
    sparsities.

    Raises:
        AjpqError: the file is damaged.
    """
    if not (folder / FILE).exists():
        return None
    saved = _read(folder / FILE)
    groups = _groups(task) if saved.levels else []
    found = len(saved.kl), tuple(saved.widths), saved.groups
    same_range = math.isclose([0.0, *saved.levels][-1], task.knobs.max_sparsity)
    if found != (len(task.layers), _widths(task), groups) or not same_range:
        return None
    return SensitivityTable(
        widths=np.array(saved.widths, dtype=np.int64),
        kl=np.array(saved.kl),
        groups=np.array(groups, dtype=np.int64),
        levels=np.array(saved.levels),
        kl_pruned=np.array(saved.kl_pruned).reshape(len(groups), len(saved.levels)),
    )


def _read(path: Path) -> _Saved:
    try:
        return _Saved.model_validate(read_json(path))
    except OSError as error:
        raise AjpqError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(map(str, first["loc"])))
        what = f"{where}: {first['msg']}, got {shown(first['input'])}" if where else first["msg"]
        raise AjpqError(f"{path} is damaged: {what}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is damaged: {clipped(str(error))}") from error


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
    widths = _widths(task)
    count = sparsity_levels if knobs.max_sparsity > 0 else 0
    levels = knobs.max_sparsity * np.arange(1, count + 1) / max(count, 1)
    groups = _groups(task) if count else []
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


def _widths(task: CompressionTask) -> tuple[int, ...]:
    fixed = task.knobs.fixed_bits
    return task.knobs.weight_bits if fixed is None else (fixed,)


def _groups(task: CompressionTask) -> list[int]:
    """The layers that decide the sparsity of those whose channels live and die with theirs."""
    return [
        index
        for index, name in enumerate(task.scores)
        if task.leaders[index] == index and name not in task.unprunable
    ]


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
