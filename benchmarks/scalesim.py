"""SCALE-Sim, an independent simulator of systolic arrays, asked about single layers.

It wants an older NumPy than AJPQ, so it lives in a virtual environment of its own:

    python -m venv scalesim && scalesim/bin/pip install scalesim==3.0.0 'numpy<2.4'

Source: Raj et al., SCALE-Sim v3, arXiv 2504.15377.
"""

from __future__ import annotations

import csv
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hw_models.errors import AjpqError
from hw_models.network import Network

CONFIG = """[general]
run_name = run

[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 24
ReadRequestBuffer: 32
WriteRequestBuffer: 32

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40

[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
HEADER = (
    "Layer, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
)


@dataclass(frozen=True, order=True)
class Convolution:
    """One layer as SCALE-Sim describes it: padding is part of the input."""

    height: int
    width: int
    kernel: int
    channels: int
    filters: int
    stride: int


def convolutions(network: Network) -> list[Convolution]:
    """The layers of a network whose convolutions are square and not grouped."""
    found = []
    for op in network.layers:
        assert op.weights is not None
        rows, columns = op.weights.codes.shape[:2]
        if op.kind == "linear":
            found.append(Convolution(1, 1, 1, columns, rows, 1))
            continue
        kernel, stride = op.weights.codes.shape[-1], op.attributes["stride"][0]
        height, width = (
            (size - 1) * stride + kernel for size in network.edges[op.output].shape[1:]
        )
        found.append(Convolution(height, width, kernel, columns, rows, stride))
    return found


def cycles(
    python: Path, layers: Sequence[Convolution], rows: int, columns: int
) -> dict[Convolution, int]:
    """Compute cycles of every layer on a weight-stationary array, one after the other.

    Args:
        python: the interpreter of the environment that has SCALE-Sim.

    Raises:
        AjpqError: SCALE-Sim fails.
    """
    different = sorted(set(layers))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            f"layer{i}, {x.height}, {x.width}, {x.kernel}, {x.kernel}, {x.channels}, {x.filters}, "
            f"{x.stride},"
            for i, x in enumerate(different)
        ]
        (folder / "network.csv").write_text("\n".join([HEADER, *lines]) + "\n")
        (folder / "array.cfg").write_text(CONFIG.format(rows=rows, columns=columns))
        files = ["-c", "array.cfg", "-t", "network.csv", "-l", "network.csv", "-p", "out"]
        command = [str(python.absolute()), "-m", "scalesim.scale", *files, "-s", "N", "-i", "conv"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        report = folder / "out" / "run" / "COMPUTE_REPORT.csv"
        if done.returncode or not report.exists():
            reason = (done.stderr.strip().splitlines() or ["no report"])[-1]
            raise AjpqError(f"SCALE-Sim failed: {reason}")
        with report.open(newline="") as stream:
            table = list(csv.reader(stream))
    place = [title.strip() for title in table[0]].index("Total Cycles")
    return {x: int(line[place]) for x, line in zip(different, table[1:], strict=True)}
