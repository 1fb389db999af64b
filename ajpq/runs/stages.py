"""Snapshots of an unfinished fine-tuning, so that a killed run loses at most one epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.finetune.training import Snapshot
from hw_models.errors import AjpqError

_STATE, _OPTIMIZER = "state.", "optimizer."


def save_snapshot(path: Path, stage: int, snapshot: Snapshot) -> None:
    """Write one epoch's snapshot, replacing the one before."""
    tensors = {_STATE + name: value for name, value in snapshot.state.items()}
    scalars: dict[str, Any] = {}
    for index, entries in snapshot.optimizer["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value
            else:
                scalars[f"{index}.{name}"] = value
    description = {
        "stage": stage,
        "epoch": snapshot.epoch,
        "groups": snapshot.optimizer["param_groups"],
        "scalars": scalars,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, {"snapshot": json.dumps(description)})


def load_snapshot(path: Path) -> tuple[int, Snapshot] | None:
    """The stage and the snapshot in ``path``; None if there is none or a kill left it unusable."""
    if not path.exists():
        return None
    try:
        tensors, metadata = load_tensors(path)
        description = json.loads(metadata["snapshot"])
    except (AjpqError, KeyError, ValueError):
        return None
    state = {k.removeprefix(_STATE): v for k, v in tensors.items() if k.startswith(_STATE)}
    optimizer: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, key = name.removeprefix(_OPTIMIZER).split(".", 1)
            optimizer.setdefault(int(index), {})[key] = value
    for name, value in description["scalars"].items():
        index, key = name.split(".", 1)
        optimizer.setdefault(int(index), {})[key] = value
    content = {"state": optimizer, "param_groups": description["groups"]}
    return description["stage"], Snapshot(description["epoch"], state, content)
