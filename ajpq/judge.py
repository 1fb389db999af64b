"""What a candidate is worth before anyone decides to train it in full."""

from __future__ import annotations

import functools

from torch import Tensor

from ajpq.compressed import CompressedWeights
from ajpq.evaluate import Metrics, costs_in_loop, measured
from ajpq.finetune.recipe import Calibration, Recipe
from ajpq.finetune.training import DivergedError
from ajpq.policy import CompressionPolicy
from ajpq.problem import (
    Problem,
    calibrated,
    calibration_images,
    direct_weights,
    fine_tune,
    network_of,
)
from ajpq.ranking import prepare_ranking

# Nats; a network that knows nothing is about 10 away from a confident one.
_WORST_KL = 20.0


@functools.lru_cache(maxsize=1)
def _images(problem: Problem, settings: Calibration) -> tuple[Tensor, ...]:
    return tuple(calibration_images(problem, settings))


def judge(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> Metrics:
    """Metrics of ``policy`` on the search sample after the short ``recipe``; a pure function."""
    try:
        weights = _weights(problem, recipe, policy)
    except DivergedError:
        # One unlucky candidate must not end the search: it is the worst, at its true cost.
        network = network_of(problem, policy, direct_weights(problem))
        costs = costs_in_loop(network, problem.pricing)
        return Metrics(**costs.model_dump(), top1_val=0.0, kl=_WORST_KL)
    network = network_of(problem, policy, weights)
    costs, sample = costs_in_loop(network, problem.pricing), problem.search_sample
    return measured(costs, prepare_ranking(network)(sample.images), sample)


def _weights(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> CompressedWeights:
    if recipe.stages:
        return fine_tune(problem, policy, recipe)
    settings = recipe.calibration
    return calibrated(problem, policy, settings, problem.state, _images(problem, settings))
