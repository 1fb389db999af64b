"""The five networks whose exported files are checked, and what is done to them.

Two of ``zoo/base`` (CIFAR-10's 32 x 32 pixels), two of torchvision on images resized to 64 x 64,
and one as a user might write it. No published weights are needed: what the zoo does not hold is
trained from nothing, briefly. Then a quarter of the channels goes wherever channels can go, the
others get 4, 6 or 8 bits by their importance, and one epoch repairs it. What counts here is that
files answer as the reference does, not how accurate a network is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors
from ajpq.compressed import CompressedWeights
from ajpq.config.files import load_recipe
from ajpq.config.schema import ProblemConfig
from ajpq.data import Dataset, load_data
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.finetune.tuning import fine_tune
from ajpq.graph.channels import channel_groups, coupled_layers
from ajpq.graph.structure import layers
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem
from ajpq.progress import ConsoleProgress
from ajpq.runs.folder import load_weights, save_weights

WIDTHS = (4, 6, 8)
RECIPE = "straight-through-1"
LARGE_IMAGES = 64


@dataclass(frozen=True)
class Subject:
    """A network by its model; without a checkpoint it is trained for so many epochs."""

    model: str
    checkpoint: Path | None = None
    image_size: int | None = None
    epochs: int = 12


SUBJECTS: Mapping[str, Subject] = {
    **{
        name: Subject(name, Path(f"zoo/base/{name}.safetensors"))
        for name in ("resnet20", "mobilenet_v2_x0_5")
    },
    "resnet18": Subject("resnet18", image_size=LARGE_IMAGES, epochs=4),
    "mobilenet_v3_small": Subject("mobilenet_v3_small", image_size=LARGE_IMAGES),
    "own network": Subject("benchmarks.own_network:network"),
}


def resized_cifar10(image_size: int = LARGE_IMAGES) -> Dataset:
    """CIFAR-10 at another size, for networks that are made for larger images."""

    def larger(images: np.ndarray) -> np.ndarray:
        parts = [
            F.interpolate(part, (image_size, image_size), mode="bilinear", antialias=True)
            for part in torch.from_numpy(np.array(images)).split(1000)
        ]
        return torch.cat(parts).numpy()

    small = load_data("cifar10")
    return replace(
        small,
        name=f"{small.name} at {image_size}",
        train_images=larger(small.train_images),
        test_images=larger(small.test_images),
        augmentation=replace(small.augmentation, padding=image_size // 8),
    )


def brief(epochs: int) -> Recipe:
    """A short training from nothing."""
    stage = Stage(
        mode="float", epochs=epochs, learning_rate=0.05, warmup_steps=100, weight_decay=5e-4
    )
    return Recipe(name="brief", stages=(stage,))


def problem_of(subject: Subject, data: str, target: str, seed: int) -> Problem:
    """The trained network on its data."""
    resized = subject.image_size is not None and not data.startswith("imagefolder:")
    settings: dict[str, Any] = {
        "model": subject.model,
        "target": target,
        "data": f"{__name__}:resized_cifar10" if resized else data,
        "image_size": subject.image_size,
        "base": brief(subject.epochs),
        "seed": seed,
    }
    if subject.checkpoint is not None:
        about = load_tensors(subject.checkpoint)[1]
        settings |= {"checkpoint": str(subject.checkpoint), "seed": int(about["seed"])}
    progress = ConsoleProgress()
    with progress.phase(f"loading {subject.model}"):
        return build_problem(ProblemConfig.model_validate(settings), progress.base_step)


def compressed(problem: Problem, folder: Path) -> tuple[CompressionPolicy, CompressedWeights]:
    """The policy of :func:`mixed`, and weights trained for it, kept in ``folder``.

    Under a name that changes with the policy and with the weights that training starts from.
    """
    policy = mixed(problem)
    digest = hashlib.sha256(f"{policy.hash} {RECIPE} {problem.seed}".encode())
    for name, value in sorted(problem.state.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    file = folder / f"{problem.graph.name}-{digest.hexdigest()[:12]}.safetensors"
    if not file.exists():
        progress = ConsoleProgress()
        with progress.phase(f"fine-tuning {problem.graph.name}"):
            weights = fine_tune(problem, policy, load_recipe(RECIPE), progress.watch("fine-tuning"))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(file, weights)
    return policy, load_weights(file)


def mixed(problem: Problem) -> CompressionPolicy:
    """Without the least important quarter of the channels, wherever they can go; others by rank.

    Channels that live and die together, such as those of a residual stream, go together.
    """
    ranks = {name: _ranks(own) for name, own in problem.scores.items()}
    groups = channel_groups(problem.graph)
    own = {layer.name: groups[layer.node.output] for layer in layers(problem.graph)}
    coupled = [set(names) for names in coupled_layers(problem.graph)]
    single = [{name} for name in own if not any(name in names for names in coupled)]
    gone: set[int] = set()
    for names in (*coupled, *single):
        gone |= _weakest(
            np.concatenate([own[n] for n in names]), np.concatenate([ranks[n] for n in names])
        )
    found = {
        name: LayerPolicy(weight_bits=tuple(_widths(ranks[name], np.isin(numbers, list(gone)))))
        for name, numbers in own.items()
    }
    return CompressionPolicy(layers=found, quantizer=problem.quantizer)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """``[C]`` from 0, the least important, to 1."""
    return scores.argsort(kind="stable").argsort(kind="stable") / max(len(scores) - 1, 1)


def _weakest(groups: np.ndarray, ranks: np.ndarray) -> set[int]:
    """The quarter of the groups whose channels have the lowest ranks on average."""
    known = np.unique(groups[groups >= 0])
    means = [ranks[groups == group].mean() for group in known]
    return set(known[np.argsort(means, kind="stable")[: len(known) // 4]].tolist())


def _widths(ranks: np.ndarray, gone: np.ndarray) -> list[int]:
    thirds = np.minimum((ranks * len(WIDTHS)).astype(int), len(WIDTHS) - 1)
    return np.where(gone, 0, np.array(WIDTHS)[thirds]).tolist()
