"""Every exported file gives the accuracy that its network has in the exact reference.

Five networks (:mod:`benchmarks.subjects`), every format. A file that can be run here is run on all
test images and compared with the reference; the network without its pruned channels, the one that
still has them as zeros, the packed file and the exported program have to agree bit for bit, files
for runtimes that round otherwise nearly always. Milliseconds are those of one image on one thread
of this processor, all files of a network in turn.

    make bench NAME=exports
    python -m benchmarks.exports --data imagefolder:DIR

Most of an hour on two cores, half of it training what the zoo does not hold; started again, it
goes on behind what is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from ajpq import cli
from ajpq.data import test_batches
from ajpq.exporters.expected import Expected, Verdict
from ajpq.exporters.verification import verify_files
from ajpq.exporting import formats_of
from ajpq.packed import breakdown
from ajpq.problem import Problem, network_of, unshrunk_of
from ajpq.progress import ConsoleProgress
from ajpq.reference import prepare
from ajpq.results import record_test
from ajpq.selection.executor import thread_count
from ajpq.selection.finalists import validation_images
from benchmarks.harness import at_least, at_most, command_line, write_result
from benchmarks.subjects import SUBJECTS, compressed, problem_of
from benchmarks.timing import interleaved
from hw_models.network import Network

NAME = "exports"
TARGET = "edge-npu"
# Formats that have to answer bit for bit as the reference does.
EXACT = ("packed", "torch")
# Formats whose runtimes round otherwise.
ROUNDED = ("onnx", "onnx-blocked", "tflite", "qonnx")

Run = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Checked:
    """One network's files and what came out."""

    network: str
    files: Mapping[str, Path]
    expected: Expected
    verdicts: Mapping[str, Verdict]
    unshrunk_equal: bool
    seconds: Mapping[str, float]


def main(
    data: str = "cifar10",
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Export five networks, run their files, write benchmarks/results/exports.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        seed: of the trainings that the zoo does not hold.
        run_dir: trained weights and exported files; default runs/exports.
        quick: ResNet-20 only, on validation images.
    """
    started, folder = time.monotonic(), run_dir or Path("runs") / NAME
    names = list(SUBJECTS)[: 1 if quick else None]
    found = [checked(name, data, seed, folder, quick) for name in names]
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, seed=seed),
        seed=seed,
        rows=[row for own in found for row in rows_of(own)],
        bars=bars_of(found),
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def checked(name: str, data: str, seed: int, folder: Path, quick: bool) -> Checked:
    """Compress, export, run and time one network."""
    problem = problem_of(SUBJECTS[name], data, TARGET, seed)
    policy, weights = compressed(problem, folder)
    network, own = network_of(problem, policy, weights), folder / name
    formats = formats_of(problem, network)
    own.mkdir(parents=True, exist_ok=True)
    files = {kind: form.export(network, policy, own) for kind, form in formats.items()}
    progress = ConsoleProgress()
    with progress.phase(f"running the files of {name}"):
        expected, verdicts = verify_files(
            network,
            policy,
            files,
            lambda: images_of(problem, quick),
            formats=formats,
            on_batch=progress.part,
        )
        unshrunk = logits(unshrunk_of(problem, policy, weights), images_of(problem, quick))
    if not quick:
        ran = {fmt: own.top1 for fmt, own in verdicts.items() if own.top1 is not None}
        answers = {"reference": expected.top1, **ran}
        record_test(problem, folder, f"{NAME}: {name}", policy.hash, answers)
    image = next(iter(images_of(problem, True)))[0][:1]
    with thread_count(1):
        seconds = interleaved(runs_of(files, image))
    equal = np.array_equal(unshrunk, expected.logits)
    return Checked(name, files, expected, verdicts, equal, seconds)


def images_of(problem: Problem, quick: bool) -> Iterable[tuple[Tensor, Tensor]]:
    """Test images and labels in batches, or validation images."""
    if not quick:
        return test_batches(problem.dataset, 500)
    sample = validation_images(problem)
    return zip(sample.images.split(500), sample.labels.split(500), strict=True)


def logits(network: Network, batches: Iterable[tuple[Tensor, Tensor]]) -> np.ndarray:
    """``[N, classes]`` of the reference."""
    run = prepare(network)
    return np.concatenate([run(images).numpy() for images, _ in batches])


def runs_of(files: Mapping[str, Path], image: Tensor) -> dict[str, Run]:
    """What one image through each file is, for those that a runtime here takes."""
    loaders = {
        "onnx": onnx_run,
        "onnx-blocked": onnx_run,
        "tflite": tflite_run,
        "torch": torch_run,
    }
    return {name: load(files[name], image) for name, load in loaders.items() if name in files}


def onnx_run(file: Path, image: Tensor) -> Run:
    """One image in ONNX Runtime on one thread."""
    from hw_models.host_worker import session

    loaded, given = session(file, threads=1), {"input": image.numpy()}
    return lambda: loaded.run(None, given)


def tflite_run(file: Path, image: Tensor) -> Run:
    """One image in LiteRT on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    interpreter.set_tensor(source["index"], np.zeros(source["shape"], np.int8))
    invoke: Run = interpreter.invoke
    return invoke


def torch_run(file: Path, image: Tensor) -> Run:
    """One image through the exported program on one thread."""
    module = torch.export.load(file).module()
    return lambda: module(image)


def rows_of(found: Checked) -> list[dict[str, Any]]:
    """One row per file."""
    return [
        {
            "network": found.network,
            "format": name,
            "bytes": found.files[name].stat().st_size,
            "top1_test": verdict.top1,
            "reference_top1": found.expected.top1,
            "same_class_percent": verdict.agreement,
            "host_ms": found.seconds[name] * 1e3 if name in found.seconds else None,
            "checked_by": verdict.note,
        }
        for name, verdict in found.verdicts.items()
    ]


def bars_of(found: list[Checked]) -> dict[str, dict[str, Any]]:
    """Bit for bit where nothing is rounded; core rule 3's bounds elsewhere, the worst network."""
    exact = [own.unshrunk_equal and all(own.verdicts[name].ok for name in EXACT) for own in found]
    bars = {"networks_not_equal_bit_for_bit_at_most": at_most(exact.count(False), 0)}
    for name in ROUNDED:
        own = [(one.verdicts[name], one.expected.top1) for one in found]
        key = name.replace("-", "_")
        bars[f"{key}_agreement_percent_at_least"] = at_least(
            min(verdict.agreement or 0.0 for verdict, _ in own), 99.5
        )
        bars[f"{key}_difference_points_at_most"] = at_most(
            round(max(abs((verdict.top1 or 0.0) - top1) for verdict, top1 in own), 6), 0.1
        )
    excess = [excess_percent(own.files["packed"]) for own in found]
    failed = [name for own in found for name, verdict in own.verdicts.items() if not verdict.ok]
    return {
        **bars,
        "packed_bytes_over_entropy_and_header_percent_at_most": at_most(max(excess), 3.0),
        "files_that_fail_their_check_at_most": at_most(len(failed), 0),
    }


def excess_percent(packed: Path) -> float:
    """By how much a packed file is larger than its header and the entropy of its contents."""
    found = breakdown(packed)
    return 100 * (packed.stat().st_size / (found.header + found.entropy_bytes) - 1)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
