"""The table of ``benchmarks/methods.py``: what finished runs say, what methods have to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ajpq.config.schema import CompressConfig
from ajpq.graph.structure import layers
from ajpq.problem import network_of
from ajpq.replaying import problem_of
from ajpq.runs.finished import load_finished
from benchmarks.harness import at_least, at_most
from hw_models.network import FLOAT_BITS, Network, Weights, bops_sparse


def line(method: str, bits: str, config: CompressConfig, run_dir: Path) -> dict[str, Any]:
    """What the table says of a finished run of ``method``, asked for ``bits``."""
    run = load_finished(run_dir)
    problem = problem_of(run)
    network = network_of(problem, run.policy, run.weights)
    base, found = run.result["baseline"], run.result["found"]
    names = [layer.node.parameters["weight"] for layer in layers(problem.graph)]
    weights = sum(problem.state[name].numel() for name in names)
    return {
        "method": method,
        "network": config.model,
        "bits": bits,
        "sparsity": round(1 - nonzero(network) / weights, 4),
        "packed_bytes": found["packed_bytes"],
        "times_smaller": round(base["packed_bytes"] / found["packed_bytes"], 2),
        **{f"bops_{key}_percent": percent(value, base) for key, value in found["bops"].items()},
        "bops_sparse_percent": percent(bops_sparse(network), base),
        "bops_sparse_levels_percent": percent(bops_sparse(with_level_widths(network)), base),
        "top1_test": found["top1_test"],
        "top1_test_full_precision": found["top1_test_full_precision"],
        "baseline_top1_test": base["top1_test"],
        "epochs": sum(stage.epochs or 0 for stage in config.full_recipe.stages),
        "seconds": run.result["seconds"],
    }


def nonzero(network: Network) -> int:
    """Weights of the layers that are not zero."""
    return sum(int(np.count_nonzero(op.weights.codes)) for op in network.layers if op.weights)


def with_level_widths(network: Network) -> Network:
    """Rows as wide as the numbers of their layer's levels, not as the codes that name them.

    It differs where the levels of a method are not multiples of one step and lie on a finer grid:
    what hardware would do that multiplies numbers of levels. That of a uniform grid is its own.
    """
    operators = tuple(
        replace(op, weights=_level_widths(op.weights)) if op.weights else op
        for op in network.operators
    )
    return replace(network, operators=operators)


def _level_widths(weights: Weights) -> Weights:
    levels = len(np.unique(np.abs(weights.codes[weights.bits < FLOAT_BITS])))
    width = 1 + math.ceil(math.log2(max(levels, 2)))  # a sign, and zero is among the levels
    return replace(
        weights,
        bits=np.where(weights.bits < FLOAT_BITS, np.minimum(weights.bits, width), weights.bits),
    )


def percent(value: int, base: Mapping[str, Any]) -> float:
    """Bit operations relative to the unpruned network at 32 bits."""
    return round(100 * value / base["bops"]["all"], 3)


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the methods have to reach on ResNet-20; what is not finished does not hold."""
    found = [row for row in rows if row["network"] == "resnet20"]
    widths = {"W4A4": 91.6, "W3A3": 91.2, "W2A2": 89.6}
    by = {name: [r for r in found if r["method"] == name] for name in ("ptq", "gwk", "psg")}
    learned = [row for row in found if row["method"].split("-")[0] == "codeq"]
    light = [row for row in learned if row["bops_sparse_percent"] <= 5.0]
    small = {"ptq": (40.0, 88.5), "gwk": (35.0, 89.8)}
    lost = [row["top1_test_full_precision"] - row["top1_test"] for row in by["psg"]]
    return {
        **{
            f"best_top1_at_{bits.lower()}_at_least": at_least(
                best(row for row in found if row["bits"] == bits), bar
            )
            for bits, bar in widths.items()
        },
        "codeq_top1_at_5_percent_of_bops_sparse_at_least": at_least(best(light), 91.0),
        **{
            f"{name}_top1_at_{times:.0f}_times_smaller_at_least": at_least(
                best(row for row in by[name] if row["times_smaller"] >= times), bar
            )
            for name, (times, bar) in small.items()
        },
        "psg_points_below_full_precision_at_most": at_most(max(lost, default=float("nan")), 0.5),
    }


def best(rows: Any) -> float:
    """The highest accuracy, no number where there is none."""
    return max((row["top1_test"] for row in rows), default=float("nan"))
