"""What the pure parts of ``benchmarks/known_optimum.py`` mean."""

import itertools

import pytest

from agents.searchers.setup import Hyperparameters
from agents.searchers.turns import TwoControllers
from benchmarks import known_optimum
from benchmarks.known_optimum import Found
from tests.envs.toy import toy_task


def test_all_policies_of_a_space_are_there_once():
    task = toy_task(channels=8)  # any of its three layers may lose none to four of its channels
    policies = known_optimum.policies(task)
    live = [
        tuple(sum(bits > 0 for bits in layer.weight_bits) for layer in policy.layers.values())
        for policy in policies
    ]
    assert sorted(live) == sorted(itertools.product(range(4, 9), repeat=3))


def test_the_true_best_within_a_budget_comes_first():
    task = toy_task(wanted_sparsity=(1.0, 0.0, 0.0))
    known = {policy.hash: task.assess(policy) for policy in known_optimum.policies(task)}
    order = known_optimum.ranking(task, known)
    assert len(order) == 125
    assert known[order[0]].packed_bytes == 4 + 8 + 8
    assert known[order[0]].top1_val == pytest.approx(100)


def test_a_search_ends_at_the_true_best_or_when_its_policies_are_used_up():
    task = toy_task(wanted_sparsity=(1.0, 0.0, 0.0))
    known = {policy.hash: task.assess(policy) for policy in known_optimum.policies(task)}
    order = known_optimum.ranking(task, known)
    for seed in range(4):
        found = known_optimum.search("random", task, order, 5, seed)
        assert found.judged <= 5
        assert found.place == 1 or found.judged == 5
    assert known_optimum.search("random", task, order[1:], 125, seed=0).place == 1


def test_nine_of_ten_seeds_have_to_find_the_true_best():
    def bar(places):
        found = [Found("ajpq", seed, place, 9, 1.0) for seed, place in enumerate(places)]
        return next(iter(known_optimum.bars_of([*found, Found("random", 0, 1, 9, 1.0)]).values()))

    assert bar([1] * 9 + [2])["holds"]
    assert not bar([1] * 8 + [2, None])["holds"]


def test_rows_count_the_best_and_a_search_without_a_candidate_comes_last():
    found = [Found("ddpg", seed, place, 9, 1.0) for seed, place in enumerate([1, None, 3])]
    (row,) = known_optimum.rows_of(found, 100, 50)
    assert (row["found_the_best"], row["place_of_its_best"], row["searches"]) == (1, 3, 3)


def test_ours_starts_without_tables():
    own = known_optimum.agent_of("ajpq").hyperparameters
    settings = TwoControllers.model_validate(own)
    assert isinstance(settings, Hyperparameters)
    assert (settings.pruning, settings.floor, settings.channel_rounds) == ((), 0, 0)
    assert settings.descents == ()
