"""Which candidates a search with a bound on the drop asks about, and where the agent goes on."""

import dataclasses
import itertools

import numpy as np
import pytest

from agents.config import AgentConfig
from ajpq.config.files import load_search_config
from ajpq.progress import SilentProgress
from ajpq.proposals import candidate_images, propose
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from envs.actions import KEEP_ALL
from tests.envs.toy import toy_task

WHOLE = KEEP_ALL / 2


def pruned(entry):
    """How many of each layer's eight channels a journalled candidate has lost."""
    return [layer["weight_bits"].count(0) for layer in entry["policy"]["layers"].values()]


def proposed(tmp_path, drop, episodes=12, time_budget_s=None):
    """The candidates where every channel costs 12.5 points; the path prunes none to four."""
    log = CandidateLog(Journal(tmp_path / "journal.jsonl"))
    task = toy_task(wanted_sparsity=(0.0, 0.0, 0.0))
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    path = tuple(
        np.array([[KEEP_ALL + (1 - KEEP_ALL) * share if share else WHOLE], [WHOLE], [WHOLE]])
        for share in shares
    )
    budget = dataclasses.replace(task.budget, max_drop=drop)
    judge = task.judge
    task = dataclasses.replace(
        task,
        path=path,
        budget=budget,
        judge=lambda policy, budget: log.assess(policy, lambda p: judge(p, budget)),
    )
    config = load_search_config("digits", {"episodes": episodes}).model_copy(
        update={"time_budget_s": time_budget_s}
    )
    agent = AgentConfig(algorithm="td3", warmup_episodes=2)
    propose(config, agent, task, log, tmp_path, SilentProgress())
    return [pruned(entry) for entry in log.entries]


@pytest.mark.parametrize(
    ("drop", "walk", "border"),
    [
        (5, [0, 2, 1], 0),
        (15, [0, 2, 1], 1),
        (30, [0, 2, 3], 2),
        (99, [0, 2, 3, 4], 4),
    ],
)
def test_it_bisects_to_the_border_and_the_agent_stays_near_it(tmp_path, drop, walk, border):
    found = proposed(tmp_path, drop)
    assert len(found) == 12
    assert found[: len(walk)] == [[count, 0, 0] for count in walk]
    by_agent = found[len(walk) :]
    assert all(abs(first - border) <= 1 and rest == [0, 0] for first, *rest in by_agent)


def test_few_episodes_leave_one_for_the_agent(tmp_path):
    found = proposed(tmp_path, 99, episodes=3)
    assert found[:2] == [[0, 0, 0], [2, 0, 0]]
    assert len(found) == 3


def test_when_the_time_is_over_the_first_position_stays_a_candidate(tmp_path):
    assert proposed(tmp_path, 5, time_budget_s=1e-9) == [[0, 0, 0]]


def test_the_seed_of_the_searcher_is_not_that_of_the_problem(tmp_path):
    """Random search under another seed asks for others; the config stays as it is."""
    config = load_search_config("digits", {"episodes": 6, "seed": 3})

    def hashes(name, seed):
        log = CandidateLog(Journal(tmp_path / name))
        judge = toy_task().judge
        task = dataclasses.replace(
            toy_task(),
            judge=lambda policy, budget: log.assess(policy, lambda p: judge(p, budget)),
        )
        agent = AgentConfig(algorithm="random")
        propose(config, agent, task, log, tmp_path, SilentProgress(), seed=seed)
        return [entry["hash"] for entry in log.entries]

    assert hashes("config", None) == hashes("same", 3)
    assert hashes("other", 4) != hashes("config", None)


def test_candidates_tell_what_had_been_spent_before_them(tmp_path):
    log = CandidateLog(Journal(tmp_path / "journal.jsonl"))
    judge = toy_task().judge

    def judged(policy, budget):
        shown = log.assess(policy, lambda p: judge(p, budget)).model_copy(update={"images": 7})
        return shown

    task = dataclasses.replace(toy_task(), judge=judged, spent_images=100)
    config = load_search_config("digits", {"images": 700})
    plain = candidate_images(config.candidate, 0, 7)
    agent = AgentConfig(algorithm="random")
    images = propose(config, agent, task, log, tmp_path, SilentProgress())
    spent = [entry["spent"] for entry in log.entries]
    assert spent[0] == 100
    assert {b - a for a, b in itertools.pairwise(spent)} <= {0, plain}
    assert spent[-1] < 700 <= images == spent[-1] + plain
