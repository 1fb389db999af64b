"""The processor of this machine: what ONNX Runtime takes for the exported int8 file, measured."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from hw_models import answers
from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.liveness import peak_activation_bytes
from hw_models.network import Network

CACHE = "host-cpu"
ANSWER_FORMAT = 1  # raised when the files that are timed, or how they are timed, change
# So many networks are timed in turn by one process.
_AT_ONCE = 20
_remembered: dict[str, str] = {}


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HostCpu(Target):
    """The exported int8 file in ONNX Runtime on this machine, one image at a time.

    Weights narrower than 8 bits are stored in 8 bits and compute like them; only channels make a
    difference. Measured in a process of its own while this one waits: leave the machine alone
    meanwhile. An answer is measured once and remembered for this processor and this version of
    ONNX Runtime, so that it stays what it was.
    """

    name: str
    threads: int = Field(default=1, ge=1)

    weight_bits = (0, 2, 3, 4, 5, 6, 7, 8)
    activation_bits = (8,)
    channel_granularity = 8
    measured = True
    time_limit_s = 600.0

    def cost(self, network: Network) -> NetworkCost:
        """Median latency; layers as the runtime's profile divides it; bytes of the file.

        Raises:
            AjpqError: onnx or onnxruntime is not installed, or fails on the network.
        """
        return self.costs([network])[0]

    def costs(self, networks: Sequence[Network]) -> list[NetworkCost]:
        """Costs of several networks, timed in turn with each other."""
        models = [_model(network) for network in networks]
        keys = [_key(network, self.threads) for network in networks]
        known = {key: _remembered.get(key) or _read(key) for key in keys}
        missing = {key: model for key, model in zip(keys, models, strict=True) if not known[key]}
        while missing:
            some = [missing.popitem() for _ in range(min(_AT_ONCE, len(missing)))]
            timed = _time([model for _, model in some], self.threads)
            for (key, _), found in zip(some, timed, strict=True):
                known[key] = json.dumps(found)
                answers.write(CACHE, key, known[key] or "")
        _remembered.update({key: text for key, text in known.items() if text})
        return [
            _cost(network, json.loads(known[key] or ""), len(model))
            for network, key, model in zip(networks, keys, models, strict=True)
        ]


def _read(key: str) -> str | None:
    """An answer on disk, unless it is damaged."""
    text = answers.read(CACHE, key)
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return None
    return text if isinstance(found, dict) and found.keys() >= {"latency_s", "nodes"} else None


def _model(network: Network) -> bytes:
    try:
        import onnxruntime  # noqa: F401  # asked for later, in another process too

        from hw_models.onnx.lower import build_model
    except ImportError as error:
        raise AjpqError(
            "target 'host-cpu' needs onnx and onnxruntime: pip install 'ajpq[export]'"
        ) from error
    return bytes(build_model(network).SerializeToString())


def _key(network: Network, threads: int) -> str:
    """Equal for networks that compute alike: time depends on shapes, not on codes."""
    import onnxruntime

    operators = [
        (
            op.kind,
            sorted((name, str(value)) for name, value in op.attributes.items()),
            op.inputs,
            op.output,
            None if op.weights is None else op.weights.codes.shape,
            op.activation,
        )
        for op in network.operators
    ]
    edges = sorted(
        (edge.name, edge.shape, edge.bits, edge.signed) for edge in network.edges.values()
    )
    machine = (ANSWER_FORMAT, _processor(), onnxruntime.__version__, threads)
    return hashlib.sha256(repr((machine, operators, edges)).encode()).hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "cache size", "CPU part", "CPU implementer", "Features")
    told = sorted({line for line in lines if line.startswith(wanted)})
    return "".join(told) or platform.processor() or platform.machine()


def _time(models: Sequence[bytes], threads: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for number, model in enumerate(models):
            (Path(folder) / f"{number:04d}.onnx").write_bytes(model)
        command = [sys.executable, "-m", "hw_models.host_worker", folder, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise AjpqError(f"target 'host-cpu': ONNX Runtime failed: {reason}")
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cost(network: Network, found: dict[str, Any], model_bytes: int) -> NetworkCost:
    from hw_models.onnx.graph import OWNED

    own: dict[str, float] = {operator.name: 0.0 for operator in network.operators}
    for node, seconds in found["nodes"].items():
        owner = node.partition(OWNED)[0]
        if owner in own:
            own[owner] += seconds
    # What profiling adds to every node is taken off again, so that layers add up to the whole;
    # what belongs to none (input, output, dispatch) is spread over them.
    share = found["latency_s"] / (sum(own.values()) or 1.0)
    return NetworkCost(
        latency_s=found["latency_s"],
        flash_bytes=model_bytes,
        peak_activation_bytes=peak_activation_bytes(network),
        per_layer=tuple(LayerCost(name, seconds * share) for name, seconds in own.items()),
    )
