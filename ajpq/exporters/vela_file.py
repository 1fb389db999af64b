"""Format ``vela``: the tflite file compiled for an Arm Ethos-U, as its driver loads it.

It is for the target if that is an Ethos-U, else for the default device. Nothing here can run it: no
emulator of the accelerator is installable. So its verifier checks what it is, and the accuracy that
can be promised is that of format ``tflite``, from whose very bytes it was compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.seal import unsealed
from ajpq.exporters.tflite_file import int8_file
from ajpq.policy import CompressionPolicy
from hw_models.base import NetworkCost, Target
from hw_models.ethos_u import EthosU
from hw_models.network import Network
from hw_models.registry import load_target
from hw_models.tflite.ends import inputs_and_outputs
from hw_models.tflite.leftovers import accelerated_operators, cpu_operators
from hw_models.vela import VelaReport, compile_file

FILE = "model_vela.tflite"
DEFAULT_TARGET = "edge-npu"
_ZERO_POINT_BYTES = 32  # the target compiles with another range of the logits, whose zero is code 0


def export_vela(
    network: Network,
    policy: CompressionPolicy | None,
    folder: Path,
    target: Target | None = None,
    output_range: tuple[float, float] | None = None,
) -> Path:
    """Write ``model_vela.tflite``.

    Raises:
        AjpqError: the network has no int8 form, or Vela is missing or fails.
    """
    _, compiled = compile_file(int8_file(network, output_range), device_for(target).device)
    (folder / FILE).write_bytes(compiled)
    return folder / FILE


def device_for(target: Target | None) -> EthosU:
    """The target itself if it is an Ethos-U, else the default device."""
    if isinstance(target, EthosU):
        return target
    default = load_target(DEFAULT_TARGET)
    assert isinstance(default, EthosU)
    return default


def verify_vela(
    path: Path,
    expected: Expected,
    target: Target | None = None,
    output_range: tuple[float, float] | None = None,
) -> Verdict:
    """Check all that can be checked without the accelerator.

    The whole network is one operator of the accelerator; input and output are those of the tflite
    file; compiling that file again gives these bytes, and the flash (within the 32 bytes that a
    zero point may take) and the latency that the target states for the network.

    Raises:
        AjpqError: Vela is missing or fails.
    """
    device, source = device_for(target), int8_file(expected.network, output_range)
    report, again = compile_file(source, device.device)
    found = unsealed(path.read_bytes())
    wrong = [
        *_not_the_network(found, source, again),
        *_other_figures(len(found), report, device.cost(expected.network)),
    ]
    stated = f"Vela for {device.name}, {report.total_cycles:,} cycles"
    unrun = "not run: the accuracy is that of the tflite file"
    return Verdict(not wrong, "; ".join([stated, *(wrong or [unrun])]))


def _not_the_network(found: bytes, source: bytes, again: bytes) -> Iterator[str]:
    if inputs_and_outputs(found) != inputs_and_outputs(source):
        yield "its input or output is not that of the tflite file"
    for name in cpu_operators(found):
        yield f"{name} stays on the CPU"
    if accelerated_operators(found) != 1:
        yield f"it holds {accelerated_operators(found)} operators of the accelerator, not one"
    if found != again:
        yield "it is not what the tflite file of this network compiles to"


def _other_figures(size: int, report: VelaReport, cost: NetworkCost) -> Iterator[str]:
    assert cost.flash_bytes is not None
    if abs(size - cost.flash_bytes) > _ZERO_POINT_BYTES:
        yield f"it has {size:,} bytes, the target states {cost.flash_bytes:,}"
    latency_s = report.total_cycles / report.core_clock_hz
    if latency_s != cost.latency_s:
        yield f"it takes {latency_s:g} s, the target states {cost.latency_s:g} s"
