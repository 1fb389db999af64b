"""What the last bits of a training depend on, beside its recipe and seed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ajpq.runs.folder import versions


def surroundings() -> dict[str, Any]:
    """``versions`` of the libraries and the ``machine``: processor and instruction set."""
    return {
        "versions": versions(),
        "machine": {
            "processor": processor(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
        },
    }


def changed_surroundings(result: Mapping[str, Any]) -> list[str]:
    """What is different here from where ``result.json`` was made, as ``what: there, here``."""
    here = surroundings()
    found = []
    for group, values in here.items():
        recorded = result.get(group)
        recorded = recorded if isinstance(recorded, Mapping) else {}
        for name, value in values.items():
            if recorded.get(name) != value:
                found.append(f"{name} {recorded.get(name, 'unknown')} there, {value} here")
    return found


def processor() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
