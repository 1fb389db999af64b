"""What the methods of ``benchmarks/psg.py`` choose for themselves, on validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ajpq.evaluate import top1
from ajpq.finetune.recipe import PSGSettings, Stage
from ajpq.problem import Problem
from ajpq.results import float_network
from ajpq.selection.finalists import validation_images
from benchmarks.psg_trainings import Lab, Training, score_file, trained
from benchmarks.psg_views import BY_L1, FULL, SPARSITIES, views

FORMS = {"weights": "sparse", "channels": "sparse_channels"}
LAMBDAS: dict[str, tuple[float, ...]] = {
    "8": (150, 500, 1500),
    "4": (50, 150, 300, 500),
    "3": (150, 500, 1500),
    "2": (50, 150, 500),
    "weights": (15, 50, 150, 500),
    "channels": (300, 1000, 3000),
}
LEARNING_RATES = (0.003, 0.01, 0.03)
RATE = 0.01
# Weight decays: what every method has, and what sparse forms may have in a short training.
WEAK, STRONG = 1e-4, 0.1
# In long trainings the strong one is as much smaller, times these; plain SGD has all of them.
SHARES_OF_STRONG = {"weights": (1.0, 1.25, 1.5, 8.0, 16.0), "channels": (8.0, 16.0)}
SWEEP_STEPS = 176


def plain_stage(**length: int) -> Stage:
    """SGD, which the other methods change in one respect each."""
    return Stage.model_validate(
        {"mode": "float", "learning_rate": RATE, "weight_decay": WEAK, **length}
    )


def with_strength(plain: Stage, aim: str, lambda_s: float) -> Stage:
    """``plain`` with scaled gradients towards ``aim``: a width, or a structure of sparsity."""
    form = FORMS.get(aim, "multi_target")
    settings = PSGSettings.model_validate({"form": form, "lambda_s": lambda_s})
    return plain.model_copy(update={"mode": "psg", "psg": settings})


def with_rate(plain: Stage, mode: str, rate: float) -> Stage:
    """``plain`` in another mode at another learning rate."""
    return plain.model_copy(update={"mode": mode, "learning_rate": rate})


def with_decay(stage: Stage, decay: float) -> Stage:
    """``stage`` with another weight decay."""
    return stage.model_copy(update={"weight_decay": decay})


def sgd_training(sparse: Stage, rate: float, decay: float) -> Training:
    """What sparse forms of PSG are compared with."""
    return Training("sgd-sparse", with_decay(with_rate(sparse, "float", rate), decay))


def sparse_training(sparse: Stage, aim: str, lambda_s: float, decay: float) -> Training:
    """PSG towards a structure of sparsity."""
    return Training(f"psg-{aim}", with_decay(with_strength(sparse, aim, lambda_s), decay))


def settled(
    lab: Lab, sparse: Stage, chosen: Mapping[str, float], aim: str, strong: float
) -> dict[str, Training]:
    """Which long trainings are measured where ``aim`` is pruned.

    ``psg-AIM`` is of all decays the one that is ahead of plain SGD by most points on validation
    images at the sparsity where it is ahead by fewest. ``psg-AIM-SHARE`` and ``sgd-AIM-SHARE``
    have what is best for that sparsity alone.
    """
    every = sorted({factor for own in SHARES_OF_STRONG.values() for factor in own})
    plain = [
        sgd_training(sparse, chosen["sgd"], WEAK),
        *(sgd_training(sparse, RATE, factor * strong) for factor in every),
    ]
    scaled = [
        sparse_training(sparse, aim, chosen[f"psg-{aim}"], factor * strong)
        for factor in SHARES_OF_STRONG[aim]
    ]
    sgd = [by_sparsity(lab, training, aim) for training in plain]
    psg = [by_sparsity(lab, training, aim) for training in scaled]
    ahead = [min(own[share] - sgd[0][share] for share in SPARSITIES) for own in psg]
    found = {"sgd-sparse": plain[0], f"psg-{aim}": scaled[ahead.index(max(ahead))]}
    for share in SPARSITIES:
        for method, tried, points in (("sgd", plain, sgd), ("psg", scaled, psg)):
            own = [answers[share] for answers in points]
            found[f"{method}-{aim}-{share}"] = tried[own.index(max(own))]
    return found


def by_sparsity(lab: Lab, training: Training, aim: str) -> dict[float, float]:
    """Validation accuracy of a training at every sparsity, channels by the better criterion.

    Below all others where it diverged.
    """
    state = trained(lab, training)
    if state is None:
        return dict.fromkeys(SPARSITIES, -math.inf)
    graph = lab.problem.graph
    networks = {
        name: float_network(graph, view(state))
        for name, view in views(graph).items()
        if name.startswith(f"{aim}-0")
    }
    answers = on_validation(lab.problem, networks)
    found = {
        share: max(answers[name] for name in answers if name.startswith(f"{aim}-{share}"))
        for share in SPARSITIES
    }
    rate, decay = training.stage.learning_rate, training.stage.weight_decay
    print(f"  {training.name} at {rate:g}, decay {decay:.4g}, {aim}: {found}", flush=True)
    return found


def choices(lab: Lab, short: Stage) -> dict[str, float]:
    """For each method and aim what is best on validation images after a short training."""
    stages: dict[str, dict[float, Stage]] = {
        "sgd": {rate: with_rate(short, "float", rate) for rate in LEARNING_RATES}
    }
    for aim, strengths in LAMBDAS.items():
        stages[f"psg-{aim}"] = {s: with_strength(short, aim, s) for s in strengths}
    stages["straight-through-3"] = {
        rate: with_rate(short, "straight_through", rate) for rate in LEARNING_RATES
    }
    best = {}
    for method, by_value in stages.items():
        prunes = method in (f"psg-{aim}" for aim in FORMS)
        scores = {
            (value, decay): score(lab, method, value, with_decay(stage, decay))
            for value, stage in by_value.items()
            for decay in ((WEAK, STRONG) if prunes else (WEAK,))
        }
        best[method] = max(scores, key=scores.__getitem__)[0]
    return best


def score(lab: Lab, method: str, value: float, stage: Stage) -> float:
    """Mean validation accuracy of a short training over the settings that it is meant for."""
    aim = method.rpartition("-")[2]
    bits = int(aim) if aim.isdigit() else None
    training = Training(f"sweep-{method}-{value:g}", stage, bits)
    state, known = trained(lab, training), score_file(lab, training)
    if state is None:
        return -1.0
    if known.exists():
        return float(known.read_text())
    networks = {
        setting: float_network(lab.problem.graph, view(state))
        for setting, view in views(lab.problem.graph).items()
        if not setting.endswith(BY_L1)
        and (
            (method == "sgd" and setting != FULL)
            or setting == f"{aim}-channel"
            or setting.startswith(f"{aim}-0")
        )
    }
    answers = on_validation(lab.problem, networks)
    mean = sum(answers.values()) / len(answers)
    decay = stage.weight_decay
    print(f"  {method} {value:g}, decay {decay:g}: {mean:.2f} % on validation images", flush=True)
    known.write_text(f"{mean:.2f}\n")
    return round(mean, 2)


@torch.no_grad()
def on_validation(
    problem: Problem, networks: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, float]:
    """Top-1 of each network on the validation images."""
    sample = validation_images(problem)
    return {
        name: top1(torch.cat([network(part) for part in sample.images.split(500)]), sample.labels)
        for name, network in networks.items()
    }
