"""What ``benchmarks/throughput.py`` times, and how."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from ajpq.base import build_problem
from ajpq.compressed import State, weight_bits
from ajpq.config.files import load_recipe
from ajpq.config.schema import ProblemConfig
from ajpq.data import Dataset
from ajpq.evaluate import Images
from ajpq.finetune.goal import Goal
from ajpq.finetune.precision import bfloat16_in_hardware
from ajpq.finetune.recipe import PSGSettings, Recipe, Stage
from ajpq.finetune.training import StageInputs, run_stage
from ajpq.models import build_model
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem, direct_weights, network_of, training_batches
from ajpq.quantizers import make_quantizer
from ajpq.reference import prepare
from ajpq.selection.finalists import validation_images
from ajpq.selection.judge import judge_against, shared_by_candidates
from ajpq.simulation.grids import edge_grids
from ajpq.simulation.ranking import prepare_ranking
from hw_models.network import macs

BATCHES = (32, 64, 128)
# Steps before anything is timed, and of a stage so long that it is compiled.
_WARM, LONG = 3, 4000
# Costs of time do not depend on what a network has learned: a single step is enough of a training.
ONE_STEP = Recipe(name="one-step", stages=(Stage(mode="float", steps=1),))


def row(what: str, network: str, value: float, unit: str) -> dict[str, Any]:
    """One figure."""
    return {"what": what, "network": network, "value": value, "unit": unit}


def noise() -> Dataset:
    """Random images, as many and as large as CIFAR's."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(len(images)) % 10
    middle = (0.5, 0.5, 0.5)
    classes = tuple(map(str, range(10)))
    return Dataset("noise", images, labels, images[:200], labels[:200], classes, middle, middle)


def problem_of(model: str) -> Problem:
    """An untrained network and no device."""
    return build_problem(
        ProblemConfig(
            target="size-only",
            model=model,
            data="benchmarks.throughput_parts:noise",
            criterion="l1",
            base=ONE_STEP,
        )
    )


def random_policy(
    problem: Problem, rng: np.random.Generator, live: float = 1.0
) -> CompressionPolicy:
    """Random widths for the first ``live`` of each layer's channels, 0 for the others."""
    last = list(problem.channels)[-1]
    layers = {}
    for name, count in problem.channels.items():
        bits = rng.integers(3, 9, count)
        if name != last:
            bits[round(live * count) :] = 0
        layers[name] = LayerPolicy(weight_bits=tuple(bits.tolist()), activation_bits=8)
    return CompressionPolicy(layers=layers, quantizer=problem.quantizer)


def best(turns: int, works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Fewest seconds of each of ``works``; they take turns, so that a slow moment hits all."""
    found = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()  # caches, compilation
    for _ in range(turns):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            found[name] = min(found[name], time.perf_counter() - started)
    return found


def forward(model: str, count: int, turns: int, seed: int) -> list[dict[str, Any]]:
    """Images per second: plain, inside a candidate, inside a smaller one, by the reference."""
    problem, rng = problem_of(model), np.random.default_rng(seed)
    direct = direct_weights(problem)
    images = validation_images(problem).images[:count]
    half, whole = (
        network_of(problem, random_policy(problem, rng, live), direct) for live in (0.5, 1.0)
    )
    plain = plain_passes(model, problem, images)
    works = {
        **plain,
        "candidate": lambda: prepare_ranking(whole)(images),
        "candidate, half of the channels": lambda: prepare_ranking(half)(images),
        "reference": lambda: prepare(whole)(images),
    }
    found = best(turns, works)
    fastest = min(plain, key=found.__getitem__)
    print(f"  plain: {fastest}")
    names = {"plain": fastest, **{name: name for name in works if name not in plain}}
    return [row(name, model, count / found[key], "images/s") for name, key in names.items()]


def module_of(model: str, problem: Problem) -> nn.Module:
    """The uncompressed network as PyTorch knows it."""
    module = build_model(model, in_channels=3, classes=10, image_size=32)
    module.load_state_dict(problem.state)
    return module.eval().to(memory_format=torch.channels_last)


def plain_passes(model: str, problem: Problem, images: Tensor) -> dict[str, Callable[[], object]]:
    """All ways to run the uncompressed network that may be the fastest."""
    forms: dict[str, Callable[[Tensor], Tensor]] = {"eager": fuse(module_of(model, problem))}
    if shutil.which("g++") or shutil.which("clang++"):
        forms["compiled"] = torch.compile(forms["eager"], dynamic=False)
    types = [torch.float32]
    if bfloat16_in_hardware():
        types.append(torch.bfloat16)

    def passed(form: Callable[[Tensor], Tensor], batch: int, dtype: torch.dtype) -> None:
        enabled = dtype is torch.bfloat16
        with torch.inference_mode(), torch.autocast("cpu", dtype=dtype, enabled=enabled):
            for part in images.to(memory_format=torch.channels_last).split(batch):
                form(part)

    return {
        f"{name}, {dtype}, batches of {batch}": functools.partial(passed, form, batch, dtype)
        for name, form in forms.items()
        for batch in BATCHES
        for dtype in types
    }


def cut(sample: Images, count: int) -> Images:
    """The first ``count`` images."""
    logits = sample.float_logits
    return Images(
        sample.images[:count], sample.labels[:count], None if logits is None else logits[:count]
    )


class Enough(Exception):  # noqa: N818  not an error
    """Ends a stage that has been timed."""


def training(model: str, steps: int, turns: int) -> list[dict[str, Any]]:
    """Training images per second: float32 eager, as stages do it, and with PSG.

    Epochs are ``steps`` long, so that those that are timed see one begin: PSG fits grids there,
    nine times as often as on all images of CIFAR-10.
    """
    problem = problem_of(model)
    plain = Stage(mode="float", steps=steps, learning_rate=0.01)
    psg = plain.model_copy(update={"mode": "psg", "psg": PSGSettings()})
    policy = problem.uniform(4)
    inputs = StageInputs(
        graph=problem.graph,
        batches=training_batches(
            problem.dataset,
            problem.split.train[: steps * plain.batch_size],
            plain.batch_size,
            problem.seed,
        ),
        steps_per_epoch=steps,
        goal=Goal(
            bits=weight_bits(problem.graph, policy),
            quantizer=make_quantizer(policy.quantizer),
            grids=edge_grids(problem.graph, policy, problem.ranges),
        ),
    )

    def timed(stage: Stage, total_steps: int) -> float:
        return seconds_of_steps(stage, inputs, problem.state, steps, total_steps)

    works = {
        "training step, eager": lambda: eager_training(model, problem, plain, _WARM + steps),
        "training step, short stage": lambda: timed(plain, _WARM + steps),
        "training step": lambda: timed(plain, LONG),
        "PSG step": lambda: timed(psg, LONG),
    }
    found = [{name: work() for name, work in works.items()} for _ in range(turns)]
    images = steps * plain.batch_size
    return [
        row(name, model, images / min(turn[name] for turn in found), "images/s") for name in works
    ]


def seconds_of_steps(
    stage: Stage, inputs: StageInputs, state: State, steps: int, total_steps: int
) -> float:
    """Seconds of ``steps`` steps of a stage that has so many in all, once they are compiled."""
    ends: list[float] = []

    def on_state(step: int, state: Callable[[], dict[str, Tensor]]) -> None:
        ends.append(time.perf_counter())
        if step == _WARM + steps:
            raise Enough

    with contextlib.suppress(Enough):
        run_stage(stage, inputs, state, total_steps=total_steps, on_state=on_state)
    return ends[-1] - ends[_WARM - 1]


def eager_training(model: str, problem: Problem, stage: Stage, steps: int) -> float:
    """The same steps as anyone would write them down; seconds of those behind the first."""
    module = build_model(model, in_channels=3, classes=10, image_size=32).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=stage.learning_rate, momentum=0.9)
    batches = training_batches(
        problem.dataset, problem.split.train, stage.batch_size, problem.seed
    )(0)
    ends: list[float] = []
    for images, labels in itertools.islice(batches, steps):
        loss = F.cross_entropy(module(images.contiguous()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return ends[-1] - ends[_WARM - 1]


def growth(models: Sequence[str], turns: int, seed: int) -> list[dict[str, Any]]:
    """Seconds per candidate and thousand million multiply-accumulates of an image."""
    recipe = load_recipe("direct")
    works: dict[str, Callable[[], object]] = {}
    amounts = {}
    for model in models:
        problem = problem_of(model)
        policy = random_policy(problem, np.random.default_rng(seed))
        shared = shared_by_candidates(problem, recipe, most_bytes=0)  # the policy comes again
        works[model] = functools.partial(judge_against, problem, recipe, policy, None, shared)
        amounts[model] = macs(network_of(problem, policy, direct_weights(problem))) / 1e9
    return [
        row("candidate per GMAC", model, seconds / amounts[model], "s")
        for model, seconds in best(turns, works).items()
    ]


def memory(count: int, seed: int) -> list[dict[str, Any]]:
    """By how much the peak of resident memory grows after the first tenth of the candidates."""
    problem, rng = problem_of("resnet8"), np.random.default_rng(seed)
    problem = dataclasses.replace(problem, search_sample=cut(problem.search_sample, 50))
    recipe, peaks = load_recipe("direct"), []
    shared = shared_by_candidates(problem, recipe)
    for _ in range(count):
        policy = random_policy(problem, rng, rng.uniform(0.3, 1.0))
        judge_against(problem, recipe, policy, None, shared)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    grown = 100 * (peaks[-1] / peaks[count // 10] - 1)
    return [row("memory growth", "resnet8", grown, f"% over {count} candidates")]
