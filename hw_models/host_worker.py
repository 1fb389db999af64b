"""Times ONNX files in a process of its own: ``python -m hw_models.host_worker FOLDER``.

For every ``*.onnx`` of the folder, in the order of their names, one JSON object on the last line
of the output: ``latency_s`` (median over rounds), ``spread`` (interquartile range over the median)
and ``nodes`` (name -> seconds, from the runtime's own profile).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

WARM_UP = 20
ROUNDS = 15
# A sample is the mean of so many runs that it is long against the resolution of the clock.
SAMPLE_S = 0.004
PROFILED_RUNS = 30


def session(path: Path, threads: int, profile: Path | None = None) -> Any:
    """An inference session on the processor."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def image_of(found: Any) -> dict[str, np.ndarray]:
    """One random image; the codes of a real one are no faster."""
    source = found.get_inputs()[0]
    shape = (1, *source.shape[1:])
    return {source.name: np.random.default_rng(0).standard_normal(shape, np.float32)}


def seconds(found: Any, image: dict[str, np.ndarray], runs: int) -> float:
    """Mean time of a run."""
    started = time.perf_counter()
    for _ in range(runs):
        found.run(None, image)
    return (time.perf_counter() - started) / runs


def interleaved(paths: list[Path], threads: int) -> list[dict[str, Any]]:
    """All files in turn, round by round, so that a slow moment of the machine hits them alike."""
    sessions = [session(path, threads) for path in paths]
    images = [image_of(found) for found in sessions]
    pairs = list(zip(sessions, images, strict=True))
    estimates = [seconds(found, image, WARM_UP) for found, image in pairs]
    runs = [max(1, round(SAMPLE_S / estimate)) for estimate in estimates]
    samples = np.array(
        [
            [seconds(*pair, count) for pair, count in zip(pairs, runs, strict=True)]
            for _ in range(ROUNDS)
        ]
    )
    low, middle, high = np.quantile(samples, (0.25, 0.5, 0.75), axis=0)
    return [
        {"latency_s": float(m), "spread": float((h - lo) / m)}
        for lo, m, h in zip(low, middle, high, strict=True)
    ]


def node_seconds(path: Path, threads: int) -> dict[str, float]:
    """Median time of every node that runs."""
    found = session(path, threads, profile=path.with_suffix(""))
    image = image_of(found)
    for _ in range(PROFILED_RUNS):
        found.run(None, image)
    events = json.loads(Path(found.end_profiling()).read_text())
    times: dict[str, list[float]] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            times.setdefault(name.removesuffix("_kernel_time"), []).append(event["dur"])
    return {name: float(np.median(found)) * 1e-6 for name, found in times.items()}


def main(folder: Path, threads: int) -> None:
    """Time a folder of files and print what was found."""
    paths = sorted(folder.glob("*.onnx"))
    totals = interleaved(paths, threads)
    found = [
        {**total, "nodes": node_seconds(path, threads)}
        for total, path in zip(totals, paths, strict=True)
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
