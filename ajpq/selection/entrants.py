"""The trainings of a final round: each leaves snapshots and, in the end, its weights in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajpq.config.schema import FinalRound
from ajpq.finetune.recipe import Calibration, Recipe
from ajpq.finetune.tuning import Watch, fine_tune
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.runs.folder import save_weights
from ajpq.runs.stages import load_snapshot, save_snapshot
from ajpq.selection.executor import InProcess, Report, worker_processes
from ajpq.selection.pace import Plan
from hw_models.size_only import SizeOnly

# Optimizer steps that tell how fast a training is; about a second for a ResNet-20.
SAMPLE_STEPS = 10

OnStep = Callable[[str, int, int, float], None]
"""Called with a label, the step, the total number of steps, and the loss."""


@dataclass(frozen=True)
class Entrant:
    """One training.

    Attributes:
        part: snapshot of an unfinished training, ``done`` the weights of a finished one.
    """

    label: str
    policy: CompressionPolicy
    recipe: Recipe
    part: Path
    done: Path


def entrant(folder: Path, number: int, stage: FinalRound, policy: CompressionPolicy) -> Entrant:
    """The training of ``policy`` in round ``number``, with its files in ``folder``."""
    stem = f"round{number}-{policy.hash}"
    part, done = folder / f"{stem}.part", folder / f"{stem}.safetensors"
    label = f"{stage.recipe.name} {policy.hash[:6]}"
    return Entrant(label, policy, stage.recipe, part, done)


def train_all(problem: Problem, entrants: Sequence[Entrant], plan: Plan, on_step: OnStep) -> None:
    """Finish the trainings that are not finished yet, where ``plan`` says."""
    beside = [each for each in entrants[: plan.beside] if not each.done.exists()]
    alone = [each for each in entrants[plan.beside :] if not each.done.exists()]
    if beside:
        with worker_processes(for_training(problem), plan.workers, plan.threads) as workers:
            workers.map(train, beside, on_step)
    InProcess(problem).map(train, alone, on_step)


def for_training(problem: Problem) -> Problem:
    """``problem`` without its target, which may be code of the user's and an open connection."""
    return dataclasses.replace(problem, target=SizeOnly(), loop_target=None)


def train(problem: Problem, entrant: Entrant, report: Report) -> None:
    """Fine-tune, or continue to, and leave the weights in ``entrant.done``."""
    watch = Watch(
        on_step=lambda _, step, total, loss: report(entrant.label, step, total, loss),
        on_epoch=lambda index, snapshot: save_snapshot(entrant.part, index, snapshot),
        resume=load_snapshot(entrant.part),
    )
    weights = fine_tune(problem, entrant.policy, entrant.recipe, watch)
    entrant.done.parent.mkdir(parents=True, exist_ok=True)
    save_weights(entrant.done, weights)
    entrant.part.unlink(missing_ok=True)  # only now: hours may be in it


def first_steps(problem: Problem, entrant: Entrant, report: Report) -> None:
    """A sample of the training: some steps of its longest stage, not compiled."""
    fine_tune(problem, entrant.policy, _shortened(problem, entrant.recipe))


def samples_in(problem: Problem, entrant: Entrant) -> float:
    """How many times longer than :func:`first_steps` the whole training is."""
    return entrant.recipe.steps(len(problem.split.train)) / SAMPLE_STEPS


def _shortened(problem: Problem, recipe: Recipe) -> Recipe:
    images, calibration = len(problem.split.train), Calibration(batchnorm_batches=0)
    if not recipe.stages:
        return Recipe(name="sample", calibration=calibration)
    longest = max(recipe.stages, key=lambda stage: stage.total_steps(images))
    short = longest.model_copy(update={"epochs": None, "steps": SAMPLE_STEPS})
    return Recipe(name="sample", stages=(short,), calibration=calibration)
