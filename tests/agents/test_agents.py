"""Every agent solves a trivial task, repeats itself, and survives the way to disk and back."""

import numpy as np
import pytest
import torch
from stable_baselines3 import TD3

from agents import training
from agents.checkpoints import load_agent, save_agent
from agents.config import AgentConfig, load_agent_config
from agents.searchers import searcher
from agents.training import build_agent, train_agent
from envs.joint_compression import JointCompressionEnv
from hw_models.errors import AjpqError, UnknownNameError
from tests.envs.toy import toy_task

NAMES = ("td3", "sac", "ddpg", "ppo")


def trained(name, episodes, seed=0, log_dir=None):
    task = toy_task()
    config = load_agent_config(name)
    steps = len(task.layers)
    agent = build_agent(config, JointCompressionEnv(task), steps_per_episode=steps, seed=seed)
    history = []

    def on_episode(info):
        history.append((info["policy"].hash, info["reward"]))
        return True

    train_agent(
        agent,
        episodes=episodes,
        steps_per_episode=steps,
        on_episode=on_episode,
        log_dir=log_dir,
    )
    return agent, config, history


@pytest.mark.parametrize(
    ("name", "episodes"), [("td3", 80), ("sac", 80), ("ddpg", 80), ("ppo", 400)]
)
def test_solves_a_task_with_a_known_optimum(name, episodes):
    _, _, history = trained(name, episodes)
    rewards = [reward for _, reward in history]
    assert len(rewards) == episodes
    # Random proposals lose 0.72 on average; the optimum loses nothing.
    assert max(rewards) > -0.13
    assert np.mean(rewards[-20:]) > np.mean(rewards[:8]) + 0.1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_learns_the_same(name, tmp_path):
    one = trained(name, 16, seed=1, log_dir=tmp_path / "logs")[2]
    torch.rand(3)
    np.random.rand(3)
    assert one == trained(name, 16, seed=1)[2]
    assert one != trained(name, 16, seed=2)[2]
    assert any((tmp_path / "logs").iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_optimizers_come_back(name, tmp_path):
    agent, config, _ = trained(name, 12)
    save_agent(agent, config, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    task = toy_task()
    fresh = build_agent(config, JointCompressionEnv(task), steps_per_episode=3, seed=9)
    load_agent(fresh, tmp_path)
    observation = JointCompressionEnv(task).reset(seed=0)[0]
    expected, _ = agent.predict(observation, deterministic=True)
    found, _ = fresh.predict(observation, deterministic=True)
    assert np.array_equal(expected, found)
    before, after = agent.get_parameters(), fresh.get_parameters()
    for key in before:
        assert flat(before[key]) == pytest.approx(flat(after[key]))


def flat(content):
    if isinstance(content, torch.Tensor):
        return content.double().flatten().tolist()
    if isinstance(content, dict):
        return [value for entry in content.values() for value in flat(entry)]
    if isinstance(content, list | tuple):
        return [value for entry in content for value in flat(entry)]
    return [float(content)] if isinstance(content, int | float) else []


def test_damaged_agents_are_refused(tmp_path):
    agent, config, _ = trained("td3", 8)
    save_agent(agent, config, tmp_path)
    (tmp_path / "agent.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AjpqError, match="cannot load the agent"):
        load_agent(agent, tmp_path)


def test_settings_are_checked(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'td3'"):
        load_agent_config("td4")
    (tmp_path / "odd.yaml").write_text("algorithm: ddpk\n")
    with pytest.raises(UnknownNameError, match="did you mean 'ddpg'"):
        searcher(load_agent_config(str(tmp_path / "odd.yaml")).algorithm)
    odd = AgentConfig(algorithm="td3", hyperparameters={"learning_rat": 1})
    with pytest.raises(AjpqError, match="learning_rat"):
        build_agent(odd, JointCompressionEnv(toy_task()), steps_per_episode=3, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_settings_stay_as_they_were_given(name):
    """An interrupted comparison asks whether they do."""
    config, steps = load_agent_config(name), 3
    build_agent(config, JointCompressionEnv(toy_task()), steps_per_episode=steps, seed=0)
    assert config == load_agent_config(name)


@pytest.mark.parametrize("n_steps", [3, 1])
def test_td3_for_episodes_learns_what_td3_learns(monkeypatch, n_steps):
    """With returns over the whole episode, and with the critics' own values beyond one step."""
    config = load_agent_config("td3")
    longer = {**config.hyperparameters, "n_steps": n_steps}
    config = config.model_copy(update={"hyperparameters": longer})
    learned = []
    for algorithm in (TD3, training.ALGORITHMS["td3"]):
        monkeypatch.setitem(training.ALGORITHMS, "td3", algorithm)
        env = JointCompressionEnv(toy_task())
        agent = build_agent(config, env, steps_per_episode=3, seed=4)
        train_agent(agent, episodes=14, steps_per_episode=3, on_episode=lambda info: True)
        assert type(agent) is algorithm
        learned.append(agent.policy.state_dict())
    one, other = learned
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
