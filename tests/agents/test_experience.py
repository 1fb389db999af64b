"""Experience looks alike from every budget that it is worth something for."""

import dataclasses

import numpy as np
import pytest

from agents.experience import Tried, best_of, learned_reward, settings_of, walk
from agents.warm_start import prior_pruned, table_settings
from envs.allocation import even_shares
from envs.fitting import uses_the_budget
from envs.layer_control import LayerControlEnv, sharing
from tests.envs.toy import best_of_joint_toy, joint_toy


def tried(task, settings):
    policy = task.policy(settings)
    return Tried(settings, task.shares, task.assess(policy), policy.hash)


def test_a_walk_is_what_the_environment_would_have_shown():
    task = sharing(joint_toy(0.4))
    rng = np.random.default_rng(0)
    env = LayerControlEnv([task])
    observation, _ = env.reset(seed=0)
    actions = rng.uniform(-0.6, 0.2, (len(task.layers), len(task.knobs.names)))
    seen = [observation]
    for action in actions:
        observation, reward, done, _, info = env.step(action)
        seen.append(observation)
    assert done
    one = tried(task, np.array([task.settings(i, a) for i, a in enumerate(actions)]))
    steps = list(walk(task, one))
    assert np.array_equal(np.concatenate([step[0] for step in steps]), np.stack(seen[:-1]))
    assert np.array_equal(steps[-1][1][0], seen[-1])
    assert np.concatenate([step[2] for step in steps]) == pytest.approx(actions, abs=1e-6)
    assert [bool(step[4][0]) for step in steps] == [False] * 3 + [True]
    assert steps[-1][3][0] == pytest.approx(task.score(one.metrics))
    assert reward == info["reward"]


def test_candidates_count_for_budgets_that_they_keep_and_use():
    task = sharing(joint_toy(0.5))
    one = tried(task, table_settings(task, prior_pruned(task, 0.0)))
    assert uses_the_budget(task, one.metrics)
    assert not uses_the_budget(task.at(0.9), one.metrics)
    assert uses_the_budget(task.at(1.03), one.metrics)
    assert not uses_the_budget(task.at(1.5), one.metrics)
    assert best_of([one], task) is one
    assert best_of([one], task.at(0.9)) is None


def test_a_candidate_that_was_given_up_is_nobodys_best_and_adds_nothing():
    """Under another budget its estimate may lie above what was judged in full."""
    task = sharing(joint_toy(0.5))
    known = tried(task, table_settings(task, prior_pruned(task, 0.5)))
    hopeful = known.metrics.model_copy(update={"top1_val": 100.0, "kl": 0.0, "given_up": True})
    given_up = dataclasses.replace(known, metrics=hopeful, learned=True)
    assert best_of([given_up, known], task) is known
    assert best_of([given_up], task) is given_up
    assert learned_reward(task, [known, given_up]) == 0.0
    judged = hopeful.model_copy(update={"given_up": False})
    found = dataclasses.replace(given_up, metrics=judged)
    assert best_of([known, found], task) is found
    assert learned_reward(task, [known, found]) > 0.0


def test_settings_of_a_policy_stand_for_it():
    task = sharing(joint_toy(1.0))
    for settings in ([0.25, 0.5, 1.0], [1.0, 1 / 3, 1.0]):
        values = np.tile(settings[:2], (len(task.layers), 1))
        policy = task.policy(values)
        again = task.policy(settings_of(task, policy))
        for one, other in zip(policy.layers.values(), again.layers.values(), strict=True):
            assert (one.bits == 0).tolist() == (other.bits == 0).tolist()
            assert one.bits.sum() == other.bits.sum()


@pytest.mark.parametrize("size", [0.3, 0.5, 0.8])
def test_the_tables_settings_beat_all_policies_with_one_width_per_layer(size):
    task = sharing(joint_toy(size, max_sparsity=0.0))
    settings = table_settings(task, prior_pruned(task, 0.0))
    policy = task.policy(settings)
    assert task.budget.met(task.price(policy))
    assert task.score(task.assess(policy)) >= best_of_joint_toy(size, sparsities=(0,))


def test_no_table_leaves_projection_alone():
    task = sharing(dataclasses.replace(joint_toy(0.5), tables=()))
    assert task.shares == tuple(even_shares(()))
    assert task.budget.met(task.price(task.policy(table_settings(task, prior_pruned(task, 1.0)))))
