"""Where candidates come from: a walk to the border that the accuracy sets, then a searcher."""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path

import numpy as np

from agents.config import AgentConfig
from agents.searchers import Setup, searcher
from agents.trials import SearchOver, Trials
from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Metrics
from ajpq.finetune.recipe import Recipe
from ajpq.policy import CompressionPolicy
from ajpq.progress import Progress
from ajpq.runs.candidates import CandidateLog
from envs.greedy import last_that_holds
from envs.task import CompressionTask


def propose(
    config: SearchConfig,
    agent_config: AgentConfig,
    task: CompressionTask,
    log: CandidateLog,
    run_dir: Path,
    progress: Progress,
    train_images: int = 0,
    seed: int | None = None,
) -> int:
    """Fill ``log`` with candidates; keep what the searcher has learned from them.

    Args:
        train_images: of which a recipe's epochs consist.
        seed: of the searcher, and of nothing else; the config's by default.

    Returns:
        Images that it took, sensitivities included.
    """

    def judged(asked: CompressionTask, policy: CompressionPolicy) -> Metrics:
        spent = trials.images
        metrics = asked.assess(policy)
        log.keep(policy, metrics, asked.score(metrics), spent)
        progress.candidate(len(log.entries), config.episodes, log.best, task.budget)
        return metrics

    trials = Trials(
        judge=judged,
        cost=functools.partial(candidate_cost, config.candidate, train_images),
        most_candidates=config.episodes,
        most_images=math.inf if config.images is None else config.images,
        in_time=lambda: config.time_budget_s is None or log.seconds < config.time_budget_s,
        images=task.spent_images,
    )
    if task.path:
        task = _at_the_border(task, trials)
    tasks = tuple(task.at(scale) for scale in scales(config.budget_range, config.budgets))
    setup = Setup(
        tasks=tasks,
        trials=trials,
        config=agent_config,
        seed=config.seed if seed is None else seed,
        folder=run_dir,
        origin=None if config.agent_from is None else Path(config.agent_from) / "agent",
    )
    with contextlib.suppress(SearchOver):
        searcher(agent_config.algorithm)(setup)
    return trials.images


def candidate_cost(recipe: Recipe, train_images: int, metrics: Metrics) -> int:
    """Images that a candidate has taken: shown once, trained on three times.

    Its calibration and its training count whole, also where it was given up in the midst of them;
    what corrects calibrations is paid for once, by the search.
    """
    return candidate_images(recipe, train_images, metrics.images or 0)


def candidate_images(recipe: Recipe, train_images: int, shown: int) -> int:
    """:func:`candidate_cost` of one that is ranked by ``shown`` images."""
    calibration = recipe.calibration
    trained = sum(stage.total_steps(train_images) * stage.batch_size for stage in recipe.stages)
    return calibration.batches * calibration.batch_size + 3 * trained + shown


def scales(budget_range: float, count: int) -> tuple[float, ...]:
    """Multiples of the bounds that one search serves, from 1 up, equal factors apart."""
    return tuple(np.geomspace(1.0, budget_range, count).tolist()) if budget_range > 1 else (1.0,)


def _at_the_border(task: CompressionTask, trials: Trials) -> CompressionTask:
    """The task around the cheapest settings on its path that keep the accuracy."""

    def kept(position: int) -> bool:
        metrics = trials.metrics(task, task.policy(task.path[position]))
        return task.budget.keeps_accuracy(metrics)

    kept(0)  # bisection takes it to hold
    border = last_that_holds(
        len(task.path), kept, more=lambda: trials.left > 1 and trials.in_time()
    )
    return task.around(task.path[border])
