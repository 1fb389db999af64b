"""What compression buys on this processor: the exported int8 files against what one has without.

Five files of each network of :mod:`benchmarks.subjects`, one image at a time on one thread, all in
turn within one run. In ONNX Runtime the float32 original with BatchNorm folded; ONNX Runtime's own
static quantization of it (QDQ, one scale per channel, calibrated on training images); our int8
export of the same network with all its channels; and of the compressed one. In LiteRT the int8
export of the compressed one. Accuracies are those of the files on validation images.

    make bench NAME=host_latency
    python -m benchmarks.host_latency --data imagefolder:DIR

Uses what ``benchmarks.exports`` has trained, or trains it. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ajpq import cli
from ajpq.exporters.verify import run_onnx, run_tflite
from ajpq.exporting import formats_of
from ajpq.problem import Problem, augmented_images, direct_weights, network_of
from ajpq.selection.finalists import validation_images
from benchmarks.exports import TARGET, onnx_run, tflite_run
from benchmarks.harness import at_least, command_line, write_result
from benchmarks.subjects import SUBJECTS, compressed, problem_of
from benchmarks.timing import interleaved
from hw_models.network import Network

NAME = "host_latency"
FLOAT, RUNTIME, INT8, OURS = "float32", "int8 by ONNX Runtime", "int8", "compressed"
LITERT = "compressed, in LiteRT"
CALIBRATION_BATCHES = 2


def main(
    data: str = "cifar10",
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Time five files of five networks, write benchmarks/results/host_latency.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        seed: of the trainings that the zoo does not hold.
        run_dir: trained weights; default runs/exports, as benchmarks.exports has it.
        quick: ResNet-20 only.
    """
    started, folder = time.monotonic(), run_dir or Path("runs/exports")
    rows = [
        row
        for name in list(SUBJECTS)[: 1 if quick else None]
        for row in rows_of(name, data, seed, folder)
    ]
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, seed=seed),
        seed=seed,
        rows=rows,
        bars=bars_of(rows),
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def rows_of(name: str, data: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """The five files of one network."""
    problem = problem_of(SUBJECTS[name], data, TARGET, seed)
    policy, weights = compressed(problem, folder)
    network = network_of(problem, policy, weights)
    original, plain = (problem.uniform(bits) for bits in (32, 8))
    own = folder / f"{name} latency"
    files = {
        FLOAT: saved(network_of(problem, original, direct_weights(problem)), own / "float32.onnx"),
        INT8: saved(network_of(problem, plain, direct_weights(problem)), own / "int8.onnx"),
        OURS: saved(network, own / "compressed.onnx"),
    }
    files[RUNTIME] = quantized_by_runtime(files[FLOAT], problem, own / "runtime.onnx")
    files[LITERT] = formats_of(problem, network)["tflite"].export(network, policy, own)
    sample = validation_images(problem)
    image = sample.images[:1]
    batches = [part.numpy() for part in sample.images.split(500)]
    loaders = {**dict.fromkeys(files, (onnx_run, run_onnx)), LITERT: (tflite_run, run_tflite)}
    seconds = interleaved({form: loaders[form][0](file, image) for form, file in files.items()})
    logits = {form: loaders[form][1](file, batches) for form, file in files.items()}
    return [
        {
            "network": name,
            "file": form,
            "host_ms": seconds[form] * 1e3,
            "times_faster_than_float32": seconds[FLOAT] / seconds[form],
            "bytes": files[form].stat().st_size,
            "top1_val": 100.0 * float((logits[form].argmax(1) == sample.labels.numpy()).mean()),
        }
        for form in (FLOAT, RUNTIME, INT8, OURS, LITERT)
    ]


def saved(network: Network, file: Path) -> Path:
    """The network as an ONNX file."""
    import onnx

    from hw_models.onnx.lower import build_model

    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build_model(network), file)
    return file


def quantized_by_runtime(float32: Path, problem: Problem, file: Path) -> Path:
    """ONNX Runtime's static quantization as its documentation recommends it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """Augmented training images, the same that our calibration may see."""

        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = (
                batch.numpy()
                for batch in augmented_images(
                    problem.dataset, problem.split.train, problem.seed, count=CALIBRATION_BATCHES
                )
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(str(float32), str(prepared))
    quantize_static(
        str(prepared), str(file), Images(), quant_format=QuantFormat.QDQ, per_channel=True
    )
    return file


def bars_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The compressed file is the fastest in ONNX Runtime, on every network."""
    by = {(row["network"], row["file"]): row["host_ms"] for row in rows}
    networks = list(dict.fromkeys(row["network"] for row in rows))
    return {
        f"times_faster_than_{key}_at_least": at_least(
            min(by[name, other] / by[name, OURS] for name in networks), 1.0
        )
        for key, other in (("float32", FLOAT), ("onnx_runtime_s_own_int8", RUNTIME))
    }


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
