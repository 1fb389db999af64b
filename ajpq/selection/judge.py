"""What a candidate is worth before anyone decides to train it in full."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from ajpq.compressed import CompressedWeights
from ajpq.evaluate import Costs, Images, Metrics, costs_in_loop, measured
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import DivergedError
from ajpq.finetune.tuning import Watch, calibrated, calibration_images, fine_tune
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.selection.executor import Executor, Report
from ajpq.selection.fidelity import Rival, logits_until_lost, lost_points
from ajpq.selection.looks import Gains, StoppedError, first, gained, looking
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.ranking import prepare_ranking

# Nats; a network that knows nothing is about 10 away from a confident one.
_WORST_KL = 20.0
# Of answers kept for candidates that begin alike; two ResNet-20s on a thousand images take as much.
_MOST_BYTES = 1 << 28


def judge(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> Metrics:
    """Metrics of ``policy`` on the search sample after the short ``recipe``; a pure function."""
    return judge_against(problem, recipe, policy)[0]


@dataclass(frozen=True, eq=False)
class Shared:
    """What the candidates of one search share: images to calibrate with, and answers to images."""

    images: tuple[Tensor, ...]
    prefixes: Prefixes


def shared_by_candidates(
    problem: Problem, recipe: Recipe, most_bytes: int = _MOST_BYTES
) -> Shared | None:
    """None if candidates are trained: they begin alike no more.

    Args:
        most_bytes: of answers that are remembered.
    """
    if recipe.stages:
        return None
    return Shared(tuple(calibration_images(problem, recipe.calibration)), Prefixes(most_bytes))


def judge_against(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    rival: Rival | None = None,
    shared: Shared | None = None,
    gains: Gains | None = None,
) -> tuple[Metrics, Tensor]:
    """:func:`judge`, given up as soon as it is clear that the candidate falls short of ``rival``.

    Args:
        gains: what the training of others has brought since they were looked at; None not to look
            at this one. Looks change nothing of one that is not given up.
        shared: what :func:`shared_by_candidates` of the same problem and recipe made; it saves
            time and changes nothing.

    Returns:
        Metrics, and ``[n]`` bool: which of the first n images are classified right. With fewer
        than all, top-1 is the rival's minus what was lost on those seen.
    """
    looks: list[Tensor] = []
    watch = Watch(on_state=looking(problem, recipe, policy, rival, gains, looks))
    try:
        weights = _weights(problem, recipe, policy, shared, watch)
    except DivergedError:
        # One unlucky candidate must not end the search: it is the worst, at its true cost.
        network = network_of(problem, policy, direct_weights(problem))
        costs = costs_in_loop(network, problem.pricing)
        nothing = torch.zeros(len(problem.search_sample.labels), dtype=torch.bool)
        found = Metrics(**costs.model_dump(), top1_val=0.0, kl=_WORST_KL, images=len(nothing))
        return found, nothing
    except StoppedError as stop:
        costs = costs_in_loop(stop.network, problem.pricing)
        return _judged(problem.search_sample, costs, stop.logits, rival, stop.hope)
    network = network_of(problem, policy, weights)
    with ThreadPoolExecutor(1) as beside:  # a compiler or simulator in a process of its own
        pricing = beside.submit(costs_in_loop, network, problem.pricing)
        run = prepare_ranking(network, prefixes=None if shared is None else shared.prefixes)
        logits = logits_until_lost(run, problem.search_sample, rival)
        costs = pricing.result()
    metrics, right = _judged(problem.search_sample, costs, logits, rival)
    if looks and len(right) == len(problem.search_sample.labels):
        metrics = metrics.model_copy(update={"gains": gained(looks, right)})
    return metrics, right


def _judged(
    sample: Images, costs: Costs, logits: Tensor, rival: Rival | None, hope: float = 0.0
) -> tuple[Metrics, Tensor]:
    """As :func:`judge_against` returns.

    Args:
        hope: points of top-1 still to come.
    """
    seen = first(sample, len(logits))
    metrics, right = measured(costs, logits, seen), logits.argmax(1) == seen.labels
    if rival is not None and len(right) < len(sample.labels):
        top1 = 100 * float(rival.right.double().mean()) - lost_points(rival, right)[0] + hope
        metrics = metrics.model_copy(update={"top1_val": min(max(top1, 0.0), 100.0)})
    return metrics.model_copy(update={"images": len(right)}), right


def judge_many(
    executor: Executor,
    recipe: Recipe,
    policies: Sequence[CompressionPolicy],
    rival: Rival | None = None,
    gains: Gains | None = None,
) -> list[tuple[Metrics, Tensor]]:
    """:func:`judge_against` of a whole generation, for searchers that propose several at once.

    Which worker judges a candidate changes nothing; how many threads it has may change last bits.

    Args:
        executor: shares the problem. Workers cannot be given a target whose class is in a file.
        rival, gains: the same for all, whatever comes out meanwhile.
    """
    return executor.map(_judge_one, [(recipe, policy, rival, gains) for policy in policies])


def _judge_one(
    problem: Problem,
    item: tuple[Recipe, CompressionPolicy, Rival | None, Gains | None],
    report: Report,
) -> tuple[Metrics, Tensor]:
    recipe, policy, rival, gains = item
    return judge_against(problem, recipe, policy, rival, _shared_here(problem, recipe), gains)


@functools.lru_cache(maxsize=1)
def _shared_here(problem: Problem, recipe: Recipe) -> Shared | None:
    """In a worker from one candidate to the next, and from one generation to the next."""
    return shared_by_candidates(problem, recipe)


def _weights(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    shared: Shared | None,
    watch: Watch,
) -> CompressedWeights:
    if shared is None:
        return fine_tune(problem, policy, recipe, watch)
    settings = recipe.calibration
    return calibrated(problem, policy, settings, problem.state, shared.images, shared.prefixes)
