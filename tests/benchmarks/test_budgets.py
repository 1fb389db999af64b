"""Parts of ``benchmarks/unseen_budgets.py`` and ``benchmarks/transfer.py`` with known answers."""

import math

import pytest

from agents.config import load_agent_config
from agents.searchers.turns import TwoControllers
from ajpq.comparing.standings import Spread
from benchmarks import ablations, transfer, unseen_budgets
from envs.budget import Budget, between


def test_unseen_budgets_are_as_far_as_can_be_from_all_that_a_search_serves():
    ends = [Budget({"latency": scale * 0.4, "size": scale * 0.1}, {}, None, 0) for scale in (1, 4)]
    (found,) = unseen_budgets.unseen(tuple(dict(end.bounds) for end in ends))
    served = [*ends, *between(ends, TwoControllers().between)]
    distances = [abs(math.log2(found["size"] / each.bounds["size"])) for each in served]
    assert min(distances) == pytest.approx(0.25)  # they lie half an octave apart
    assert found["latency"] == pytest.approx(4 * found["size"])


@pytest.mark.parametrize(("decoded", "holds"), [(89.7, True), (89.6, False)])
def test_the_worst_budget_counts(decoded, holds):
    rows = [
        {"search": "decoded", "top1_val": 91.0},
        {"search": "dedicated", "top1_val": 90.0},
        {"search": "decoded", "top1_val": decoded},
        {"search": "dedicated", "top1_val": 89.95},
    ]
    (bar,) = unseen_budgets.bars_of(rows).values()
    assert bar["holds"] is holds


def test_the_searcher_from_nothing_has_no_warm_start_and_no_other_difference():
    cold, warm = (load_agent_config(spec) for spec in (str(transfer.COLD), "ajpq"))
    own = {"pruning": [], "floor": 0, "descents": []}
    assert cold.hyperparameters == warm.hyperparameters | own
    assert (cold.algorithm, cold.noise) == (warm.algorithm, warm.noise)


def test_a_started_agent_has_to_reach_what_a_fresh_one_does():
    (bar,) = transfer.bars_of([{"reward": -0.05}, {"reward": -0.06}]).values()
    assert bar["holds"]
    (bar,) = transfer.bars_of([{"reward": -0.07}, {"reward": -0.06}]).values()
    assert not bar["holds"]


def test_transfer_asks_for_the_middle_budget():
    config = transfer.config_of({"checkpoint": "public"}, 50, quick=False)
    assert config.latency_ratio == pytest.approx(0.6 * 1.5**0.5)
    assert config.candidates == 50
    assert config.budget_range == 1.0


def test_every_ablation_changes_one_thing():
    whole = load_agent_config("ajpq").hyperparameters
    differences = {
        "with_sensitivities": {"sees_sensitivities": True},
        "slopes_last": {"descents_first": 0.0},
        "without_slopes": {"descents": []},
        "from_nothing": {"pruning": [], "floor": 0, "descents": []},
        "without_between": {"between": 0},
    }
    assert tuple(differences) == ablations.ALTERED
    for name, difference in differences.items():
        spec = str(transfer.COLD.with_name(f"{name}.yaml"))
        assert load_agent_config(spec).hyperparameters == whole | difference
    alone = load_agent_config(ablations.LAYERS).hyperparameters
    assert alone == whole | {"channel_rounds": 0}


def test_an_ablation_without_a_policy_for_a_budget_says_so():
    spreads = [Spread(70.0, None, 71.0), Spread(None, None, None)]
    assert ablations._columns(spreads) == {
        "top1_val_budget_1": 70.0,
        "least_1": None,
        "top1_val_budget_2": None,
        "least_2": None,
        "mean": 70.0,
    }
