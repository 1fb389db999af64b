"""What the controllers do on a toy whose optimum is known, beyond what every searcher does."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from agents.config import load_agent_config
from agents.experience import Tried
from agents.front import load_front
from agents.neighbourhood import centred, shorter, unknown
from agents.searchers import opening, turns
from agents.searchers.two_controllers import blinded
from agents.sensitivity import load_sensitivities
from envs.channel_control import ChannelControlEnv
from envs.fitting import fits, uses_the_budget
from envs.layer_control import sharing
from envs.observation import observe
from hw_models.errors import AjpqError
from tests.agents.searching import IMAGES, best, searched
from tests.envs.toy import BYTES, joint_toy, toy_task, with_slopes

SIZE = 0.3
SCALES = (1.0, 1.4, 2.0)
FOLDERS = ("first", "second")


@pytest.mark.parametrize(("name", "channel"), [("ajpq", {"channel"}), ("ajpq-layers", set())])
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


@pytest.mark.parametrize("name", ["ajpq", "ajpq-layers"])
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


@pytest.mark.parametrize("share", [0.4, 0.0])
def test_slopes_come_before_the_turns_of_controllers_or_after_them_only(
    share, tmp_path, monkeypatch
):
    order, module = [], sys.modules["agents.searchers.two_controllers"]
    for name in ("_descend", "take_turns"):
        inner = getattr(module, name)

        def told(*given, name=name, inner=inner):
            order.append(name)
            return inner(*given)

        monkeypatch.setattr(module, name, told)
    settings = load_agent_config("ajpq").hyperparameters | {"descents_first": share}
    tasks = [with_slopes(joint_toy(SIZE), images=50)]
    searched("ajpq", tasks, tmp_path, hyperparameters=settings, most_images=9000)
    before = ["_descend"] if share else []
    assert order[: len(before) + 2] == [*before, "take_turns", "_descend"]


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


@pytest.mark.parametrize(("first", "second"), [("ajpq", "ajpq-layers"), ("ajpq-layers", "ajpq")])
def test_either_goes_on_from_the_other(first, second, tmp_path):
    tasks, origin = [joint_toy(SIZE)], tmp_path / "first" / "agent"
    searched(first, tasks, tmp_path / "first", most_candidates=40)
    asked, _ = searched(second, tasks, tmp_path / "second", most_candidates=20, origin=origin)
    assert len(asked) == 20


@pytest.mark.parametrize("controller", ["layer", "channel"])
def test_each_controller_goes_on_from_its_own_agent(controller, tmp_path):
    tasks, origin = [joint_toy(SIZE)], tmp_path / "first" / "agent"
    searched("ajpq", tasks, tmp_path / "first", most_candidates=40)
    (origin / controller / "agent.json").write_text("{")
    with pytest.raises(AjpqError, match=controller):
        searched("ajpq", tasks, tmp_path / "second", most_candidates=20, origin=origin)


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
    below = [
        ChannelControlEnv([sharing(each)], lambda task: task.prior).reset(seed=0)[0]
        for each in (blinded(task), blinded(other), other)
    ]
    assert np.array_equal(below[0], below[1])
    assert not np.array_equal(below[0], below[2])


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
