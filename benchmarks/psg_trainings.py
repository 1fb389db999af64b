"""The trainings of ``benchmarks/psg.py``: done once, kept in a folder, continued if interrupted."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.compressed import State
from ajpq.finetune.recipe import Stage
from ajpq.finetune.training import DivergedError, StageInputs, run_stage
from ajpq.problem import Problem, augmented_images, training_batches
from ajpq.progress import ConsoleProgress
from ajpq.runs.stages import load_snapshot, save_snapshot
from ajpq.simulation.calibration import recalibrate_batchnorm
from benchmarks.psg_views import Granularity, goal_of, quantized

STATISTICS_BATCHES = 64


@dataclass(frozen=True)
class Training:
    """One training: its name, its length and form, and the grids that it aims at or computes with.

    Attributes:
        bits, granularity: of the grids; trainings without have no bits.
    """

    name: str
    stage: Stage
    bits: int | None = None
    granularity: Granularity = "channel"


@dataclass(frozen=True, eq=False)
class Lab:
    """Where trainings start, where they are kept, and the order of their images."""

    problem: Problem
    folder: Path
    seed: int


def trained(lab: Lab, training: Training) -> dict[str, Tensor] | None:
    """The state after ``training``, from the folder where it was finished before.

    None if it diverged.
    """
    done = lab.folder / f"{training.name}-{_fingerprint(lab, training)}.safetensors"
    if not done.exists():
        started = time.monotonic()
        try:
            state = _train(lab, training, done.with_suffix(".part"))
        except DivergedError as error:
            print(f"  {training.name}: {error}", flush=True)
            state = {}
        save_tensors(done, state, {"seconds": str(time.monotonic() - started)})
        done.with_suffix(".part").unlink(missing_ok=True)
    return load_tensors(done)[0] or None


def score_file(lab: Lab, training: Training) -> Path:
    """Where the validation accuracy of a finished training is kept."""
    return lab.folder / f"{training.name}-{_fingerprint(lab, training)}.score"


def spent_seconds(lab: Lab) -> float:
    """What all trainings in the folder took; of an interrupted one its last sitting."""
    return sum(float(load_tensors(f)[1]["seconds"]) for f in lab.folder.glob("*.safetensors"))


def _train(lab: Lab, training: Training, part: Path) -> dict[str, Tensor]:
    problem, stage, train = lab.problem, training.stage, lab.problem.split.train
    total = stage.total_steps(len(train))
    goal = None
    if training.bits is not None:
        goal = goal_of(problem.graph, training.bits, training.granularity)
    batches = training_batches(problem.dataset, train, stage.batch_size, lab.seed)
    _, snapshot = load_snapshot(part) or (0, None)
    progress = ConsoleProgress()
    with progress.phase(f"training {training.name}"):
        state = run_stage(
            stage,
            StageInputs(problem.graph, batches, stage.steps_per_epoch(len(train)), goal),
            problem.state,
            total_steps=total,
            resume=snapshot,
            on_epoch=lambda found: save_snapshot(part, 0, found),
            on_step=lambda step, loss: progress.training_step(training.name, step, total, loss),
        )
    view: State = state
    if stage.mode == "straight_through" and goal is not None:
        view = quantized(problem.graph, state, goal)
    return {**state, **_statistics(problem, view)}


def _statistics(problem: Problem, view: State) -> dict[str, Tensor]:
    """BatchNorm statistics of a network on augmented training images."""
    images = augmented_images(
        problem.dataset, problem.split.train, problem.seed, count=STATISTICS_BATCHES
    )
    return recalibrate_batchnorm(problem.graph, view, images, lambda edge, values: values)


def _fingerprint(lab: Lab, training: Training) -> str:
    """Changes with the weights that a training starts from and with how it goes."""
    digest = hashlib.sha256(f"{training} {lab.seed} {lab.problem.seed}".encode())
    for name, value in sorted(lab.problem.state.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]
