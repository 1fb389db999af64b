"""What the bars of ``benchmarks/search_quality.py`` mean."""

import json

import pytest

from ajpq.comparing.standings import Comparison, MeasuredPolicy, Outcome, standings
from benchmarks import search_quality
from benchmarks.harness import RESULTS
from hw_models.errors import AjpqError, UnknownNameError


def outcome(agent, seed, tops):
    """Two budgets of ratio 0.5 and 1.0, the best accuracy within each."""
    measured = tuple(
        MeasuredPolicy(
            hash=f"{agent}{seed}{index}",
            top1=top,
            drop=90.0 - top,
            ratio=0.5 * (index + 1),
            within=(index == 0, True),
        )
        for index, top in enumerate(tops)
    )
    return Outcome(
        agent=agent, seed=seed, candidates=9, images=100, seconds=1.0, measured=measured, curve=()
    )


def comparison(ours, others):
    return Comparison(
        model="resnet20",
        data="cifar10",
        target="bismo",
        budgets=({"size": 0.5}, {"size": 1.0}),
        images=100,
        reference=(20.0, 1.0),
        baseline_top1=90.0,
        searches=(
            *(outcome("ajpq", seed, tops) for seed, tops in enumerate(ours)),
            *(outcome("milp", seed, tops) for seed, tops in enumerate(others)),
        ),
        versions={},
    )


def bars_of(everybody, added):
    return search_quality.bars_of("bismo", search_quality.rows_of("bismo", everybody, added))


@pytest.mark.parametrize(
    ("ours", "holds"),
    [((88.0, 89.0), [True, True]), ((86.2, 89.0), [False, True]), ((88.0, 87.0), [True, False])],
)
def test_both_volume_and_every_budget_count(ours, holds):
    found = comparison([ours] * 2, [(86.0, 88.5)] * 2)
    bars = bars_of(standings(found), [[1.0, 2.0], [1.0, 2.0]])
    assert [bar["holds"] for bar in bars.values()] == [*holds, True]
    ratio = next(iter(bars.values()))["value"]
    assert ratio == pytest.approx((ours[0] - 70) / 16)  # at ratio 1 nothing is added


def test_what_was_learned_is_the_least_over_budgets_of_the_median_over_seeds():
    found = comparison([(88.0, 89.0)] * 2, [(86.0, 88.0)] * 2)
    bars = bars_of(standings(found), [[0.0, 2.0], [0.0, 2.0], [3.0, 1.0]])
    last = list(bars.values())[-1]
    assert (last["value"], last["holds"]) == (0.0, False)
    rows = search_quality.rows_of("bismo", standings(found), [[0.5, 2.0]])
    assert [row["searcher"] for row in rows] == ["ajpq", "milp"]
    assert [row["hundredths_learned"] for row in rows] == [0.5, None]
    assert rows[0]["top1_val_budget_1"] == 88.0


def test_ours_has_to_beat_those_who_were_asked_for_more_budgets_too():
    found = comparison([(88.0, 89.0)] * 2, [(86.0, 88.0)] * 2)
    tops = [(88.5, 88.6, 89.5)] * 2
    outcomes = tuple(outcome("milp", seed, own) for seed, own in enumerate(tops))
    within = [(True,) * 3, (False, True, True), (False, False, True)]
    finer = found.model_copy(
        update={
            "budgets": ({"size": 0.5}, {"size": 0.7}, {"size": 1.0}),
            "searches": tuple(
                one.model_copy(
                    update={
                        "measured": tuple(
                            policy.model_copy(update={"within": inside})
                            for policy, inside in zip(one.measured, within, strict=True)
                        )
                    }
                )
                for one in outcomes
            ),
        }
    )
    (milp,) = search_quality.coarser(finer, 2)
    assert milp.agent == "milp, asked for 3 budgets"
    assert [spread.median for spread in milp.best_top1] == [88.5, 89.5]
    bars = bars_of([*standings(found), milp], [[1.0, 1.0]])
    assert [bar["holds"] for bar in bars.values()] == [True, False, False, True]
    assert list(bars.values())[2]["value"] == pytest.approx(-0.5)


def test_who_searches_anew_replaces_its_own_rows_only():
    known = [
        {"target": "bismo", "searcher": name, "hypervolume": volume}
        for name, volume in [("ajpq", 1.0), ("milp", 2.0)]
    ]
    new = [{**known[0], "hypervolume": 3.0}, {**known[1], "target": "mpic"}]
    found = search_quality.merged(known, new)
    assert found == [new[0], known[1], new[1]]
    assert search_quality.merged([], new) == new


def test_bars_of_the_stored_rows_are_the_stored_bars():
    stored = json.loads((RESULTS / "search_quality.json").read_text())
    found = [search_quality.bars_of(target, stored["rows"]) for target in search_quality.TARGETS]
    assert {name: bar for own in found for name, bar in own.items()} == stored["bars"]


def test_rows_of_other_images_are_not_kept():
    row = {"target": "bismo", "searcher": "milp"}
    assert search_quality.rows_of_others({"command": "a", "rows": [row]}, "a") == [row]
    with pytest.raises(AjpqError, match="'b', not 'a'"):
        search_quality.rows_of_others({"command": "b", "rows": [row]}, "a")


def test_a_searcher_that_draws_nothing_has_searched_once():
    assert search_quality.searches_of("milp, asked for 9 budgets") == 1
    assert search_quality.searches_of("td3") == len(search_quality.SEEDS)


def test_searchers_are_chosen_by_name():
    agents = ("ajpq", "td3", "milp")
    assert search_quality.chosen(agents, ()) == agents
    assert search_quality.chosen(agents, ("milp", "ajpq")) == ("ajpq", "milp")
    with pytest.raises(UnknownNameError, match="did you mean 'milp'"):
        search_quality.chosen(agents, ("mlip",))
