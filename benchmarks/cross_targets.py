"""What hardware-aware means: a policy found for each device, priced on all of them.

One search per target from the same network, each for the cheapest policy within the same drop of
accuracy; then every policy on every target. A search that knows its device should be the cheapest
of all on that device. A policy whose widths a device does not store is rounded up to those that it
does.

    make bench NAME=cross_targets
    python -m benchmarks.cross_targets --data imagefolder:DIR

Goes on where it was stopped. Leave the machine alone while it measures ``host-cpu``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import api, cli
from ajpq.base import build_problem
from ajpq.config.files import load_search_config
from ajpq.config.schema import SearchConfig
from ajpq.evaluate import exact_costs
from ajpq.policy import CompressionPolicy, load_policy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.progress import ConsoleProgress
from benchmarks.harness import at_least, command_line, write_result
from envs.build import reference_budget
from hw_models.base import Target

NAME = "cross_targets"
TARGETS = ("edge-npu", "host-cpu", "bitfusion", "bismo", "mpic", "ne16")
# Points of validation top-1; policies are judged without fine-tuning.
MAX_DROP = 3.0


def main(
    data: str = "cifar10",
    checkpoint: str = "zoo/base/resnet20.safetensors",
    episodes: int = 40,
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Search on every target, price on every target, write benchmarks/results/cross_targets.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a ResNet-20, trained without the validation images.
        episodes: candidates of each search.
        seed: of the searches.
        run_dir: where the runs are kept; default runs/cross_targets.
        quick: two targets and four candidates.
    """
    started = time.monotonic()
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    targets = TARGETS[:1] + TARGETS[-1:] if quick else TARGETS
    settings = {"data": data, "checkpoint": checkpoint, "seed": seed}
    configs = {
        target: settings_of(target, 4 if quick else episodes, settings) for target in targets
    }
    policies = {target: searched(config, folder / target) for target, config in configs.items()}
    problems = {target: build_problem(config) for target, config in configs.items()}
    rows = []
    for owner, (policy, result) in policies.items():
        costs = {
            target: relative_cost(configs[target], problems[target], policy) for target in targets
        }
        rows.append({"policy": owner, "top1_test": result["found"]["top1_test"], **costs})
    path = write_result(
        NAME,
        command=command_line(
            NAME, quick, data=data, checkpoint=checkpoint, episodes=episodes, seed=seed
        ),
        seed=seed,
        rows=rows,
        bars={f"{target}_lead_at_least": at_least(lead(rows, target), 0.0) for target in targets},
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def settings_of(target: str, episodes: int, settings: dict[str, Any]) -> SearchConfig:
    """The search of the CIFAR-10 experiment for the cheapest policy within a drop of accuracy."""
    return load_search_config(
        "cifar10-resnet20",
        {
            **settings,
            "target": target,
            "episodes": episodes,
            "max_drop": MAX_DROP,
            "latency_ratio": None,
            "size_ratio": None,
            "final": [{"keep": 1, "recipe": "psg-short"}],
        },
    )


def searched(config: SearchConfig, run_dir: Path) -> tuple[CompressionPolicy, dict[str, Any]]:
    """The policy and the result of a run, finished now or before."""
    resume = (run_dir / "config.yaml").exists()
    api.search(config, run_dir, resume=resume, progress=ConsoleProgress())
    result: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return load_policy(run_dir / "policy.json"), result


def relative_cost(config: SearchConfig, problem: Problem, policy: CompressionPolicy) -> float:
    """Mean of the latency and the size ratio: what a search with ``max_drop`` minimises."""
    legal = rounded_up(policy, problem.target)
    network = network_of(problem, legal, direct_weights(problem))
    ratios = reference_budget(config, problem).ratios(exact_costs(network, problem.target))
    return round((ratios["latency"] + ratios["size"]) / 2, 4)


def rounded_up(policy: CompressionPolicy, target: Target) -> CompressionPolicy:
    """The policy with the next width that the target has in place of each that it has not."""
    layers = {
        name: layer.model_copy(
            update={
                "weight_bits": tuple(
                    next_width(bits, target.weight_bits) for bits in layer.weight_bits
                ),
                "activation_bits": next_width(layer.activation_bits, target.activation_bits),
            }
        )
        for name, layer in policy.layers.items()
    }
    return policy.model_copy(update={"layers": layers})


def next_width(bits: int, offered: Sequence[int]) -> int:
    """The narrowest offered width of at least ``bits``, or the widest there is."""
    return min((width for width in offered if width >= bits), default=max(offered))


def lead(rows: Sequence[dict[str, Any]], target: str) -> float:
    """By how much the target's own policy is cheaper on it than the best of the others."""
    own = next(row[target] for row in rows if row["policy"] == target)
    return float(min(row[target] for row in rows if row["policy"] != target) - own)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
