"""The registered environment keeps Gymnasium's contract and repeats itself."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

import envs  # noqa: F401  # registers the ids
from envs.digits_task import digits_task
from envs.joint_compression import JointCompressionEnv
from tests.envs.toy import toy_task


@pytest.fixture(scope="module")
def task():
    return digits_task()


def test_the_registered_id_passes_both_checkers_without_a_warning():
    env = gym.make("ajpq/JointCompression-v0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)
        check_env_for_sb3(env.unwrapped)


def rollout(env, seed):
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    trace = [observation]
    done = False
    while not done:
        observation, value, done, _, info = env.step(env.action_space.sample())
        trace += [observation, np.array([value])]
    return trace, info


def test_two_seeded_rollouts_are_equal(task):
    (one, info), (other, again) = (rollout(JointCompressionEnv(task), 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert info["policy"].hash == again["policy"].hash
    assert info["metrics"] == again["metrics"]


def test_an_episode_walks_all_layers_and_meets_the_hard_budget(task):
    env = JointCompressionEnv(task)
    for seed in range(3):
        trace, info = rollout(env, seed)
        assert len(trace) == 1 + 2 * len(task.layers)
        assert set(info["policy"].layers) == {facts.name for facts in task.layers}
        assert task.budget.met(info["metrics"])
        rewards = [float(value[0]) for value in trace[2::2]]
        assert rewards[:-1] == [0.0] * (len(task.layers) - 1)
        assert rewards[-1] == info["reward"]


def test_what_was_spent_is_seen():
    env = JointCompressionEnv(toy_task())
    env.reset(seed=0)
    whole, *_ = env.step(np.array([-1.0]))
    env.reset(seed=0)
    pruned, *_ = env.step(np.array([1.0]))
    assert pruned[14] < whole[14]
    assert pruned[15] < whole[15]


def test_the_optimum_of_a_known_task_is_the_best_rollout():
    env = JointCompressionEnv(toy_task())
    env.reset(seed=0)
    for action in (1.0, -1.0, -1.0):
        *_, info = env.step(np.array([action]))
    assert info["reward"] == 0.0
