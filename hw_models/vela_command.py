"""Arm's compiler through its command line, for when its Python interface is another one."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hw_models.errors import AjpqError

KIBIBYTE = 1024
MEMORIES = {
    "Sram": "sram",
    "Dram": "dram",
    "OnChipFlash": "on_chip_flash",
    "OffChipFlash": "off_chip_flash",
}


def compile_by_command(
    model: bytes, device: Mapping[str, str], timeout_s: float
) -> tuple[dict[str, Any], bytes]:
    """The same figures as the worker's, from the command's summary; none per operator.

    Raises:
        AjpqError: the command fails; its last line is quoted.
    """
    with tempfile.TemporaryDirectory(prefix="ajpq-vela-") as folder:
        source = Path(folder) / "network.tflite"
        source.write_bytes(model)
        _run(_arguments(source, device), timeout_s)
        with next(Path(folder).glob("*_summary_*.csv")).open(newline="") as table:
            figures = read_summary(next(csv.DictReader(table)))
        return figures, source.with_name("network_vela.tflite").read_bytes()


def _arguments(source: Path, device: Mapping[str, str]) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "ethosu.vela", str(source)),
        *("--output-dir", str(source.parent), "--config", "Arm/vela.ini"),
        *("--accelerator-config", device["accelerator"]),
        *("--system-config", device["system_config"]),
        *("--memory-mode", device["memory_mode"]),
    ]


def _run(arguments: list[str], timeout_s: float) -> None:
    try:
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise AjpqError(f"the vela command gave no answer within {timeout_s:g} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        raise AjpqError(f"the vela command failed with code {done.returncode}: {lines[-1].strip()}")


def read_summary(row: Mapping[str, str]) -> dict[str, Any]:
    """Figures from one line of the summary.

    The summary does not say how much of a memory is read-only; where constants lie in a memory
    that can be written, the encoded weights stand for them.
    """
    peaks = {
        name: round(float(row[f"{column}_memory_used"]) * KIBIBYTE)
        for name, column in MEMORIES.items()
    }
    encoded = int(row["total_npu_encoded_weights"])
    shared = encoded if row["weights_storage_area"] in ("SRAM", "DRAM") else 0
    return {
        "total_cycles": int(row["cycles_total"]),
        "npu_cycles": int(row["cycles_npu"]),
        "core_clock_hz": float(row["core_clock"]),
        "encoded_weight_bytes": encoded,
        "memory_peak_bytes": {name: peak for name, peak in peaks.items() if peak},
        "peak_activation_bytes": peaks["Sram"] + peaks["Dram"] - shared,
        "operators": [],
    }
