"""AJPQ: a layer controller and a channel controller around a warm start.

First comes what needs no learning; from there every budget's best candidate goes downhill along
its own slopes (:mod:`agents.descent`). Then controllers take their turns
(:mod:`agents.searchers.turns`), and when they are done, it goes downhill once more. Last come
budgets between those that were asked for: they begin with a solution of the integer program and
with what lies between their neighbours' best, go downhill too, and what was learned serves them as
well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence

import numpy as np

from agents.checkpoints import load_agent, save_agent
from agents.front import load_front, points_of, save_front
from agents.searchers.opening import (
    carry_over,
    continue_from,
    descend,
    integer_program,
    known_sensitivities,
    polish,
    warm_start,
)
from agents.searchers.reinforcement import asking_through
from agents.searchers.setup import Setup, hyperparameters
from agents.searchers.turns import (
    Search,
    TwoControllers,
    act,
    agent_config,
    controllers,
    take_turns,
)
from agents.sensitivity import load_sensitivities
from agents.trials import SearchOver
from envs.budget import between
from envs.layer_control import sharing
from envs.task import CompressionTask


def blinded(task: CompressionTask) -> CompressionTask:
    """``task`` whose observations say nothing of sensitivities."""
    layers = tuple(dataclasses.replace(facts, sensitivity=(0.0, 0.0)) for facts in task.layers)
    return dataclasses.replace(task, layers=layers)


def two_controllers(setup: Setup) -> None:
    """Warm start, then rounds of both controllers until nothing more may be asked."""
    settings = hyperparameters(setup, TwoControllers)
    shutil.rmtree(setup.folder / "tensorboard", ignore_errors=True)
    others = _between(setup.tasks, settings.between)
    last = settings.descent_share if settings.descents and setup.tasks[0].slopes else 0.0
    kept = last + (settings.between_share if others else 0.0)
    rounds = _part(setup, max(1 - kept, _opening(setup, settings)))
    rng = np.random.default_rng(setup.seed)
    search = Search(_asking(rounds, settings), [], rng, settings.moved_layers)
    with contextlib.suppress(SearchOver):
        _open(rounds, settings, search)
    if last and settings.descents_first:
        _descend(_part(rounds, settings.descents_first), settings, search)
        search.tasks = _asking(rounds, settings)
    agents = controllers(rounds, settings, search)
    if setup.origin is not None:
        for name, agent in agents.items():
            if name == "layer" or (setup.origin / name).exists():  # it may have had one controller
                load_agent(agent, setup.origin / name)
    with contextlib.suppress(SearchOver):
        if setup.origin is not None:
            act(search, agents["layer"], settings.reach[-1])
        take_turns(rounds, settings, search, agents)
    if last:
        _descend(_part(setup, last / kept), settings, search)
    front = points_of([sharing(task) for task in setup.tasks], search.tried)
    whole = dataclasses.replace(setup, tasks=(*others,) or setup.tasks)
    search.tasks = _asking(whole, settings)
    with contextlib.suppress(SearchOver):
        if others:
            _open_between(whole, settings, search)
            continue_from(search.tasks, search.tried, front)
            descend(whole.trials, search.tasks, search.tried, settings.descents, search.left)
        take_turns(whole, settings, search, agents)
    for name, agent in agents.items():
        save_agent(agent, agent_config(setup.config, settings), setup.folder / "agent" / name)
    served = [sharing(task) for task in (*setup.tasks, *others)]
    served = sorted(served, key=lambda task: sum(task.budget.bounds.values()))
    save_front(setup.folder / "agent", points_of(served, search.tried))


def _between(tasks: Sequence[CompressionTask], count: int) -> list[CompressionTask]:
    budgets = between([task.budget for task in tasks], count)
    return [dataclasses.replace(tasks[0], budget=budget) for budget in budgets]


def _opening(setup: Setup, settings: TwoControllers) -> float:
    """The share of the trials, 1 at most, that the warm start takes: it comes before all else."""
    asked = len(setup.tasks) * (len(settings.pruning) + settings.floor)
    return min(asked / max(setup.trials.left, 1.0), 1.0)


def _part(setup: Setup, share: float) -> Setup:
    """``setup`` with ``share`` of the trials that are left."""
    return dataclasses.replace(setup, trials=setup.trials.part(share))


def _asking(setup: Setup, settings: TwoControllers) -> list[CompressionTask]:
    """The setup's tasks as the controllers see them, that ask through its trials."""
    found = [sharing(asking_through(setup.trials, task)) for task in setup.tasks]
    return found if settings.sees_sensitivities else [blinded(task) for task in found]


def _open(setup: Setup, settings: TwoControllers, search: Search) -> None:
    """Ask for what needs no learning."""
    front = [] if setup.origin is None else load_front(setup.origin)
    continue_from(search.tasks, search.tried, front)
    known = known_sensitivities(setup)
    new = not search.tried
    if new and front:
        carry_over(search.tasks, search.tried, front)
    warm_start(search.tasks, search.tried, settings.pruning)
    if settings.floor and (new or known is not None):
        search.tried += integer_program(setup, settings.floor, known)
    if settings.pruning:
        polish(search.tasks, search.tried)


def _descend(setup: Setup, settings: TwoControllers, search: Search) -> None:
    """Go downhill from what has been best, as long as the setup's trials last."""
    search.tasks = _asking(setup, settings)
    with contextlib.suppress(SearchOver):
        descend(setup.trials, search.tasks, search.tried, settings.descents, search.left)


def _open_between(setup: Setup, settings: TwoControllers, search: Search) -> None:
    """Ask for the integer program's solution for each budget, if its sensitivities are known."""
    known = load_sensitivities(setup.folder / "agent", setup.tasks[0]) if settings.floor else None
    if known is not None:
        search.tried += integer_program(setup, 1, known)
