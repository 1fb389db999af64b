"""Position-based scaled gradients against plain SGD and straight-through training.

Every training starts from the same network, sees the same images in the same order for the same
number of epochs at the same learning rate. Afterwards its weights are quantized or pruned directly,
without any correction: no fine-tuning, no new BatchNorm statistics. Activations stay real, as in
the paper (arXiv 2005.11035); at 3 and 2 bits the first and the last layer have 8, as in its code.
PSG has one training per width and one for all sparsities; its strength ``lambda_s`` is chosen on
validation images after one epoch, then test images are looked at once.

    make bench NAME=psg
    python -m benchmarks.psg --data imagefolder:DIR

Two hours on two cores; started again, it goes on where it was stopped.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from ajpq import cli
from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.compressed import State, compressed_view, fit_scales, weight_bits
from ajpq.evaluate import top1
from ajpq.finalists import validation_images
from ajpq.finetune.recipe import PSGSettings, Stage
from ajpq.finetune.training import DivergedError, Goal, StageInputs, run_stage
from ajpq.graph.structure import Graph, layers
from ajpq.policy import uniform_policy
from ajpq.problem import Problem, float_logits, training_batches
from ajpq.progress import ConsoleProgress
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.results import float_network, record_test, top1_test
from ajpq.runs.stages import load_snapshot, save_snapshot
from benchmarks.base_networks import problem_of
from benchmarks.harness import at_least, at_most, write_result
from benchmarks.psg_figure import psg_figure

NAME = "psg"
WIDTHS = (8, 4, 3, 2)
GRANULARITIES = ("channel", "tensor")
SPARSITIES = (0.3, 0.5, 0.7, 0.9)
FORMS = {"weights": "sparse", "channels": "sparse_channels"}
LAMBDAS: dict[str, tuple[float, ...]] = {
    "8": (150, 500, 1500),
    "4": (50, 150, 500),
    "3": (50, 150, 500),
    "2": (15, 50, 150),
    "weights": (5, 15, 50),
    "channels": (5, 15, 50),
}

View = Callable[[State], State]


@dataclass(frozen=True)
class Training:
    """One training: its name, its length and form, and the grids that it aims at or computes with.

    Attributes:
        bits, granularity: of the grids; None for trainings without.
    """

    name: str
    stage: Stage
    bits: int | None = None
    granularity: str = "channel"


def main(
    data: str = "cifar10",
    checkpoint: str = "zoo/base/resnet20.safetensors",
    model: str = "resnet20",
    epochs: int = 3,
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train, quantize and prune directly, write benchmarks/results/psg.json and docs/psg.png.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: where every training starts.
        model: its network.
        epochs: length of every training.
        seed: of the order of the images.
        run_dir: finished trainings; default runs/psg.
        quick: a few steps instead of epochs: does it run at all?
    """
    started = time.monotonic()
    problem = problem_of(model, data, seed, checkpoint=checkpoint)
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    length: dict[str, Any] = {"steps": 5} if quick else {"epochs": epochs}
    plain = Stage(mode="float", learning_rate=0.01, weight_decay=1e-4, **length)
    short = replace_length(plain, steps=5) if quick else replace_length(plain, epochs=1)
    strengths = chosen_strengths(problem, short, folder)
    trained = {
        training.name: trained_state(problem, training, folder)
        for training in trainings(plain, strengths)
    }
    networks = predictions(problem.graph, dict(problem.state), trained)
    answers = top1_test(problem, networks)
    record_test(problem, folder, f"{NAME} ({len(networks)} networks)", "none", answers)
    rows = table(answers, strengths)
    path = write_result(
        NAME,
        command=f"python -m benchmarks.{NAME} --epochs {epochs}{' --quick' if quick else ''}",
        seed=seed,
        rows=rows,
        bars=bars(rows),
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)
    if not quick:
        print(psg_figure(rows, histograms(problem, trained), Path("docs/psg.png")))


def replace_length(stage: Stage, *, epochs: int | None = None, steps: int | None = None) -> Stage:
    """``stage`` with another length."""
    return stage.model_copy(update={"epochs": epochs, "steps": steps})


def psg_stage(plain: Stage, form: str, lambda_s: float) -> Stage:
    """``plain`` with scaled gradients."""
    settings = PSGSettings.model_validate({"form": form, "lambda_s": lambda_s})
    return plain.model_copy(update={"mode": "psg", "psg": settings})


def trainings(plain: Stage, strengths: Mapping[str, float]) -> list[Training]:
    """Everything that is compared: plain SGD, PSG of all forms, straight-through."""
    found = [Training("sgd", plain)]
    for structure, form in FORMS.items():
        found.append(Training(f"psg-{structure}", psg_stage(plain, form, strengths[structure])))
    through = plain.model_copy(update={"mode": "straight_through"})
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            stage = psg_stage(plain, "multi_target", strengths[str(bits)])
            key = f"{bits}-{granularity}"
            found.append(Training(f"psg-{key}", stage, bits, granularity))
            found.append(Training(f"straight-through-{key}", through, bits, granularity))
    return found


def goal_of(graph: Graph, bits: int, granularity: str) -> Goal:
    """The grids of one setting; activations stay real."""
    channels = {layer.name: layer.channels for layer in layers(graph)}
    policy = uniform_policy(channels, bits, 32, outer_bits=8 if bits <= 3 else None)
    quantizer = UniformQuantizer("mse", granularity)  # type: ignore[arg-type]
    return Goal(weight_bits(graph, policy), quantizer, {})


def trained_state(problem: Problem, training: Training, folder: Path) -> dict[str, Tensor]:
    """The state after ``training``; from the folder where it was finished before."""
    done = folder / f"{training.name}-{fingerprint(problem, training)}.safetensors"
    part = done.with_suffix(".part")
    if done.exists():
        return load_tensors(done)[0]
    stage, train = training.stage, problem.split.train
    total = stage.total_steps(len(train))
    goal = goal_of(problem.graph, training.bits, training.granularity) if training.bits else None
    inputs = StageInputs(
        graph=problem.graph,
        batches=training_batches(problem.dataset, train, stage.batch_size, problem.seed),
        steps_per_epoch=stage.steps_per_epoch(len(train)),
        goal=goal,
    )
    _, snapshot = load_snapshot(part) or (0, None)
    progress = ConsoleProgress()
    with progress.phase(f"training {training.name}"):
        state = run_stage(
            stage,
            inputs,
            problem.state,
            total_steps=total,
            resume=snapshot,
            on_epoch=lambda found: save_snapshot(part, 0, found),
            on_step=lambda step, loss: progress.training_step(training.name, step, total, loss),
        )
    save_tensors(done, state)
    part.unlink(missing_ok=True)
    return state


def fingerprint(problem: Problem, training: Training) -> str:
    """Changes with the weights that a training starts from and with how it goes."""
    digest = hashlib.sha256(f"{training} {problem.seed}".encode())
    for name, value in sorted(problem.state.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def chosen_strengths(problem: Problem, short: Stage, folder: Path) -> dict[str, float]:
    """For each aim the ``lambda_s`` that is best on validation images after a short training."""
    sample = validation_images(problem)
    settings = views(problem.graph)

    def score(aim: str, strength: float) -> float:
        bits = int(aim) if aim.isdigit() else None
        stage = psg_stage(short, FORMS.get(aim, "multi_target"), strength)
        training = Training(f"sweep-{aim}-{strength:g}", stage, bits)
        try:
            state = trained_state(problem, training, folder)
        except DivergedError:
            return 0.0
        found = [
            top1(float_logits(problem.graph, view(state), sample.images), sample.labels)
            for setting, view in settings.items()
            if setting == f"{aim}-channel" or setting.startswith(f"{aim}-0")
        ]
        mean = sum(found) / len(found)
        print(f"  {training.name}: {mean:.2f} % on validation images", flush=True)
        return mean

    return {
        aim: max(strengths, key=functools.partial(score, aim)) for aim, strengths in LAMBDAS.items()
    }


@torch.no_grad()
def quantized(graph: Graph, state: State, goal: Goal) -> dict[str, Tensor]:
    """``state`` with its weights on the grids of ``goal``, and nothing else changed."""
    scales = fit_scales(graph, state, goal.bits, goal.quantizer)
    return compressed_view(graph, state, goal.bits, scales, goal.quantizer)


def without_weights(graph: Graph, state: State, share: float) -> dict[str, Tensor]:
    """``state`` without the smallest weights of the whole network."""
    names = [layer.node.parameters["weight"] for layer in layers(graph)]
    sizes = torch.cat([state[name].abs().flatten() for name in names])
    threshold = sizes.kthvalue(max(1, round(share * len(sizes)))).values
    pruned = dict(state)
    for name in names:
        pruned[name] = state[name] * (state[name].abs() > threshold)
    return pruned


def without_channels(graph: Graph, state: State, share: float) -> dict[str, Tensor]:
    """``state`` without the weakest output channels (L1) of every layer but the outer two."""
    found = layers(graph)
    bits = {layer.name: torch.full((layer.channels,), 32) for layer in found}
    for layer in found[1:-1]:
        strength = state[layer.node.parameters["weight"]].abs().flatten(1).sum(1)
        weakest = strength.argsort(stable=True)[: round(share * layer.channels)]
        bits[layer.name][weakest] = 0
    return quantized(graph, state, Goal(bits, UniformQuantizer(), {}))


def views(graph: Graph) -> dict[str, View]:
    """Setting -> what it does to a state."""
    found: dict[str, View] = {"full precision": lambda state: state}
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            goal = goal_of(graph, bits, granularity)
            found[f"{bits}-{granularity}"] = functools.partial(quantized, graph, goal=goal)
    for structure, prune in (("weights", without_weights), ("channels", without_channels)):
        for share in SPARSITIES:
            found[f"{structure}-{share}"] = functools.partial(prune, graph, share=share)
    return found


def predictions(
    graph: Graph, start: State, trained: Mapping[str, State]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """``TRAINING/SETTING`` -> the network: each training at the settings that it was made for."""
    networks = {}
    for name, state in {"checkpoint": start, **trained}.items():
        for setting, view in views(graph).items():
            if _belongs(name, setting):
                networks[f"{name}/{setting}"] = float_network(graph, view(state))
    return networks


def _belongs(training: str, setting: str) -> bool:
    if training in ("checkpoint", "sgd") or setting == "full precision":
        return True
    aim = training.removeprefix("psg-").removeprefix("straight-through-")
    return setting == aim or setting.startswith(f"{aim}-0")


def table(answers: Mapping[str, float], strengths: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per setting, one column per training; ``... full`` is the same weights' own."""
    rows = []
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            key = f"{bits}-{granularity}"
            row = _row(answers, f"{bits} bit per {granularity}", key, f"psg-{key}")
            row["lambda_s"] = strengths[str(bits)]
            through = f"straight-through-{key}"
            row["straight_through"] = answers[f"{through}/{key}"]
            row["straight_through_full"] = answers[f"{through}/full precision"]
            rows.append(row)
    for structure in FORMS:
        for share in SPARSITIES:
            label = f"{share:.0%} of the {structure} pruned"
            row = _row(answers, label, f"{structure}-{share}", f"psg-{structure}")
            row["lambda_s"] = strengths[structure]
            rows.append(row)
    return rows


def _row(answers: Mapping[str, float], label: str, setting: str, psg: str) -> dict[str, Any]:
    return {
        "setting": label,
        "checkpoint": answers[f"checkpoint/{setting}"],
        "sgd": answers[f"sgd/{setting}"],
        "psg": answers[f"{psg}/{setting}"],
        "checkpoint_full": answers["checkpoint/full precision"],
        "sgd_full": answers["sgd/full precision"],
        "psg_full": answers[f"{psg}/full precision"],
    }


def bars(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What PSG has to show: no loss where plain SGD loses nothing, gains everywhere else."""
    by = {row["setting"]: row for row in rows}
    mild = [r for name, r in by.items() if name.startswith(("8 bit", "30%"))]
    hard = [r for name, r in by.items() if not name.startswith(("8 bit", "30%"))]
    own = by["4 bit per channel"]
    return {
        "points_over_sgd_at_8_bit_and_30_percent_at_least": at_least(
            min(row["psg"] - row["sgd"] for row in mild), -0.2
        ),
        "settings_below_8_bit_and_above_30_percent_where_sgd_is_not_beaten_at_most": at_most(
            sum(row["psg"] <= row["sgd"] for row in hard), 0
        ),
        "points_lost_at_4_bit_per_channel_against_own_full_precision_at_most": at_most(
            own["psg_full"] - own["psg"], 0.5
        ),
    }


def histograms(problem: Problem, trained: Mapping[str, State]) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights of one layer before and after PSG: on a grid of 3 bits, and sparse."""
    found = layers(problem.graph)
    name = found[len(found) // 2].node.parameters["weight"]
    return {
        f"{title}, {name}": (problem.state[name].flatten(), trained[training][name].flatten())
        for title, training in (
            ("PSG to 3 bit per tensor", "psg-3-tensor"),
            ("sparse PSG", "psg-weights"),
        )
    }


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
