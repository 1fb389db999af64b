"""Several searchers, each with several seeds, on one problem at one cost.

Every search is a folder with a journal of its own, from which it continues after an interruption as
any search does; a finished one has left ``search.json`` and is taken as it is. Only validation
images are looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.config import AgentConfig, load_agent_config
from agents.searchers import WITHOUT_CHANCE, searcher
from ajpq.comparing.arena import Arena, build_arena, measure
from ajpq.comparing.config import CompareConfig, label_of
from ajpq.comparing.standings import (
    Asked,
    Comparison,
    Outcome,
    best_within,
    reward_curve,
    standings,
    volume_of,
)
from ajpq.config.files import validated
from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from ajpq.progress import Progress, SilentProgress
from ajpq.proposals import candidate_cost, propose
from ajpq.reporting import write_comparison
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.folder import check_new, check_resumable, create_run, save_json, versions
from ajpq.runs.journal import Journal
from ajpq.selection.contest import contest
from envs.budget import Budget
from envs.build import repriced
from envs.measured import journalled
from hw_models.errors import AjpqError

RESULT, SEARCH, SEARCHER = "compare.json", "search.json", "searcher.json"


def compare(
    config: CompareConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Let searchers compete on the same problem, and write down what each has found.

    Args:
        config: what to compare; see :class:`ajpq.comparing.config.CompareConfig`.
        folder: a new one, or with ``resume`` that of a comparison that was interrupted.
        progress: told what happens; silent by default.

    Returns:
        The content of ``compare.json``.

    Raises:
        AjpqError: bad input, or a budget that no policy can meet.
    """
    progress, folder = progress or SilentProgress(), Path(folder)
    if resume:
        check_resumable(folder, config)
    else:
        check_new(folder)
    agents = {agent: load_agent_config(agent) for agent in config.agents}
    for agent in agents.values():
        searcher(agent.algorithm)  # an unknown one is told before anything is trained
    if (folder / RESULT).exists():
        comparison = load_comparison(folder)
    else:
        comparison = _made(config, agents, folder, progress)
    write_comparison(folder, comparison)
    return comparison


def _made(
    config: CompareConfig, agents: Mapping[str, AgentConfig], folder: Path, progress: Progress
) -> Comparison:
    arena = build_arena(config, folder, progress)
    if not (folder / "config.yaml").exists():
        create_run(folder, config)
    journalled(arena.measurements, Journal(folder / "journal.jsonl"))
    with progress.phase("searching"):
        outcomes = _searched(config, agents, arena, folder, progress)
    comparison = Comparison(
        model=config.model_name,
        data=arena.problem.dataset.name.split(":")[0],
        target=arena.problem.target.name,
        budgets=tuple(dict(budget.bounds) for budget in arena.budgets),
        images=arena.images,
        reference=(config.reference_drop, config.reference_ratio),
        baseline_top1=arena.baseline_top1,
        searches=tuple(outcomes),
        versions=versions(),
    )
    _save(folder, comparison)
    return comparison


class _OneOf(SilentProgress):
    """Tells the candidates of one of several searches."""

    def __init__(self, progress: Progress, name: str, done: int, total: int) -> None:
        self._tell = functools.partial(progress.part, done=done, total=total)
        self._name = name

    def candidate(self, done: int, total: int, best: dict[str, Any], budget: Budget) -> None:
        """One more candidate."""
        self._tell(f"{self._name}, candidate {done}")


def _searched(
    config: CompareConfig,
    agents: Mapping[str, AgentConfig],
    arena: Arena,
    folder: Path,
    progress: Progress,
) -> list[Outcome]:
    """Every searcher with every seed: done now, continued, or read if it is done."""
    pairs = [
        (name, seed)
        for name, agent in agents.items()
        for seed in (config.seeds[:1] if agent.algorithm in WITHOUT_CHANCE else config.seeds)
    ]
    outcomes = []
    for number, (agent, seed) in enumerate(pairs):
        name, own = label_of(agent), folder / f"{label_of(agent)}-{seed}"
        _keep_searcher(own, agents[agent])
        if (own / SEARCH).exists():
            outcome: Outcome = validated(Outcome, _json_of(own / SEARCH), str(own / SEARCH))
        else:
            told = _OneOf(progress, f"{name}, seed {seed}", number, len(pairs))
            settings = config.search_by(agent, arena.images, arena.most_candidates)
            outcome = _search(arena, settings, agents[agent], seed, own, told)
            save_json(own / SEARCH, outcome.model_dump(mode="json"))
        outcomes.append(outcome)
        progress.part(f"{name}, seed {seed}", number + 1, len(pairs))
    return outcomes


def _keep_searcher(folder: Path, agent: AgentConfig) -> None:
    """Write down what a search is set to, or check that it still is what it began with.

    Folders of versions that did not write it down are taken as they are.
    """
    file, given = folder / SEARCHER, agent.model_dump(mode="json")
    if file.exists():
        stored = _json_of(file)
        changed = [name for name in given if stored.get(name) != given[name]]
        if changed:
            raise AjpqError(
                f"{folder} was begun with another {changed[0]} of the agent: "
                f"{stored.get(changed[0])!r}, not {given[changed[0]]!r}; choose another run folder"
            )
    elif not folder.exists():
        folder.mkdir()
        save_json(file, given)


def _search(
    arena: Arena,
    config: SearchConfig,
    agent: AgentConfig,
    seed: int,
    folder: Path,
    progress: Progress,
) -> Outcome:
    log = CandidateLog(Journal(folder / "journal.jsonl", time.monotonic()))
    own = repriced(arena.task, arena.problem)
    task = dataclasses.replace(own, judge=contest(config, arena.problem, log))
    train_images = len(arena.problem.split.train)
    images = propose(config, agent, task, log, folder, progress, train_images, seed)
    asked = asked_of(log.entries, arena)
    policies = {entry["hash"]: entry["policy"] for entry in log.entries}
    found = [
        measure(arena, CompressionPolicy.model_validate(policies[name]), log.journal)
        for name in best_within(asked, config.final[0].keep)
    ]
    return Outcome(
        agent=label_of(config.agent),
        seed=seed,
        candidates=len(log.entries),
        images=images,
        seconds=round(log.seconds, 1),
        measured=tuple(policy for policy in found if policy is not None),
        curve=tuple(reward_curve(asked)),
    )


def asked_of(entries: Sequence[Mapping[str, Any]], arena: Arena) -> list[Asked]:
    """Journalled candidates: what had been spent when each was known, and its rewards."""
    known: set[str] = set()
    found = []
    for entry in entries:
        metrics, images = Metrics.model_validate(entry["metrics"]), entry["spent"]
        if entry["hash"] not in known:
            images += candidate_cost(arena.recipe, len(arena.problem.split.train), metrics)
        known.add(entry["hash"])
        rewards, between = (
            tuple(
                arena.task.value(metrics, budget) if budget.met(metrics) else None
                for budget in budgets
            )
            for budgets in (arena.budgets, arena.between)
        )
        if metrics.given_up:  # of budgets that nobody was asked for estimates may be all there is
            rewards = (None,) * len(rewards)
        found.append(Asked(entry["hash"], images, rewards, between))
    return found


def _save(folder: Path, comparison: Comparison) -> None:
    """``compare.json``: the searches, and what follows from them."""
    content = comparison.model_dump(mode="json")
    content["standings"] = [dataclasses.asdict(row) for row in standings(comparison)]
    for outcome, stored in zip(comparison.searches, content["searches"], strict=True):
        stored["hypervolume"] = volume_of(outcome, comparison.reference)
    save_json(folder / RESULT, content)


def load_comparison(folder: Path) -> Comparison:
    """What :func:`compare` has written into a folder.

    Raises:
        AjpqError: there is nothing, or it is damaged.
    """
    content = _json_of(folder / RESULT)
    content.pop("standings", None)
    for outcome in content.get("searches", ()):
        outcome.pop("hypervolume", None)
    comparison: Comparison = validated(Comparison, content, str(folder / RESULT))
    return comparison


def _json_of(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise AjpqError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise AjpqError(f"{path} is damaged: it is no JSON object")
    return content
