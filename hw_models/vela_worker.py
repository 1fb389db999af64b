"""The process that Arm's compiler runs in; started by its path, never imported.

It may die of a network that it cannot compile, and only it. Requests come on standard input and
replies go to standard output, both as frames: the length of a JSON header (4 bytes, little
endian), the header, and as many bytes as its ``size`` says. A request is a device and a
``.tflite`` file, a reply the compiler's figures and the compiled file, or an ``error`` and its
``kind``: ``device`` (no such device), ``network`` (it will not compile) or ``interface`` (this
version of the compiler is not the one that this file knows).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

LENGTH = struct.Struct("<I")
ON_CHIP = ("shram", "lutram")  # inside the accelerator: nobody has to provide them
OPTIONS = """
[compiler]
enable_db=true
output_format=TFLite
cop_format=COP1

[scheduler]
optimize=Performance
arena_size_limit={arena_size}
disable_feature=
cpu_tensor_alignment=16
tensor_allocator=HillClimb

[graph]
"""  # the defaults of the vela command, and the per-operator database


class DeviceError(Exception):
    """There is no such accelerator, system configuration or memory mode."""


class NetworkError(Exception):
    """The compiler refuses the network."""


@dataclass(frozen=True)
class Device:
    """A device in the compiler's own words."""

    architecture: str
    system: str
    options: str
    clock_hz: float


def read_frame(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, or ``None`` where the stream ends."""
    prefix = stream.read(LENGTH.size)
    if len(prefix) < LENGTH.size:
        return None
    header = json.loads(stream.read(LENGTH.unpack(prefix)[0]))
    return header, stream.read(header["size"])


def write_frame(stream: BinaryIO, header: Mapping[str, Any], body: bytes = b"") -> None:
    """Write one frame."""
    text = json.dumps({**header, "size": len(body)}).encode()
    stream.write(LENGTH.pack(len(text)) + text + body)
    stream.flush()


@functools.lru_cache(maxsize=16)
def find_device(accelerator: str, system_config: str, memory_mode: str) -> Device:
    """Look a device up in the configuration file that the compiler ships.

    Raises:
        DeviceError: one of the three names is unknown.
    """
    from ethosu.vela import architecture_features
    from ethosu.vela.errors import VelaError

    known = architecture_features.Accelerator.member_list()
    if accelerator not in known:
        raise DeviceError(f"unknown accelerator {accelerator!r}; known: {', '.join(known)}")
    ini = Path(architecture_features.CONFIG_FILES_PATH) / "Arm" / "vela.ini"
    try:
        found = architecture_features.ArchitectureFeatures(
            vela_config_files=[str(ini)],
            system_config=system_config,
            memory_mode=memory_mode,
            accelerator_config=accelerator,
            max_blockdep=architecture_features.ArchitectureFeatures.MAX_BLOCKDEP,
            verbose_config=False,
            arena_cache_size=None,
        )
    except VelaError as error:
        raise DeviceError(" ".join(str(error).strip("'").split())) from error
    system = (
        f"[architecture]\nmacs={found.num_macs_per_cycle}\ncores={found.ncores}\n"
        f"[vela]\nsystem_config_name={found.system_config}\n"
        f"memory_mode_name={found.memory_mode}\n{ini.read_text()}"
    )
    family = "".join(word.capitalize() for word in accelerator.split("-")[:-1])
    options = OPTIONS.format(arena_size=found.arena_cache_size)
    return Device(family, system, options, float(found.core_clock))


def operator_figures(tables: Mapping[str, Any]) -> list[dict[str, int]]:
    """Cycles and encoded bytes per operator of the file that was compiled, by its number there.

    What the compiler adds of its own (padding as a copy, splits) counts for the operator that it
    comes from.
    """
    numbers = {row["id"]: int(row["ext_key"]) for row in _rows(tables, "source")}
    stored = {
        row["id"]: int(row["weight_total_bytes"] or 0) + int(row["scales_total_bytes"] or 0)
        for row in _rows(tables, "perf_debug")
    }
    totals: dict[int, dict[str, int]] = {}
    for row in _rows(tables, "perf"):
        number = numbers.get(row["source_id"], -1)
        figures = totals.setdefault(number, {"number": number, "cycles": 0, "weight_bytes": 0})
        figures["cycles"] += int(row["op_cycles"])
        figures["weight_bytes"] += stored.get(row["id"], 0)
    return [totals[number] for number in sorted(totals)]


def _rows(tables: Mapping[str, Any], name: str) -> list[dict[str, str]]:
    table = tables.get(name)
    return (
        [] if table is None else [dict(zip(table.header, row, strict=True)) for row in table.data]
    )


def compile_model(model: bytes, device: Device) -> tuple[dict[str, Any], bytes]:
    """The compiler's figures and the compiled file.

    Raises:
        NetworkError: the compiler refuses the network.
        AttributeError, TypeError, KeyError: this is another compiler than 5.2.
    """
    from ethosu import regor

    try:
        compiled = regor.compile(
            device.architecture, model, "TFLITE", device.system, options=device.options
        )
    except RuntimeError as error:
        raise NetworkError(" ".join(str(error).split())) from error
    report = compiled.perf_report
    peaks = {name: m.peakUsage for name, m in report.memories.items() if name not in ON_CHIP}
    figures = {
        "total_cycles": report.totalCycles,
        "npu_cycles": report.npuCycles,
        "core_clock_hz": device.clock_hz,
        "encoded_weight_bytes": report.encodedWeights,
        "memory_peak_bytes": peaks,
        "peak_activation_bytes": sum(peaks.values()) - report.readOnlyPeakUsage,
        "operators": operator_figures(compiled.opt_database.tables),
    }
    return figures, bytes(compiled.model)


def answer(request: Mapping[str, Any], model: bytes) -> tuple[dict[str, Any], bytes]:
    """The reply to one request."""
    try:
        names = (request["accelerator"], request["system_config"], request["memory_mode"])
        figures, compiled = compile_model(model, find_device(*names))
    except DeviceError as error:
        return {"error": str(error), "kind": "device"}, b""
    except NetworkError as error:
        return {"error": str(error), "kind": "network"}, b""
    except Exception as error:  # whatever an interface that changed may raise
        return {"error": f"{type(error).__name__}: {error}", "kind": "interface"}, b""
    return {"figures": figures}, compiled


def main() -> None:
    """Answer until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the compiler prints
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        write_frame(replies, *answer(*frame))


if __name__ == "__main__":
    main()
