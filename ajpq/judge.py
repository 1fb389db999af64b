"""What a candidate is worth before anyone decides to train it in full."""

from __future__ import annotations

from ajpq.evaluate import Metrics, costs_in_loop, measured
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import DivergedError
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, fine_tune, network_of
from ajpq.ranking import prepare_ranking

# Nats; a network that knows nothing is about 10 away from a confident one.
_WORST_KL = 20.0


def judge(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> Metrics:
    """Metrics of ``policy`` on the search sample after the short ``recipe``; a pure function."""
    try:
        weights = fine_tune(problem, policy, recipe)
    except DivergedError:
        # One unlucky candidate must not end the search: it is the worst, at its true cost.
        network = network_of(problem, policy, direct_weights(problem))
        costs = costs_in_loop(network, problem.pricing)
        return Metrics(**costs.model_dump(), top1_val=0.0, kl=_WORST_KL)
    network = network_of(problem, policy, weights)
    costs, sample = costs_in_loop(network, problem.pricing), problem.search_sample
    return measured(costs, prepare_ranking(network)(sample.images), sample)
