"""What Arm's compiler Vela says about an int8 ``.tflite`` file.

Asked in a worker process (:mod:`hw_models.vela_process`), because some networks kill the compiler;
through its command line where the Python interface that the worker uses has changed; and not at
all where the same question was answered before.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from hw_models import answers, vela_process
from hw_models.errors import AjpqError
from hw_models.tflite.leftovers import cpu_operators
from hw_models.vela_command import compile_by_command

PACKAGE = "ethos-u-vela"
TESTED_VERSION = "5.2.0"
ANSWER_FORMAT = 1
TIMEOUT_S = 300.0
REMEMBERED = 4096
CACHE = "vela"


@dataclass(frozen=True)
class Device:
    """An accelerator and the memories around it, by Vela's names."""

    accelerator: str
    system_config: str
    memory_mode: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class OperatorFigures(_Frozen):
    """One operator of the file, by its position there; -1 is what belongs to none."""

    number: int
    cycles: int
    weight_bytes: int


class VelaReport(_Frozen):
    """Vela's answer.

    Attributes:
        total_cycles: for one inference, memory transfers included.
        npu_cycles: what the accelerator alone would need.
        core_clock_hz: cycles per second.
        encoded_weight_bytes: compressed weights.
        compiled_bytes: the whole compiled file: weights, scales, commands, the graph.
        memory_peak_bytes: per memory outside the accelerator.
        peak_activation_bytes: the part of them that is written during an inference: activations
            and the buffers that weights are streamed through.
        operators: cycles (they add up to ``total_cycles``) and bytes per operator; empty if the
            command line was asked.
        cpu_operators: what the accelerator does not run.
    """

    total_cycles: int
    npu_cycles: int
    core_clock_hz: float
    encoded_weight_bytes: int
    compiled_bytes: int
    memory_peak_bytes: dict[str, int]
    peak_activation_bytes: int
    operators: tuple[OperatorFigures, ...]
    cpu_operators: tuple[str, ...]


_remembered: dict[str, VelaReport] = {}


def vela_version() -> str:
    """The version of the installed compiler.

    Raises:
        AjpqError: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise AjpqError(
            f"the Vela compiler is missing; install it: pip install {PACKAGE}=={TESTED_VERSION}"
        ) from None


def cache_key(model: bytes, device: Device, version: str) -> str:
    """Equal questions, equal keys: hex sha256 of the file, the device and the compiler."""
    words = json.dumps([ANSWER_FORMAT, version, *asdict(device).values()])
    return hashlib.sha256(words.encode() + b"\0" + model).hexdigest()


def ask_vela(model: bytes, device: Device, timeout_s: float = TIMEOUT_S) -> VelaReport:
    """Compile a ``.tflite`` file and report, or answer from the cache.

    Raises:
        AjpqError: Vela is missing, does not know the device, refuses the network, crashes on it
            or gives no answer in time.
    """
    key = cache_key(model, device, vela_version())
    report = _remembered.get(key) or _read_report(key)
    if report is None:
        report, _ = compile_file(model, device, timeout_s)
        answers.write(CACHE, key, report.model_dump_json())
    if len(_remembered) >= REMEMBERED:
        _remembered.pop(next(iter(_remembered)), None)
    _remembered[key] = report
    return report


def forget() -> None:
    """Drop what is remembered in memory; the disk keeps its answers."""
    _remembered.clear()


def _read_report(key: str) -> VelaReport | None:
    text = answers.read(CACHE, key)
    try:
        return None if text is None else VelaReport.model_validate_json(text)
    except ValidationError:
        return None


def compile_file(
    model: bytes, device: Device, timeout_s: float = TIMEOUT_S
) -> tuple[VelaReport, bytes]:
    """The report and the compiled ``.tflite`` file, never from the cache.

    Raises:
        AjpqError: as :func:`ask_vela`.
    """
    reply, compiled = vela_process.ask(asdict(device), model, timeout_s)
    if reply.get("kind") == "interface":
        figures, compiled = compile_by_command(model, asdict(device), timeout_s)
    elif "error" in reply:
        raise AjpqError(f"Vela: {reply['error']}")
    else:
        figures = reply["figures"]
    report = VelaReport(
        **figures, compiled_bytes=len(compiled), cpu_operators=cpu_operators(compiled)
    )
    return report, compiled
