"""What a candidate is worth before anyone decides to train it in full."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ajpq.evaluate import Costs, Images, Metrics, costs_in_loop
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import DivergedError
from ajpq.finetune.tuning import Watch, calibrated, calibration_batches, fine_tune
from ajpq.packed import estimated_bytes
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, float_logits, network_of
from ajpq.selection.answers import NOTHING, Answers, Shown, answers_to
from ajpq.selection.executor import Executor, Report
from ajpq.selection.fidelity import Rival, falls_short_calibrating, logits_until_lost
from ajpq.selection.looks import Gains, StoppedError, gained, looking
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.ranking import prepare_ranking
from hw_models.network import Network

# Nats; a network that knows nothing is about 10 away from a confident one.
_WORST_KL = 20.0
# Of answers kept for candidates that begin alike; two ResNet-20s on a thousand images take as much.
_MOST_BYTES = 1 << 28


def judge(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> Metrics:
    """Metrics of ``policy`` on the search sample after the short ``recipe``; a pure function."""
    return judge_against(problem, recipe, policy)[0]


@dataclass(frozen=True, eq=False)
class Shared:
    """What the candidates of one search share.

    Attributes:
        batches: images to calibrate with, and their labels.
        prefixes: answers to images.
        wanted: of a batch, by its number, what the uncompressed network answers; filled as asked.
    """

    batches: tuple[tuple[Tensor, Tensor], ...]
    prefixes: Prefixes
    wanted: dict[int, Tensor] = field(default_factory=dict)


def shared_by_candidates(
    problem: Problem, recipe: Recipe, most_bytes: int = _MOST_BYTES
) -> Shared | None:
    """None if candidates are trained: they begin alike no more.

    Args:
        most_bytes: of answers that are remembered.
    """
    if recipe.stages:
        return None
    return Shared(tuple(calibration_batches(problem, recipe.calibration)), Prefixes(most_bytes))


def judge_against(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    rival: Rival | None = None,
    shared: Shared | None = None,
    gains: Gains | None = None,
) -> tuple[Metrics, Answers]:
    """:func:`judge`, given up as soon as it is clear that the candidate falls short of ``rival``.

    Args:
        gains: what the training of others has brought since they were looked at; None not to look
            at this one. Looks change nothing of one that is not given up.
        shared: what :func:`shared_by_candidates` of the same problem and recipe made; it saves
            time and changes nothing.

    Returns:
        Metrics, and what was answered. With fewer images than the whole sample, top-1 and the
        divergence are the rival's and what they differ by on those seen; with none, by the first
        batch of the calibration.
    """
    shared = shared or shared_by_candidates(problem, recipe, most_bytes=0)
    if shared is not None:
        return _judged_untrained(problem, recipe, policy, rival, shared)
    looks: list[Tensor] = []
    watch = Watch(on_state=looking(problem, recipe, policy, rival, gains, looks))
    try:
        weights = fine_tune(problem, policy, recipe, watch)
    except DivergedError:
        # One unlucky candidate must not end the search: it is the worst, at its true cost.
        network = network_of(problem, policy, direct_weights(problem))
        costs = costs_in_loop(network, problem.pricing)
        nothing = torch.zeros(len(problem.search_sample.labels), dtype=torch.bool)
        found = Metrics(**costs.model_dump(), top1_val=0.0, kl=_WORST_KL, images=len(nothing))
        return found, Answers(Shown(nothing, torch.full((len(nothing),), _WORST_KL).double()))
    except StoppedError as stop:
        costs = costs_in_loop(stop.network, problem.pricing)
        return _judged(problem.search_sample, costs, stop.logits, rival, hope=stop.hope)
    network = network_of(problem, policy, weights)
    with ThreadPoolExecutor(1) as beside:
        pricing = beside.submit(costs_in_loop, network, problem.pricing)
        metrics, answers = _shown(problem, network, rival, pricing)
    if looks and len(answers.sample) == len(problem.search_sample.labels):
        metrics = metrics.model_copy(update={"gains": gained(looks, answers.sample.right)})
    return metrics, answers


def _judged_untrained(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    rival: Rival | None,
    shared: Shared,
) -> tuple[Metrics, Answers]:
    """The answers to the first batch of its calibration are looked at too.

    Calibration moves biases and scales, not codes: what a device takes is asked about the network
    before it, which is what projections ask about, and while it runs. Biases count in the packed
    file, so the size is that of the calibrated network if it gets so far.
    """
    answered: list[Shown] = []  # to the batch that ran first

    def costs() -> Costs:
        return price() if asked is None else asked.result()

    def costs_of(network: Network) -> Costs:
        return costs().model_copy(update={"packed_bytes": estimated_bytes(network)})

    def go_on(number: int, logits: Tensor) -> bool:
        if not answered:
            answered.append(answers_to(_batch(problem, shared, number), logits))
            return not falls_short_calibrating(rival, answered[0])
        return True

    images = [images for images, _ in shared.batches]
    settings, prefixes = recipe.calibration, shared.prefixes
    direct = network_of(problem, policy, direct_weights(problem))
    price = functools.partial(costs_in_loop, direct, problem.pricing)
    with ThreadPoolExecutor(1) as beside:
        # A compiler has a process of its own; a formula would only take turns with the images.
        asked = beside.submit(price) if problem.pricing.slow else None
        weights = calibrated(problem, policy, settings, problem.state, images, prefixes, go_on)
        early = Answers(calibrating=answered[0])
        if not falls_short_calibrating(rival, early.calibrating):
            network = network_of(problem, policy, weights)
            pricing = beside.submit(costs_of, network)
            return _shown(problem, network, rival, pricing, early.calibrating, prefixes)
        assert rival is not None
        found = _estimated(costs(), rival, rival.answers.calibrating, early.calibrating)
    return found.model_copy(update={"images": 0}), early


def _batch(problem: Problem, shared: Shared, number: int) -> Images:
    """A batch of the calibration, and what the uncompressed network answers to it."""
    images, labels = shared.batches[number]
    if number not in shared.wanted:
        shared.wanted[number] = float_logits(problem.graph, problem.state, images)
    return Images(images, labels, shared.wanted[number])


def _shown(
    problem: Problem,
    network: Network,
    rival: Rival | None,
    pricing: Future[Costs],
    calibrating: Shown = NOTHING,
    prefixes: Prefixes | None = None,
) -> tuple[Metrics, Answers]:
    """The sample, until it is clear that the candidate falls short."""
    run = prepare_ranking(network, prefixes=prefixes)
    logits = logits_until_lost(run, problem.search_sample, rival)
    return _judged(problem.search_sample, pricing.result(), logits, rival, calibrating)


def _judged(
    sample: Images,
    costs: Costs,
    logits: Tensor,
    rival: Rival | None,
    calibrating: Shown = NOTHING,
    hope: float = 0.0,
) -> tuple[Metrics, Answers]:
    """As :func:`judge_against` returns.

    Args:
        hope: points of top-1 still to come.
    """
    found = answers_to(sample, logits)
    if rival is not None and len(found) < len(sample.labels):
        metrics = _estimated(costs, rival, rival.answers.sample, found, hope)
    else:
        top1, kl = 100 * float(found.right.double().mean()), float(found.kl.mean())
        metrics = Metrics(**costs.model_dump(), top1_val=top1, kl=kl)
    return metrics.model_copy(update={"images": len(found)}), Answers(found, calibrating)


def _estimated(
    costs: Costs, rival: Rival, known: Shown, found: Shown, hope: float = 0.0
) -> Metrics:
    """What the rival has, and what a candidate differs by on the images seen.

    Args:
        known: the rival's answers to these images and more.
    """
    whole, same = rival.answers.sample, known.first(len(found))
    right, kl = whole.right.double().mean(), whole.kl.mean()
    top1 = 100 * float(right + (found.right.double() - same.right.double()).mean()) + hope
    return Metrics(
        **costs.model_dump(),
        top1_val=min(max(top1, 0.0), 100.0),
        kl=max(float(kl + (found.kl - same.kl).mean()), 0.0),
        given_up=True,
    )


def judge_many(
    executor: Executor,
    recipe: Recipe,
    policies: Sequence[CompressionPolicy],
    rival: Rival | None = None,
    gains: Gains | None = None,
) -> list[tuple[Metrics, Answers]]:
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
) -> tuple[Metrics, Answers]:
    recipe, policy, rival, gains = item
    return judge_against(problem, recipe, policy, rival, _shared_here(problem, recipe), gains)


@functools.lru_cache(maxsize=1)
def _shared_here(problem: Problem, recipe: Recipe) -> Shared | None:
    """In a worker from one candidate to the next, and from one generation to the next."""
    return shared_by_candidates(problem, recipe)
