"""The exported files of a finished run give the accuracy that its result.json states.

Runs the ONNX file in ONNX Runtime, the TensorFlow Lite file in LiteRT and the packed file in the
exact reference on all test images.

    python -m benchmarks.exports --run-dir runs/cifar10_edge_npu
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ajpq import api, cli
from ajpq.base import build_problem
from ajpq.data import test_batches
from ajpq.exporters.verify import run_onnx, run_tflite
from ajpq.packed import load
from ajpq.policy import load_policy
from ajpq.problem import network_of
from ajpq.reference import prepare
from ajpq.results import record_test
from ajpq.runs.folder import load_config, load_result, load_weights
from benchmarks.harness import at_least, at_most, write_result
from hw_models.network import Network

NAME = "exports"


def main(
    run_dir: Path = Path("runs/cifar10_edge_npu"),
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Export a run, execute the files on the test images, write the comparison.

    Args:
        run_dir: a finished run.
        quick: only the first 1,000 test images.
    """
    started = time.monotonic()
    config, result = load_config(run_dir), load_result(run_dir)
    problem = build_problem(config)
    batches = list(test_batches(problem.dataset, 500))[: 2 if quick else None]
    labels = np.concatenate([part.numpy() for _, part in batches])
    with tempfile.TemporaryDirectory() as folder:
        onnx_file, tflite_file, packed_file = api.export(
            run_dir, ["onnx", "tflite", "packed"], Path(folder)
        )
        packed = load(packed_file)
        run = prepare(packed)
        reference = np.concatenate([run(part).numpy() for part, _ in batches])
        images = [part.numpy() for part, _ in batches]
        ran = {"onnx": run_onnx(onnx_file, images), "tflite": run_tflite(tflite_file, images)}
        files = {"packed": packed_file, "onnx": onnx_file, "tflite": tflite_file}
        sizes = {name: path.stat().st_size for name, path in files.items()}
    stated = top1(reference, labels) if quick else result["found"]["top1_test"]
    answers = {
        "packed": top1(reference, labels),
        **{name: top1(logits, labels) for name, logits in ran.items()},
    }
    agreement = {
        name: 100 * float((logits.argmax(1) == reference.argmax(1)).mean())
        for name, logits in ran.items()
    }
    weights = load_weights(run_dir / "weights.safetensors")
    original = network_of(problem, load_policy(run_dir / "policy.json"), weights)
    record_test(problem, run_dir, f"{run_dir.name} (exported files)", result["policy"], answers)
    rows = [
        {"format": name, "bytes": sizes[name], "top1_test": answers[name], "stated": stated}
        for name in answers
    ]
    path = write_result(
        NAME,
        command=f"python -m benchmarks.{NAME}{' --quick' if quick else ''}",
        seed=result["seed"],
        rows=rows,
        bars={
            **{
                f"{name}_difference_points_at_most": at_most(abs(answers[name] - stated), 0.1)
                for name in ran
            },
            **{
                f"{name}_agreement_percent_at_least": at_least(agreement[name], 99.5)
                for name in ran
            },
            "packed_difference_points_at_most": at_most(abs(answers["packed"] - stated), 0.0),
            "packed_bit_equal_at_least": at_least(float(bit_equal(original, packed)), 1.0),
        },
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent."""
    return 100.0 * int((logits.argmax(1) == labels).sum()) / len(labels)


def bit_equal(one: Network, other: Network) -> bool:
    """Equal edges, codes, scales, widths and biases?"""
    if dict(one.edges) != dict(other.edges) or len(one.operators) != len(other.operators):
        return False
    for a, b in zip(one.operators, other.operators, strict=True):
        if (a.name, a.kind, a.inputs, a.output) != (b.name, b.kind, b.inputs, b.output):
            return False
        if (a.weights is None) != (b.weights is None):
            return False
        if a.weights is not None and b.weights is not None:
            fields = ("codes", "scales", "bits", "bias")
            if not all(
                np.array_equal(getattr(a.weights, name), getattr(b.weights, name))
                for name in fields
            ):
                return False
    return True


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
