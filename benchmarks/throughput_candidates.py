"""Seconds per candidate of a search, and how often one is given up that should not have been.

On the network of ``zoo/base`` and its validation images, because how early a candidate can be told
depends on how good it is. Policies lie at random distances from what single-layer measurements
suggest, all on one budget of bytes, as a search proposes them. Wrong decisions are counted again
where the reward counts divergence, and near chance, where calibrations say least about candidates.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors
from ajpq.config.files import load_search_config
from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Images
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.tuning import control_of
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from ajpq.selection.answers import Answers, Shown
from ajpq.selection.contest import contest
from ajpq.selection.fidelity import Rival, falls_short_calibrating, images_until_lost
from ajpq.selection.finalists import validation_images
from ajpq.selection.judge import judge, judge_against, shared_by_candidates
from benchmarks.straightforward import judged, largest_inputs
from benchmarks.throughput_parts import module_of, row
from envs.budget import Budget
from envs.build import build_task

BYTES = {"target": "size-only", "latency_ratio": None, "size_ratio": 0.08}
# A device on which so little is only reached by pruning, which nobody has trained for yet.
NEAR_CHANCE = {"target": "edge-npu", "latency_ratio": 0.5, "size_ratio": 0.07}
# Of the reward, as in benchmarks/search_quality.py.
KL_WEIGHT = 3.0
ORDERS = 200
COMPARED = 10


def candidates(checkpoint: Path, data: str, policies: int, seed: int) -> list[dict[str, Any]]:
    """Seconds for each candidate: straightforward, on the same images, and as a search does it."""
    config, problem = on_all_validation_images(checkpoint, data)
    proposals = random_proposals(config, problem, policies, seed)
    sample, recipe, name = problem.search_sample, config.candidate, config.model
    started = time.perf_counter()
    control_of(problem, recipe.calibration)
    once = time.perf_counter() - started
    found = _turns(name, problem, recipe, proposals[:COMPARED])
    found["candidate as searched"] = _searched(config, problem, proposals)
    keep, answers = config.final[0].keep, _answers(problem, recipe, proposals)
    wrong, images = decisions(answers, keep, seed)
    wrong_kl, images_kl = decisions(answers, keep, seed, KL_WEIGHT)
    config, problem = on_all_validation_images(checkpoint, data, NEAR_CHANCE)
    hard = random_proposals(config, problem, policies, seed)
    wrong_there, images_there = decisions(_answers(problem, recipe, hard), keep, seed)
    total = len(sample.labels)
    return [
        *(row(what, name, seconds, "s") for what, seconds in found.items()),
        row("statistics that correct calibrations, once a search", name, once, "s"),
        row("finalists given up", name, wrong, "% of them"),
        row("images per candidate", name, images, f"of {total}"),
        row("finalists given up, divergence counted", name, wrong_kl, "% of them"),
        row("images per candidate, divergence counted", name, images_kl, f"of {total}"),
        row("finalists given up, near chance", name, wrong_there, "% of them"),
        row("images per candidate, near chance", name, images_there, f"of {total}"),
    ]


def _answers(
    problem: Problem, recipe: Recipe, proposals: Sequence[CompressionPolicy]
) -> list[Answers]:
    """Of every candidate, to all images."""
    shared = shared_by_candidates(problem, recipe)
    return [judge_against(problem, recipe, policy, None, shared)[1] for policy in proposals]


def on_all_validation_images(
    checkpoint: Path, data: str, bounds: Mapping[str, Any] = BYTES
) -> tuple[SearchConfig, Problem]:
    """A search whose sample is all validation images in random order.

    Args:
        bounds: target and budget.
    """
    about = load_tensors(checkpoint)[1]
    config = load_search_config(
        "cifar10-resnet20",
        {
            "model": about["model"],
            "seed": int(about["seed"]),
            "checkpoint": str(checkpoint),
            "data": data,
            **bounds,
        },
    )
    problem = build_problem(config)
    sample = validation_images(problem)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(sample.labels)))
    assert sample.float_logits is not None
    shuffled = Images(sample.images[order], sample.labels[order], sample.float_logits[order])
    return config, dataclasses.replace(problem, search_sample=shuffled)


def random_proposals(
    config: SearchConfig, problem: Problem, count: int, seed: int
) -> list[CompressionPolicy]:
    """Policies at random distances from the prior, on the budget."""
    task = build_task(
        config, problem, lambda policy, budget: judge(problem, config.candidate, policy)
    )
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        offsets = rng.uniform() * rng.uniform(-1, 1, task.prior.shape)
        actions = np.stack([task.settings(i, offsets[i]) for i in range(len(task.layers))])
        found.append(task.policy(task.projected(actions)))
    return found


def _turns(
    name: str, problem: Problem, recipe: Recipe, proposals: Sequence[CompressionPolicy]
) -> dict[str, float]:
    """Mean seconds of a candidate on all images; the two ways take turns, the first is warming up.

    No two of the proposals begin alike.
    """
    module, sample = module_of(name, problem), problem.search_sample
    reach = largest_inputs(module, proposals[0], sample.images[:200])
    shared = shared_by_candidates(problem, recipe)
    ways: dict[str, Callable[[CompressionPolicy], object]] = {
        "straightforward candidate": lambda policy: judged(
            module, policy, reach, sample.images, sample.labels
        ),
        "candidate on all validation images": lambda policy: judge_against(
            problem, recipe, policy, None, shared
        ),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for policy in proposals:
        for way, judged_by in ways.items():
            started = time.perf_counter()
            judged_by(policy)
            seconds[way].append(time.perf_counter() - started)
    return {way: float(np.mean(taken[1:])) for way, taken in seconds.items()}


def _searched(
    config: SearchConfig, problem: Problem, proposals: Sequence[CompressionPolicy]
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        log = CandidateLog(Journal(Path(folder) / "journal.jsonl", started))
        assess = contest(config, problem, log)
        unbound = Budget({}, {}, None, 0.0)
        for policy in proposals:
            metrics = assess(policy, unbound)
            log.keep(policy, metrics, metrics.top1_val)
        return (time.perf_counter() - started) / len(proposals)


def decisions(
    answers: Sequence[Answers], keep: int, seed: int, kl_weight: float = 0.0
) -> tuple[float, float]:
    """Percent of those that belong in the finals which are given up, and images of the sample per
    candidate.

    Over many random orders of the candidates and of the sample; calibration has one order, as in
    every search of a seed.

    Args:
        answers: of each candidate, to all images.
        keep: as many enter the finals.
        kl_weight: of the divergence in the reward.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([own.sample.points(kl_weight).mean() for own in answers])
    wrong, worthy, images = 0, 0, 0
    for _ in range(ORDERS):
        order = torch.randperm(len(answers), generator=generator)
        shuffle = torch.randperm(len(answers[0].sample), generator=generator)
        known = [_shuffled(answers[number], shuffle) for number in order]
        for number, own in enumerate(known):
            rival, worth = None, False
            if number >= keep:
                last = int(scores[order[:number]].topk(keep).indices[-1])
                rival = Rival(known[last], kl_weight=kl_weight)
                worth = bool(scores[order[number]] >= scores[order[last]])
            seen = images_seen(own, rival)
            images += seen
            worthy += worth
            wrong += worth and seen < len(shuffle)
    return 100 * wrong / max(worthy, 1), images / (ORDERS * len(answers))


def _shuffled(answers: Answers, order: Tensor) -> Answers:
    sample = Shown(answers.sample.right[order], answers.sample.kl[order])
    return dataclasses.replace(answers, sample=sample)


def images_seen(answers: Answers, rival: Rival | None) -> int:
    """Of the sample, by a candidate with these answers."""
    if falls_short_calibrating(rival, answers.calibrating):
        return 0
    return images_until_lost(answers.sample, rival)
