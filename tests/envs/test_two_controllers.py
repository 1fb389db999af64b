"""The layer and the channel controller's environments, and what they agree on."""

import copy
import itertools
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import envs  # noqa: F401  # registers the ids
from envs.actions import mean_width
from envs.allocation import error_of, even_shares
from envs.channel_control import GROUPS, ChannelControlEnv, left_for_others, parts
from envs.digits_task import digits_task
from envs.layer_control import LayerControlEnv

IDS = ("ajpq/LayerControl-v0", "ajpq/ChannelControl-v0")


@pytest.fixture(scope="module")
def task():
    return digits_task().at(0.5)  # where widths matter


@pytest.mark.parametrize("name", IDS)
def test_the_registered_ids_pass_both_checkers_without_a_warning(name):
    env = gym.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
        check_env_for_sb3(env.unwrapped)


def rollout(env, seed, action=None):
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    trace = [observation]
    done = False
    while not done:
        chosen = env.action_space.sample() if action is None else action
        observation, value, done, _, info = env.step(chosen)
        trace += [observation, np.array([value])]
    return trace, info


@pytest.mark.parametrize("kind", [LayerControlEnv, ChannelControlEnv])
def test_two_seeded_rollouts_are_equal_and_keep_the_budget(task, kind):
    (one, info), (other, again) = (rollout(kind([task]), 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert info["policy"].hash == again["policy"].hash
    assert task.budget.met(info["metrics"])


def test_the_upper_controller_asks_the_lower_one_with_all_goals(task):
    asked = []

    def shares(own, goals):
        asked.append(goals.shape)
        return even_shares(own.tables)

    _, info = rollout(LayerControlEnv([task], shares), 0)
    assert asked == [(len(task.layers), 3)]  # sparsity, bits, activation: no spread
    assert len(info["shares"]) == len(task.layers)


def test_budgets_take_turns(task):
    env = LayerControlEnv([task, task.at(1.5)])
    seen = []
    for _ in range(4):
        env.reset()
        seen.append(env.task.budget.bounds["size"])
    assert seen == pytest.approx([0.06, 0.09, 0.06, 0.09])


def test_kernels_of_the_lower_controller_are_the_live_ones_once_each(task):
    own = task.with_shares(even_shares(task.tables))
    settings = own.projected(own.prior)
    policy = own.policy(settings)
    for layer, facts in enumerate(task.layers):
        mine = [part for part in parts(own, settings) if part.layer == layer]
        assert len(mine) <= GROUPS
        rows = np.concatenate([part.rows for part in mine])
        assert sorted(rows) == np.flatnonzero(policy.layers[facts.name].bits).tolist()
        scores = task.scores[facts.name]
        for weak, strong in itertools.pairwise(mine):
            assert scores[weak.rows].max() <= scores[strong.rows].min()


def test_whatever_the_lower_controller_does_goals_are_met(task):
    own = task.with_shares(even_shares(task.tables))
    settings = own.projected(own.prior)
    for seed in range(3):
        _, info = rollout(ChannelControlEnv([task], lambda task: settings), seed)
        for values, layer in zip(
            settings, own.with_shares(info["shares"]).policy(settings).layers.values(), strict=True
        ):
            live = layer.bits[layer.bits > 0]
            wanted = mean_width(own.knobs, values[1])
            assert wanted - 7 / len(live) <= live.mean() <= wanted + 1e-9


def test_to_share_evenly_costs_nothing_and_all_else_does(task):
    env = ChannelControlEnv([task], mix=0.0)
    even, _ = rollout(env, 0, action=np.zeros(1))
    assert sum(float(value[0]) for value in even[2::2]) == 0.0
    random, _ = rollout(env, 0)
    assert sum(float(value[0]) for value in random[2::2]) < 0.0


def test_left_alone_the_lower_controller_keeps_the_shares_of_its_task(task):
    rng = np.random.default_rng(0)
    own = task.with_shares([rng.normal(size=len(table.errors)) for table in task.tables])
    even, info = rollout(ChannelControlEnv([own], mix=0.0), 0, action=np.zeros(1))
    assert all(np.array_equal(a, b) for a, b in zip(info["shares"], own.shares, strict=True))
    assert sum(float(value[0]) for value in even[2::2]) == 0.0
    random, _ = rollout(ChannelControlEnv([own], mix=0.0), 0)
    assert sum(float(value[0]) for value in random[2::2]) < 0.0


def test_what_is_left_shrinks_when_the_first_want_more(task):
    own = task.with_shares(even_shares(task.tables))
    second = next(part for part in parts(own, own.projected(own.prior)) if part.group == 1)
    even = own.tables[second.layer].ladder
    greedy = np.where(second.before, 5.0, 0.0)
    assert left_for_others(even, greedy, second) <= left_for_others(even, 0 * greedy, second)
    assert left_for_others(even, -greedy, second) >= left_for_others(even, 0 * greedy, second)


def test_tables_fall_with_width_and_add_up_to_what_was_measured(task):
    for table in task.tables:
        assert (np.diff(table.errors.sum(0)) < 0).all()
        assert (np.diff(table.stored.sum(0)) > 0).all()
        widest = np.full(len(table.errors), 8)
        assert error_of(table, widest) == pytest.approx(table.errors[:, -1].sum())


def test_environments_hand_out_tasks_not_copies_of_them(task):
    assert copy.deepcopy({"task": task})["task"] is task
