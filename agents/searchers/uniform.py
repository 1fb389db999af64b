"""The same width and the same sparsity for every layer: what no search at all would do.

For every sparsity of a grid the widest mean width within the budget; where the drop of accuracy is
bounded, the narrowest one that keeps it.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from pydantic import Field

from agents.searchers.setup import Hyperparameters, Setup, each_in_turn, hyperparameters
from agents.trials import Trials
from ajpq.policy import CompressionPolicy
from envs.actions import KEEP_ALL
from envs.fitting import fits
from envs.greedy import last_that_holds
from envs.task import CompressionTask


class Uniform(Hyperparameters):
    """How fine the grid is.

    Attributes:
        sparsities: settings of the knob ``sparsity``, from pruning nothing to the most.
        widths: mean widths, from the widest to the narrowest that the target stores; those in
            between are made of two neighbours.
    """

    sparsities: int = Field(default=9, ge=1)
    widths: int = Field(default=49, ge=2)


def uniform(setup: Setup) -> None:
    """Ask about one policy per sparsity and width of activations, or a few with a bounded drop."""
    each_in_turn(setup, functools.partial(_search, hyperparameters(setup, Uniform)))


def _search(
    options: Uniform, task: CompressionTask, trials: Trials, rng: np.random.Generator
) -> None:
    asked: set[str] = set()
    for policies in _grid(options, task):
        within = policies[bisect_left(policies, True, key=functools.partial(fits, task)) :]
        if within and within[0].hash not in asked:
            asked.add(within[0].hash)
            metrics = trials.metrics(task, within[0])
            if task.budget.max_drop is not None and task.budget.keeps_accuracy(metrics):
                _narrow(task, trials, within)


def _grid(options: Uniform, task: CompressionTask) -> Iterator[list[CompressionPolicy]]:
    """For every sparsity and activation width the policies from the widest weights down."""
    top = max(len(task.knobs.activation_bits) - 1, 1)
    activations = [place / top for place in range(len(task.knobs.activation_bits))][::-1]
    sparsities = np.linspace(KEEP_ALL, 1.0, options.sparsities).tolist()
    widths = np.linspace(1.0, 0.0, options.widths if "bits" in task.knobs.names else 1).tolist()
    for sparsity, activation in itertools.product(sparsities, activations):
        values = {"sparsity": sparsity, "spread": 0.0, "activation": activation}
        rows = [[(values | {"bits": w})[name] for name in task.knobs.names] for w in widths]
        yield [task.policy(np.tile(row, (len(task.layers), 1))) for row in rows]


def _narrow(task: CompressionTask, trials: Trials, policies: list[CompressionPolicy]) -> None:
    """Ask down to the narrowest of ``policies`` that keeps the accuracy, as the first does."""

    def kept(index: int) -> bool:
        return task.budget.keeps_accuracy(trials.metrics(task, policies[index]))

    last_that_holds(len(policies), kept, more=lambda: not trials.over)
