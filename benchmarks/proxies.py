"""Is the reward true? What candidates are ranked by, against the accuracy after full fine-tuning.

Random policies across the budget range: offsets of random size from the prior, projected onto a
random budget. Each is judged as a search would judge it, after 0, 4, 20 and 100 PSG steps, on the
search's own sample of validation images; then fine-tuned in full and measured on all of them.
Spearman's rank correlation says how well each proxy orders the policies: over all of them, and as
the mean over the thirds that are alike in size, where a search has to tell them apart.

    make bench NAME=proxies
    python -m benchmarks.proxies --data imagefolder:DIR

Hours on two cores; started again, it goes on where it was stopped. Test images are not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from scipy.stats import spearmanr

from ajpq import cli
from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors
from ajpq.config.files import load_recipe, load_search_config
from ajpq.evaluate import top1
from ajpq.files import write_atomically
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.tuning import fine_tune
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, network_of
from ajpq.progress import ConsoleProgress
from ajpq.reference import simulate
from ajpq.selection.finalists import validation_images
from ajpq.selection.judge import judge
from benchmarks.harness import at_least, command_line, write_result
from envs.build import build_task
from envs.task import CompressionTask
from hw_models.errors import AjpqError, BudgetError

NAME = "proxies"
STEPS = (0, 4, 20, 100)
USED = "top1, 0 PSG steps"  # what the shipped configs rank by: the recipe `direct`
KL_WEIGHT = 0.1  # of the reward that is compared with top-1 and KL alone
LATENCY_RATIOS, SIZE_RATIOS = (0.45, 1.0), (0.045, 0.2)
# A cheaper proxy is preferred as long as it orders the policies almost as well as the best.
AS_GOOD = 0.01


def main(
    data: str = "cifar10",
    checkpoint: str = "zoo/base/resnet8.safetensors",
    recipe: str = "full-3",
    policies: int = 60,
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Judge and fine-tune random policies, write benchmarks/results/proxies.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base, trained without the validation images.
        recipe: the fine-tuning that counts as full.
        policies: how many.
        seed: of the policies.
        run_dir: where finished policies are kept; default runs/proxies.
        quick: four policies and hardly any fine-tuning: does it run at all?
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    about = load_tensors(checkpoint)[1]
    if "seed" not in about:
        raise AjpqError(f"{checkpoint} does not say which images it was trained on")
    settings = {
        "data": data,
        "model": about["model"],
        "checkpoint": checkpoint,
        "kl_weight": KL_WEIGHT,
    }
    config = load_search_config("cifar10-resnet20", {**settings, "seed": int(about["seed"])})
    progress = ConsoleProgress()
    with progress.phase("loading network, data and target"):
        problem = build_problem(config)
        task = build_task(
            config, problem, lambda policy, budget: judge(problem, config.candidate, policy)
        )
    full = load_recipe("psg-short" if quick else recipe)
    entries = [
        entry(problem, task, full, seed, index, folder) for index in range(4 if quick else policies)
    ]
    rows = table(entries)
    chosen = next(row for row in rows if row["chosen"])
    used = next(row for row in rows if row["proxy"] == USED)
    path = write_result(
        NAME,
        command=command_line(
            NAME,
            quick,
            data=data,
            checkpoint=checkpoint,
            recipe=recipe,
            policies=policies,
            seed=seed,
        ),
        seed=seed,
        rows=rows,
        bars={
            "spearman_of_the_chosen_at_least": at_least(chosen["spearman"], 0.85),
            "spearman_of_what_searches_rank_by_at_least": at_least(used["spearman"], 0.85),
        },
        seconds=sum(found["all_seconds"] for found in entries),
        quick=quick,
    )
    print(path)


def random_policy(task: CompressionTask, seed: int, index: int) -> CompressionPolicy:
    """A policy of a random budget that can be met and a random distance from the prior."""
    rng = np.random.default_rng((seed, index))
    while True:
        budget = dataclasses.replace(
            task.budget,
            bounds={
                "latency": float(rng.uniform(*LATENCY_RATIOS)),
                "size": float(np.exp(rng.uniform(*np.log(SIZE_RATIOS)))),
            },
        )
        offsets = rng.uniform() * rng.uniform(-1, 1, task.prior.shape)
        actions = np.stack([task.settings(i, offsets[i]) for i in range(len(task.layers))])
        with contextlib.suppress(BudgetError):
            return task.policy(dataclasses.replace(task, budget=budget).projected(actions))


def entry(
    problem: Problem,
    task: CompressionTask,
    full: Recipe,
    seed: int,
    index: int,
    folder: Path,
) -> dict[str, Any]:
    """Everything that is measured of one policy; from the folder where it was measured before."""
    policy = random_policy(task, seed, index)
    path = folder / f"{policy.hash}-{fingerprint(problem, full)}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    started = time.monotonic()
    found = {"packed_bytes": task.price(policy).packed_bytes}
    for steps in STEPS:
        before = time.monotonic()
        metrics = judge(problem, short_recipe(steps), policy)
        seconds = time.monotonic() - before
        found[str(steps)] = {"top1": metrics.top1_val, "kl": metrics.kl, "seconds": seconds}
        found[str(steps)]["reward"] = task.score(metrics)
    found["full"] = full_accuracy(problem, policy, full)
    found["all_seconds"] = time.monotonic() - started
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(found).encode())
    print(f"  {index + 1}: {found['20']['top1']:.2f} -> {found['full']:.2f} %", flush=True)
    return found


def fingerprint(problem: Problem, full: Recipe) -> str:
    """Changes with the network, its data and everything that is done to it."""
    recipes = [short_recipe(steps).model_dump_json() for steps in STEPS]
    digest = hashlib.sha256(repr((recipes, full.model_dump_json(), problem.seed)).encode())
    for name, value in sorted(problem.state.items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:8]


def short_recipe(steps: int) -> Recipe:
    """What candidates get, at another length."""
    recipe = load_recipe("psg-short")
    stages = tuple(stage.model_copy(update={"steps": steps}) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages if steps else ()})


def full_accuracy(problem: Problem, policy: CompressionPolicy, full: Recipe) -> float:
    """Top-1 on all validation images after the full recipe."""
    network = network_of(problem, policy, fine_tune(problem, policy, full))
    sample = validation_images(problem)
    return top1(simulate(network, sample.images), sample.labels)


def table(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per proxy."""
    truth = np.array([found["full"] for found in entries])
    sizes = np.array([found["packed_bytes"] for found in entries])
    thirds = np.array_split(np.argsort(sizes, kind="stable"), 3)
    rows: list[dict[str, Any]] = []
    for steps in STEPS:
        for what, sign in (("reward", 1), ("top1", 1), ("kl", -1)):
            values = sign * np.array([found[str(steps)][what] for found in entries])
            within = [correlation(values[part], truth[part]) for part in thirds]
            rows.append(
                {
                    "proxy": f"{what}, {steps} PSG steps",
                    "spearman": correlation(values, truth),
                    "spearman_within_thirds_of_size": float(np.mean(within)),
                    "seconds_per_candidate": float(
                        np.mean([found[str(steps)]["seconds"] for found in entries])
                    ),
                }
            )
    best = max(row["spearman"] for row in rows)
    good = [row for row in rows if row["spearman"] >= best - AS_GOOD]
    chosen = min(good, key=lambda row: row["seconds_per_candidate"])
    return [{**row, "chosen": row is chosen} for row in rows]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(one, other).statistic)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
