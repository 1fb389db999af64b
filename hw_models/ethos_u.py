"""Arm Ethos-U accelerators, priced by Arm's own compiler."""

from __future__ import annotations

from collections import defaultdict

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.ordering import by_width
from hw_models.tflite import lower, serialize
from hw_models.tflite.program import Program
from hw_models.vela import Device, VelaReport, ask_vela

NAMED_AT_MOST = 5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EthosU(Target):
    """An Ethos-U with its memories, by the names in Vela's configuration file.

    Weights narrower than 8 bits are int8 tensors with few levels: the compiler's entropy coder
    makes them small in flash and quick to load, computing takes as long as with 8 bits.
    """

    name: str
    accelerator: str
    system_config: str
    memory_mode: str

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (8,)
    channel_granularity = 8
    slow = True
    time_limit_s = 600.0  # the compiler has a limit of its own, and says what it was doing

    @property
    def device(self) -> Device:
        """The device in the compiler's words."""
        return Device(self.accelerator, self.system_config, self.memory_mode)

    def cost(self, network: Network) -> NetworkCost:
        """Compile the network, channels ordered by width, and read the compiler's report.

        ``latency_s`` is total cycles over the core clock. ``flash_bytes`` is the size of the
        compiled model: weights, scales, commands and graph are what a device stores, in every
        memory mode. ``peak_activation_bytes`` is what the compiler places in writable memory, the
        buffers that weights are streamed through included. Layers add up to ``latency_s``; their
        ``flash_bytes`` are weights and scales only. Energy is not known.

        Raises:
            AjpqError: the network has no int8 form, an operator would stay on the CPU, or Vela
                fails.
        """
        program = lower(by_width(network))
        model = serialize(program, network.input, network.output)
        report = ask_vela(model, self.device)
        self._refuse_cpu_operators(report)
        return NetworkCost(
            latency_s=report.total_cycles / report.core_clock_hz,
            flash_bytes=report.compiled_bytes,
            peak_activation_bytes=report.peak_activation_bytes,
            per_layer=_per_operator(network, program, report),
        )

    def _refuse_cpu_operators(self, report: VelaReport) -> None:
        if not report.cpu_operators:
            return
        named = ", ".join(report.cpu_operators[:NAMED_AT_MOST])
        rest = len(report.cpu_operators) - NAMED_AT_MOST
        more = f" and {rest} more" if rest > 0 else ""
        raise AjpqError(f"target {self.name!r} cannot run on its accelerator: {named}{more}")


def _per_operator(network: Network, program: Program, report: VelaReport) -> tuple[LayerCost, ...]:
    """The compiler's figures by IR operator; nothing if it gave none."""
    if not report.operators:
        return ()
    cycles: dict[str, int] = defaultdict(int)
    stored: dict[str, int] = defaultdict(int)
    for figures in report.operators:
        known = 0 <= figures.number < len(program.operations)
        owner = program.operations[figures.number].owner if known else ""
        cycles[owner] += figures.cycles
        stored[owner] += figures.weight_bytes
    names = [operator.name for operator in network.operators] + [""] * ("" in cycles)
    return tuple(
        LayerCost(name, cycles[name] / report.core_clock_hz, flash_bytes=stored[name])
        for name in names
    )
