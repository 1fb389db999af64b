"""Times things in turn, so that a slow moment of the machine hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

ROUNDS = 15
WARM_UP = 5
# A sample is the mean of so many runs that it is long against the resolution of the clock.
SAMPLE_S = 0.02


def interleaved(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of one run of each, measured round by round."""
    counts = {name: max(1, round(SAMPLE_S / seconds(run, WARM_UP))) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            samples[name].append(seconds(run, counts[name]))
    return {name: statistics.median(own) for name, own in samples.items()}


def seconds(run: Callable[[], object], times: int) -> float:
    """Mean seconds of so many runs."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times
