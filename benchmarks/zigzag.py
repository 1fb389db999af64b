"""ZigZag, an independent model of accelerators that looks for the best order of loops itself.

It lives in a virtual environment of its own:

    python -m venv zigzag && zigzag/bin/pip install zigzag-dse==3.9.1 six

Source: Mei et al., "ZigZag: Enlarging Joint Architecture-Mapping Design Space Exploration for DNN
Accelerators", IEEE Transactions on Computers 70(8), 2021.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scalesim import Convolution
from hw_models.analytic.bitfusion import BitFusion
from hw_models.errors import AjpqError

ACCUMULATOR_BITS = 32
WIDEST = 8
# The model has no limit for partial sums, so the buffer here has none that matters.
OUTPUT_BUFFER_BITS = 2**27
DRAM_BITS = 10**10
# How finely ZigZag may cut loops: 6 is its default, 4 takes a third of the time.
LOOP_FACTORS = 4

# Runs in ZigZag's interpreter: one question per line in, one number per line out.
DRIVER = """
import json, logging, sys
import yaml
from zigzag.api import get_hardware_performance_zigzag
logging.disable(logging.CRITICAL)
for line in sys.stdin:
    question = json.loads(line)
    for name in ("accelerator", "mapping"):
        with open(name + ".yaml", "w") as stream:
            yaml.safe_dump(question[name], stream, sort_keys=False)
    found = get_hardware_performance_zigzag(
        question["workload"], "accelerator.yaml", "mapping.yaml", dump_folder="out",
        lpf_limit=question["lpf_limit"], loma_show_progress_bar=False)
    print("CYCLES", found[1], flush=True)
"""


def cycles(
    python: Path, layers: Sequence[tuple[Convolution, int]], device: BitFusion
) -> dict[tuple[Convolution, int], float]:
    """Cycles of every layer with transfers, one after the other.

    Args:
        python: the interpreter of the environment that has ZigZag.
        layers: with the width of their weights, 2, 4 or 8 bits; inputs have 8.

    Raises:
        AjpqError: ZigZag fails.
    """
    different = sorted(set(layers))
    questions = "\n".join(json.dumps(_question(layer, bits, device)) for layer, bits in different)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(python.absolute()), "-c", DRIVER],
            cwd=folder,
            input=questions,
            capture_output=True,
            text=True,
            check=False,
        )
    answers = [
        float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("CYCLES")
    ]
    if done.returncode or len(answers) != len(different):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise AjpqError(f"ZigZag failed after {len(answers)} of {len(different)} layers: {reason}")
    return dict(zip(different, answers, strict=True))


def _question(layer: Convolution, bits: int, device: BitFusion) -> dict[str, Any]:
    """A unit holds as many pairs of operands as fit its 8 bits: so many times the rows."""
    rows = device.array_rows * (WIDEST // bits)
    stride, kernel, channels = layer.stride, layer.kernel, layer.channels
    fits = channels <= rows and layer.filters <= device.array_columns
    if layer.height * layer.width == 1 and fits:
        channels = 2 * rows  # ZigZag refuses layers that fit at once: there are no loops to order
    out = [(size - kernel) // stride + 1 for size in (layer.height, layer.width)]
    workload = {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
        "dimension_relations": [f"ix={stride}*ox+1*fx", f"iy={stride}*oy+1*fy"],
        "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
        "loop_sizes": [1, layer.filters, channels, *out, kernel, kernel],
        "operand_precision": {"W": bits, "I": WIDEST, "O": ACCUMULATOR_BITS, "O_final": WIDEST},
        "operand_source": {"I": 0, "W": 0},
    }
    mapping = {
        "name": "default",
        "spatial_mapping": {"D1": [f"C, {rows}"], "D2": [f"K, {device.array_columns}"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
    return {
        "workload": [workload],
        "mapping": [mapping],
        "accelerator": _accelerator(rows, device),
        "lpf_limit": LOOP_FACTORS,
    }


def _accelerator(rows: int, device: BitFusion) -> dict[str, Any]:
    """Weights stand in the units, sums run down the columns; only the bus is narrow."""
    columns, bus = device.array_columns, device.bus_bits_per_cycle
    wide = WIDEST * rows * columns
    sums = ACCUMULATOR_BITS * columns
    return {
        "name": "bitfusion",
        "memories": {  # from the units outwards; the order says which is nearer
            "weight_register": _memory(WIDEST, ("I2",), _one_way("I2", WIDEST), ()),
            "sum_register": _memory(ACCUMULATOR_BITS, ("O",), _sums(ACCUMULATOR_BITS), ("D1",)),
            "weight_buffer": _memory(
                8 * device.weight_buffer_bytes, ("I2",), _one_way("I2", wide), ("D1", "D2")
            ),
            "input_buffer": _memory(
                8 * device.input_buffer_bytes, ("I1",), _one_way("I1", wide), ("D1", "D2")
            ),
            "sum_buffer": _memory(OUTPUT_BUFFER_BITS, ("O",), _sums(sums), ("D1", "D2")),
            "dram": _memory(DRAM_BITS, ("I1", "I2", "O"), [_bus(bus)], ("D1", "D2")),
        },
        "operational_array": {
            "unit_energy": 1.0,
            "unit_area": 1.0,
            "dimensions": ["D1", "D2"],
            "sizes": [rows, columns],
        },
    }


def _memory(
    bits: int, operands: Sequence[str], ports: Sequence[dict[str, Any]], shared_along: Sequence[str]
) -> dict[str, Any]:
    """Energy and area, which are not asked for, are 1 and 0."""
    return {
        "size": bits,
        "r_cost": 1.0,
        "w_cost": 1.0,
        "area": 0.0,
        "latency": 1,
        "operands": list(operands),
        "ports": list(ports),
        "served_dimensions": list(shared_along),
    }


def _port(name: str, kind: str, bits: int, *allocation: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "bandwidth_min": bits,
        "bandwidth_max": bits,
        "allocation": list(allocation),
    }


def _one_way(operand: str, bits: int) -> list[dict[str, Any]]:
    return [
        _port("r_port_1", "read", bits, f"{operand}, tl"),
        _port("w_port_1", "write", bits, f"{operand}, fh"),
    ]


def _sums(bits: int) -> list[dict[str, Any]]:
    """Partial sums go in and out on both sides at once."""
    return [
        _port("r_port_1", "read", bits, "O, tl"),
        _port("r_port_2", "read", bits, "O, th"),
        _port("w_port_1", "write", bits, "O, fh"),
        _port("w_port_2", "write", bits, "O, fl"),
    ]


def _bus(bits: int) -> dict[str, Any]:
    """One transfer at a time, whatever it is."""
    inputs = [f"{operand}, {way}" for operand in ("I1", "I2") for way in ("fh", "tl")]
    sums = [f"O, {way}" for way in ("fh", "tl", "fl", "th")]
    return _port("rw_port_1", "read_write", bits, *inputs, *sums)
