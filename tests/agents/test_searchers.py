"""What every searcher without gradients must do on a toy whose optimum is known."""

import dataclasses
import json
import math
import os
import sys

import numpy as np
import optuna
import pytest

from agents.config import load_agent_config
from agents.experience import Tried, uses_the_budget
from agents.front import load_front
from agents.neighbourhood import centred, shorter, unknown
from agents.searchers import SEARCHERS, WITHOUT_CHANCE, opening, turns
from agents.searchers.two_controllers import blinded
from agents.sensitivity import load_sensitivities
from ajpq.config.files import shipped
from envs.episodes import fits
from envs.layer_control import sharing
from envs.observation import observe
from hw_models.errors import AjpqError
from tests.agents.searching import IMAGES, best, searched
from tests.envs.toy import BYTES, best_of_joint_toy, joint_toy, toy_task, with_slopes

LEARNING = ("td3", "sac", "ddpg", "ppo")
NAMES = tuple(name for name in shipped("agents") if name not in LEARNING)
SEEDED = tuple(name for name in NAMES if name not in WITHOUT_CHANCE)
SIZE = 0.3
SCALES = (1.0, 1.4, 2.0)
FOLDERS = ("first", "second")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """Optuna waits for it after every number of every trial."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_each_has_a_file_of_its_own():
    assert set(SEARCHERS) == {*shipped("agents")} - {"ajpq-channels"}


def median_of_best(name, folder):
    tasks = [joint_toy(SIZE)]
    runs = [searched(name, tasks, folder, seed=seed, most_candidates=100)[0] for seed in range(3)]
    return float(np.median([best(asked) for asked in runs]))


@pytest.fixture(scope="module")
def random_median(tmp_path_factory):
    return median_of_best("random", tmp_path_factory.mktemp("random"))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "uniform")])
def test_it_beats_random_and_comes_close_to_the_optimum(name, random_median, tmp_path):
    found = median_of_best(name, tmp_path)
    assert found > random_median + 0.002
    # The best with one width per layer; those who spread widths may find better ones.
    assert found > 1.3 * best_of_joint_toy(SIZE)


def test_uniform_asks_about_the_best_of_all_uniform_policies(tmp_path):
    asked, _ = searched("uniform", [joint_toy(0.5, max_sparsity=0.0)], tmp_path)
    assert [set(layer.weight_bits) for layer in asked[0].policy.layers.values()] == [{4}] * 4
    asked, _ = searched("uniform", [joint_toy(0.55, max_sparsity=0.0)], tmp_path)
    assert [layer.weight_bits for layer in asked[0].policy.layers.values()] == [(4, 4, 4, 5)] * 4
    asked, _ = searched("uniform", [joint_toy(0.5)], tmp_path)
    live = {
        len(set(layer.weight_bits) - {0}) for each in asked for layer in each.policy.layers.values()
    }
    assert len(asked) == 4
    assert live <= {1, 2}


def policy_live(policy):
    """Numbers of live channels of all layers."""
    return {sum(bits > 0 for bits in layer.weight_bits) for layer in policy.layers.values()}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_asks_the_same(name, tmp_path):
    def asked(seed, folder):
        tasks = [joint_toy(SIZE).at(scale) for scale in SCALES]
        found = searched(name, tasks, tmp_path / folder, seed=seed, most_candidates=30)[0]
        return [each.policy.hash for each in found]

    one = asked(1, "a")
    np.random.rand(3)
    assert one == asked(1, "a")  # in the folder of an earlier life
    assert (one != asked(2, "b")) == (name in SEEDED)


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_keeps_its_budget_and_every_budget_has_its_share(name, tmp_path):
    tasks = [joint_toy(SIZE, margin=0.03).at(scale) for scale in SCALES]
    asked, _ = searched(name, tasks, tmp_path, most_candidates=33)
    assert all(fits(each.task, each.policy) for each in asked)
    counts = [sum(each.task is task for each in asked) for task in tasks]
    # Two run out of ideas; the controllers keep a part for budgets between.
    kept = 1 - load_agent_config("ajpq").hyperparameters["between_share"]
    least = {"uniform": 3, "milp": 8, "ajpq": int(kept * 11)}.get(name.split("-")[0], 11)
    assert all(least <= count <= 15 for count in counts)
    assert sum(counts) <= 33


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limits", [{"most_candidates": 7}, {"most_images": 9000}])
def test_nothing_is_asked_when_trials_are_used_up(name, limits, tmp_path):
    """Neither about candidates nor about harms; both are paid for."""
    measured = []
    task = joint_toy(SIZE, harm_images=40)
    harm = task.harm
    task = dataclasses.replace(task, harm=lambda changes: measured.append(1) or harm(changes))
    judge = joint_toy(SIZE).judge
    task = dataclasses.replace(task, judge=judge)
    asked, trials = searched(name, [task, task.at(1.5)], tmp_path, **limits)
    distinct = len({each.policy.hash for each in asked})
    assert trials.candidates == len(asked) <= limits.get("most_candidates", math.inf)
    assert trials.images <= limits.get("most_images", math.inf) + IMAGES
    assert trials.images >= 40 * len(measured) + IMAGES * distinct
    if "ajpq" not in name:  # measures where its part of few trials allows
        assert bool(measured) == (name in ("greedy", "milp"))


@pytest.mark.parametrize("name", ["greedy", "milp"])
def test_no_harm_is_measured_beyond_the_images(name, tmp_path):
    asked, trials = searched(name, [joint_toy(SIZE, harm_images=40)], tmp_path, most_images=100)
    assert (asked, trials.images) == ([], 120)


@pytest.mark.parametrize("name", [name for name in NAMES if name in SEARCHERS])
@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [({"populatoin": 3}, "populatoin"), ({"sparsities": "x", "rounds": 0, "step": -1}, "")],
)
def test_odd_hyperparameters_are_told_in_one_line(name, hyperparameters, message, tmp_path):
    with pytest.raises(AjpqError, match=f"agent '{name}': hyperparameters.*{message}") as error:
        searched(name, [joint_toy()], tmp_path, hyperparameters=hyperparameters)
    assert "\n" not in str(error.value)


def test_more_parents_than_children_are_refused(tmp_path):
    with pytest.raises(AjpqError, match=r"more parents \(5\) than population \(4\)"):
        searched(
            "evolution",
            [joint_toy()],
            tmp_path,
            hyperparameters={"population": 4, "parents": 5},
        )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random",)])
def test_with_a_bounded_drop_it_finds_cheap_policies_that_keep_it(name, tmp_path):
    """Uniform widths lose 6.8 points at 3 bits and 1.7 at 4."""
    task = joint_toy(max_sparsity=0.0)
    budget = dataclasses.replace(task.budget, bounds={}, max_drop=2.0)
    task = dataclasses.replace(task, budget=budget)
    asked, _ = searched(name, [task], tmp_path, most_candidates=100)
    kept = [each for each in asked if budget.keeps_accuracy(task.assess(each.policy))]
    cost = min(budget.cost(task.price(each.policy)) for each in kept)
    assert cost < {"uniform": 0.501, "nsga2": 0.55}.get(name, 0.45)


@pytest.mark.parametrize("name", NAMES)
def test_it_searches_without_any_bound(name, tmp_path):
    task = joint_toy()
    task = dataclasses.replace(task, budget=dataclasses.replace(task.budget, bounds={}))
    asked, _ = searched(name, [task], tmp_path, most_candidates=40)
    assert best(asked) > (-0.01 if name in SEEDED else best_of_joint_toy(1.0) - 1e-9)


@pytest.mark.parametrize("size", [0.28, 0.4, 0.55, 0.7])
def test_the_integer_program_is_exact_where_harms_and_costs_add_up(size, tmp_path):
    task = joint_toy(size, max_sparsity=0.0)
    asked, _ = searched("milp", [task], tmp_path, most_candidates=1)
    assert asked[0].reward == pytest.approx(best_of_joint_toy(size, sparsities=(0,)), rel=1e-9)


def test_where_costs_do_not_add_up_the_program_ends_within_the_budget_and_near_it(tmp_path):
    """A pruned channel saves less where weights are narrow."""
    for size in (0.2, 0.3, 0.5):
        task = joint_toy(size)
        asked, _ = searched("milp", [task], tmp_path, most_candidates=1)
        ratio = task.budget.ratios(task.price(asked[0].policy))["size"]
        assert 0.93 * size <= ratio <= size
        assert asked[0].reward > 1.25 * best_of_joint_toy(size)


@pytest.mark.parametrize(("name", "studies"), [("tpe", 3), ("nsga2", 1)])
def test_optuna_opens_what_is_left(name, studies, tmp_path):
    (tmp_path / "optuna.journal").write_text("nonsense of an earlier life")
    tasks = [joint_toy(SIZE).at(scale) for scale in SCALES]
    asked, _ = searched(name, tasks, tmp_path, most_candidates=15)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "optuna.journal"))
    storage = optuna.storages.JournalStorage(backend)
    names = optuna.get_all_study_names(storage)
    assert len(names) == studies
    trials = [t for n in names for t in optuna.load_study(study_name=n, storage=storage).trials]
    assert [trial.user_attrs["policy"] for trial in trials] == [each.policy.hash for each in asked]
    assert all(trial.state.is_finished() for trial in trials)
    assert set(trials[0].params) >= {"layer0.sparsity", "layer3.bits"}
    if name == "tpe":
        assert [trial.value for trial in trials] == [each.reward for each in asked]


@pytest.mark.parametrize(("name", "channel"), [("ajpq", set()), ("ajpq-channels", {"channel"})])
def test_the_controllers_say_what_they_added_to_their_warm_start(name, channel, tmp_path):
    tasks = [joint_toy(SIZE).at(scale) for scale in SCALES]
    asked, _ = searched(name, tasks, tmp_path, most_candidates=80)
    front = json.loads((tmp_path / "agent" / "front.json").read_text())
    sizes = [row["bounds"]["size"] for row in front]
    assert sizes == sorted(sizes)
    assert sizes[::4] == [SIZE * scale for scale in SCALES]  # and three budgets between
    for row, size in zip(front, sizes, strict=True):
        task = joint_toy(size)
        within = [each for each in asked if task.budget.met(task.price(each.policy))]
        assert row["reward"] == max(task.score(task.assess(each.policy)) for each in within)
        assert row["reward"] >= row["reward_warm"]
        settings = np.array(row["settings"])
        shares = [np.array(own) for own in row["shares"]]
        again = task.with_shares(shares)
        assert task.budget.met(task.price(again.policy(again.projected(settings))))
    learned = {path.name for path in (tmp_path / "agent").iterdir()}
    assert learned == {"front.json", "layer", "sensitivities.json", *channel}


@pytest.mark.parametrize("name", ["ajpq", "ajpq-channels"])
def test_with_slopes_the_controllers_keep_budgets_and_limits_and_repeat_themselves(name, tmp_path):
    tasks = [with_slopes(joint_toy(SIZE), images=50).at(scale) for scale in SCALES]
    runs = [searched(name, tasks, tmp_path / run, most_images=9000) for run in ("a", "b")]
    (asked, trials), (again, _) = runs
    assert [each.policy.hash for each in asked] == [each.policy.hash for each in again]
    assert all(fits(each.task, each.policy) for each in asked)
    assert 9000 <= trials.images <= 9000 + IMAGES + 50
    different = len({each.policy.hash for each in asked})
    slopes, rest = divmod(trials.images - IMAGES * different, 50)
    assert rest == 0
    assert slopes >= len(tasks)  # the toy's harm costs nothing


def test_a_short_search_is_its_warm_start(tmp_path):
    tasks, names = [with_slopes(joint_toy(SIZE), images=50)], ("short", "long")
    short, long = (
        searched("ajpq", tasks, tmp_path / name, most_candidates=count)[0]
        for name, count in zip(names, (3, 60), strict=True)
    )
    assert len(short) == 3
    assert [each.policy.hash for each in short] == [each.policy.hash for each in long[:3]]


def test_for_another_budget_sensitivities_are_not_measured_again(tmp_path):
    searched("ajpq", [joint_toy(SIZE)], tmp_path / "first", most_candidates=60)

    def refused(changes):
        raise AssertionError("measured again")

    task = dataclasses.replace(joint_toy(SIZE * 1.2), harm=refused)
    asked, _ = searched(
        "ajpq", [task], tmp_path / "second", most_candidates=20, origin=tmp_path / "first" / "agent"
    )
    assert len(asked) == 20
    saved = [(tmp_path / name / "agent" / "sensitivities.json").read_text() for name in FOLDERS]
    assert saved[0] == saved[1]


@pytest.mark.parametrize(
    ("first", "second"), [("ajpq", "ajpq-channels"), ("ajpq-channels", "ajpq")]
)
def test_either_goes_on_from_the_other(first, second, tmp_path):
    tasks, origin = [joint_toy(SIZE)], tmp_path / "first" / "agent"
    searched(first, tasks, tmp_path / "first", most_candidates=40)
    asked, _ = searched(second, tasks, tmp_path / "second", most_candidates=20, origin=origin)
    assert len(asked) == 20


@pytest.mark.parametrize("controller", ["layer", "channel"])
def test_each_controller_goes_on_from_its_own_agent(controller, tmp_path):
    tasks, origin = [joint_toy(SIZE)], tmp_path / "first" / "agent"
    searched("ajpq-channels", tasks, tmp_path / "first", most_candidates=40)
    (origin / controller / "agent.json").write_text("{")
    with pytest.raises(AjpqError, match=controller):
        searched("ajpq-channels", tasks, tmp_path / "second", most_candidates=20, origin=origin)


def test_sensitivities_of_other_layers_or_damaged_ones_are_not_taken(tmp_path):
    task = joint_toy(SIZE)
    searched("ajpq", [task], tmp_path, most_candidates=40)
    folder = tmp_path / "agent"
    table = load_sensitivities(folder, task)
    assert table.kl.shape == (len(task.layers), len(table.widths))
    assert load_sensitivities(tmp_path, task) is None
    assert load_sensitivities(folder, toy_task(channels=16)) is None
    (folder / "sensitivities.json").write_text('{"widths": [2]}')
    with pytest.raises(AjpqError, match=r"sensitivities\.json is damaged"):
        load_sensitivities(folder, task)


@pytest.mark.parametrize("channel_rounds", [0, 4])
def test_without_a_warm_start_the_controllers_learn_all_the_same(channel_rounds, tmp_path):
    alone = {"pruning": [], "floor": 0, "reach": (0.5, 0.5), "channel_rounds": channel_rounds}
    found = searched("ajpq", [joint_toy(SIZE)], tmp_path, hyperparameters=alone, most_candidates=60)
    rewards = [each.reward for each in found[0]]
    assert max(rewards[30:]) > max(rewards[:5])


def test_the_layer_controller_does_not_ask_the_same_again_while_there_is_something_new(tmp_path):
    """Offsets of one hundredth cannot leave a level of these layers by themselves."""
    alone = {"pruning": [], "floor": 0, "channel_rounds": 0, "reach": (0.01, 0.01)}
    task = toy_task(channels=16)
    asked, _ = searched("ajpq", [task], tmp_path, hyperparameters=alone, most_candidates=12)
    assert len({each.policy.hash for each in asked}) == len(asked) == 12


def test_a_neighbour_of_a_known_policy_is_near_and_new():
    task, rng = sharing(joint_toy(0.5)), np.random.default_rng(0)
    goals = np.full((len(task.layers), len(task.knobs.names)), 0.4)
    asked, own = unknown(task, goals, set(), rng)
    assert own
    assert np.array_equal(asked, task.projected(goals))
    known = {task.policy(asked).hash}
    moved, own = unknown(task, goals, known, rng)
    assert not own
    assert task.policy(moved).hash not in known
    assert task.budget.met(task.price(task.policy(moved)))
    assert np.abs(moved - asked).max() < 0.5


@pytest.mark.parametrize(("moved", "expected"), [(1, 1), (2, 2), (None, len(BYTES))])
def test_a_neighbour_differs_in_as_many_layers_as_asked(moved, expected):
    task = dataclasses.replace(joint_toy(SIZE), hard=False)
    goals, rng = np.full(task.prior.shape, 0.4), np.random.default_rng(0)
    asked, _ = unknown(task, goals, set(), rng)
    found = [unknown(task, goals, {task.policy(asked).hash}, rng, moved)[0] for _ in range(20)]
    differing = [{int(layer) for layer in np.flatnonzero((m != asked).any(1))} for m in found]
    assert {len(layers) for layers in differing} == {expected}
    assert set.union(*differing) == set(range(len(task.layers)))


def test_blinded_controllers_observe_the_same_whatever_the_sensitivities():
    task = joint_toy(SIZE)
    minds = tuple(dataclasses.replace(facts, sensitivity=(1.0, 1.0)) for facts in task.layers)
    other = dataclasses.replace(task, layers=minds)
    views = [observe(blinded(each), 0, np.zeros((0, 0))) for each in (task, other)]
    assert np.array_equal(*views)
    assert not np.array_equal(views[0], observe(other, 0, np.zeros((0, 0))))


def tried_at(task, seed):
    """A random candidate on the budget."""
    wanted = np.random.default_rng(seed).random((len(task.layers), len(task.knobs.names)))
    settings = task.projected(wanted)
    policy = task.policy(settings)
    return Tried(settings, task.shares, task.assess(policy), policy.hash)


def test_seen_from_the_best_candidate_the_usual_one_is_a_unit_away_under_every_budget():
    for scale in SCALES:
        task = sharing(joint_toy(SIZE)).at(scale)
        tried = [tried_at(task, seed) for seed in range(9)]
        scores = [task.score(one.metrics) for one in tried]
        around = centred(task, tried, 0.3)
        seen = [around.score(one.metrics) for one in tried]
        assert max(seen) == 0.0 == seen[int(np.argmax(scores))]
        assert (np.diff(np.array(seen)[np.argsort(scores)]) >= 0).all()
        used = [s for s, one in zip(seen, tried, strict=True) if uses_the_budget(task, one.metrics)]
        assert np.median(used) == pytest.approx(-1.0)
        assert around.reach == 0.3


def test_proposals_are_tried_at_shorter_lengths_for_every_budget_in_turn():
    tasks = [joint_toy(SIZE).at(scale) for scale in SCALES]
    found = shorter(tasks)
    assert [each.budget for each in found[: len(tasks)]] == [task.budget for task in tasks]
    reaches = [each.reach for each in found[:: len(tasks)]]
    assert reaches[0] == tasks[0].reach
    assert reaches == sorted(reaches, reverse=True)
    assert len(set(reaches)) == len(reaches)


@pytest.mark.parametrize(("patience", "anew"), [(6, True), (None, False)])
def test_controllers_that_are_stuck_begin_anew_and_forget_nothing(
    patience, anew, tmp_path, monkeypatch
):
    made = []
    build = turns.controllers
    for module in (turns, sys.modules["agents.searchers.two_controllers"]):
        monkeypatch.setattr(
            module, "controllers", lambda *given: made.append(given) or build(*given)
        )
    own = {"pruning": [], "floor": 0, "channel_rounds": 0, "layer_rounds": 4, "patience": patience}
    task = joint_toy(SIZE)
    asked, _ = searched("ajpq", [task], tmp_path, hyperparameters=own, most_candidates=80)
    assert (len(made) > 1) is anew
    assert len({setup.seed for setup, *_ in made}) == len(made)
    (point,) = load_front(tmp_path / "agent")
    assert point.reward == pytest.approx(best(asked))


def test_without_a_warm_start_the_tables_are_never_asked(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("asked")

    monkeypatch.setattr(opening, "table_settings", refuse)
    alone = {"pruning": [], "floor": 0}
    asked, _ = searched(
        "ajpq", [joint_toy(SIZE)], tmp_path, hyperparameters=alone, most_candidates=40
    )
    assert len(asked) == 40
    with pytest.raises(AssertionError, match="asked"):
        searched("ajpq", [joint_toy(SIZE)], tmp_path, most_candidates=2)
