"""How many worker processes pay, measured on the work itself.

Several processes of a thread each waste no time on waiting for each other's threads, but share
caches and memory, and where there are fewer pieces than processes some cores rest. What prevails
depends on the network and on the machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ajpq.selection.executor import Executor, InProcess, Work, worker_processes

# Shorter work does not earn back what starting processes and measuring take.
WORTH_MEASURING_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Where pieces of work are done.

    Attributes:
        workers, threads: how many processes, and threads of each.
        beside: the first so many pieces go to the workers, the others follow in this process with
            all its threads.
        alone_s: measured seconds of a sample of one piece with all threads, if it was measured.
        together_s: the same of a sample of one piece in every worker at the same time.
    """

    workers: int
    threads: int
    beside: int
    alone_s: float | None = None
    together_s: float | None = None

    def threads_of(self, place: int) -> int:
        """Threads that do the piece in this place (from 0)."""
        return self.threads if place < self.beside else torch.get_num_threads()


def in_process() -> Plan:
    """No workers."""
    return Plan(1, torch.get_num_threads(), 0)


def soonest(items: int, workers: int, alone_s: float, together_s: float) -> int:
    """How many of ``items`` equal pieces go to workers so that all are done soonest.

    The others follow one by one, each with all threads.
    """

    def seconds(beside: int) -> float:
        return math.ceil(beside / workers) * together_s + (items - beside) * alone_s

    return min(range(items + 1), key=seconds)


def made_plan(
    asked: int | Literal["auto"], shared: Any, sample: Work, items: Sequence[Any], times: float
) -> Plan:
    """So many workers as were ``asked`` for, or as the measurement says.

    Args:
        shared, items: as for :class:`ajpq.selection.executor.Executor`.
        sample: does a small part of an item.
        times: an item is so many samples long.
    """
    all_threads = torch.get_num_threads()
    count = min(len(items), all_threads if asked == "auto" else asked)
    if count < 2:
        return in_process()
    threads = max(all_threads // count, 1)
    if asked != "auto":
        return Plan(count, threads, len(items))
    alone = seconds_of(InProcess(shared), sample, items[:1])
    if alone * times * len(items) < WORTH_MEASURING_S:
        return Plan(1, all_threads, 0, alone)
    with worker_processes(shared, count, threads) as several:
        together = seconds_of(several, sample, items[:count])
    return Plan(count, threads, soonest(len(items), count, alone, together), alone, together)


def seconds_of(executor: Executor, sample: Work, items: Sequence[Any]) -> float:
    """Seconds for all items, after they have been done once."""
    executor.map(sample, items)  # processes and threads start, libraries choose their kernels
    started = time.perf_counter()
    executor.map(sample, items)
    return round(time.perf_counter() - started, 4)


def described(plan: Plan, items: int) -> str:
    """One line for the user: what was measured, and what follows from it."""
    if plan.alone_s is None:
        return f"{plan.workers} worker processes, threads of each: {plan.threads}"
    if plan.together_s is None:
        return "too little work to try worker processes for"
    return (
        f"measured: a sample takes {plan.alone_s:.2f} s with all threads, {plan.workers} at the "
        f"same time take {plan.together_s:.2f} s in a worker process each; so {plan.beside} of "
        f"{items} go to workers"
    )
