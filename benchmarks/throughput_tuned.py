"""What giving up candidates in the midst of a short training saves, and how often it errs.

On the network, the images and the kind of policies of :mod:`benchmarks.throughput_candidates`, with
a hundred steps of PSG before a candidate is judged. The steps saved are counted before what looks
cost: a twentieth of such a training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ajpq.config.files import load_recipe
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.tuning import Watch, fine_tune
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, network_of
from ajpq.selection.answers import Answers, without_divergence
from ajpq.selection.fidelity import (
    Rival,
    falls_short,
    hoped_for,
    images_until_lost,
    logits_until_lost,
)
from ajpq.selection.looks import SHARES, gained, images_of_a_look, look, look_steps
from ajpq.simulation.ranking import prepare_ranking
from benchmarks.throughput_candidates import (
    ORDERS,
    on_all_validation_images,
    random_proposals,
)
from benchmarks.throughput_parts import row

STEPS = 100


def tuned(
    checkpoint: Path, data: str, policies: int, seed: int, steps: int = STEPS
) -> list[dict[str, Any]]:
    """Errors and savings over many random orders of the candidates and of the images."""
    config, problem = on_all_validation_images(checkpoint, data)
    recipe = tuning(steps)
    proposals = random_proposals(config, problem, policies, seed)
    curves = torch.stack([learning_curve(problem, recipe, policy) for policy in proposals])
    wrong, saved = decisions(curves, config.final[0].keep, seed)
    return [
        row("tuned finalists given up", config.model, wrong, "% of them"),
        row("training steps saved", config.model, saved, "% of all candidates'"),
    ]


def tuning(steps: int) -> Recipe:
    """The recipe ``psg-short`` with more steps."""
    short = load_recipe("psg-short")
    stage = short.stages[0].model_copy(update={"steps": steps})
    return short.model_copy(update={"stages": (stage,)})


def learning_curve(problem: Problem, recipe: Recipe, policy: CompressionPolicy) -> Tensor:
    """``[looks + 1, N]`` bool: which images are classified right at each look and in the end."""
    labels, found = problem.search_sample.labels, []
    shown = images_of_a_look(len(problem.search_sample.labels))
    steps = look_steps(recipe, len(problem.split.train), shown)

    def on_state(step: int, state: Any) -> None:
        if step in steps:
            logits = look(problem, recipe, policy, state(), len(labels))[1]
            found.append(logits.argmax(1) == labels)

    weights = fine_tune(problem, policy, recipe, Watch(on_state=on_state))
    run = prepare_ranking(network_of(problem, policy, weights))
    logits = logits_until_lost(run, problem.search_sample, None)
    return torch.stack([*found, logits.argmax(1) == labels])


def decisions(curves: Tensor, keep: int, seed: int) -> tuple[float, float]:
    """Percent of those that belong in the finals which are given up, and of all steps saved.

    Args:
        curves: ``[P, looks + 1, N]`` bool, of P candidates.
        keep: as many enter the finals.
    """
    generator = torch.Generator().manual_seed(seed)
    wrong, worthy, saved = 0, 0, 0.0
    for _ in range(ORDERS):
        order = torch.randperm(len(curves), generator=generator)
        shown = curves[order][:, :, torch.randperm(curves.shape[2], generator=generator)]
        scores = shown[:, -1].double().mean(1)
        gains: list[tuple[float, ...]] = []
        for number, curve in enumerate(shown):
            rival = None
            if number >= keep:
                last = int(scores[:number].topk(keep).indices[-1])
                rival = Rival(Answers(without_divergence(shown[last, -1])))
            stopped = given_up_at(curve, rival, gains)
            if stopped is not None:
                saved += 1 - SHARES[stopped]
            elif images_until_lost(without_divergence(curve[-1]), rival) == curve.shape[1]:
                gains.append(gained(_looks(curve), curve[-1]))
            if rival is not None and scores[number] >= scores[last]:
                worthy += 1
                wrong += stopped is not None
    return 100 * wrong / max(worthy, 1), 100 * saved / (ORDERS * len(curves))


def given_up_at(curve: Tensor, rival: Rival | None, gains: list[tuple[float, ...]]) -> int | None:
    """The look (from 0) at which a candidate is given up, if it is."""
    for number, early in enumerate(_looks(curve)):
        hoped = hoped_for(rival, [each[number] for each in gains], len(early))
        found = without_divergence(early)
        if falls_short(hoped, found.first(images_until_lost(found, hoped))):
            return number
    return None


def _looks(curve: Tensor) -> list[Tensor]:
    """What is shown of each look."""
    count = images_of_a_look(curve.shape[1])
    return [early[:count] for early in curve[:-1]]
