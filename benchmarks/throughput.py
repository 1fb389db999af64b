"""How fast candidates are judged and networks trained, side by side on one machine.

Forward: images per second inside a candidate (weights and activations quantized), and of the exact
reference, against the fastest plain forward pass of the uncompressed network that PyTorch offers
here: BatchNorm folded, eager or compiled, the best of several batch sizes. Candidates: seconds for
each against the straightforward way (:mod:`benchmarks.straightforward`). Episodes: seconds of one
of the shipped search, with one agent alone and with the default, and how many of them are not spent
in evaluation; the bar is for one agent alone. Training: a step against float32 eager, and PSG
against plain SGD, of stages so long that they are compiled. Growth: seconds per candidate against
depth, memory over many candidates.

Images are noise and weights untrained where neither changes how long arithmetic takes; candidates
are those of the network in zoo/base, on its validation images.

    make bench NAME=throughput
    python -m benchmarks.throughput --data imagefolder:DIR

Leave the machine alone meanwhile; started again, it goes on behind the last finished part. Forward
passes, training and growth are the best of several turns, candidates the mean of ten (as searched:
of all); what is compared takes its turn after the other. How often a candidate is given up that
belongs in the finals is counted over many orders of candidates and images.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from benchmarks.harness import Part, at_least, at_most, command_line, done_once, write_result
from benchmarks.throughput_candidates import candidates
from benchmarks.throughput_episodes import episodes
from benchmarks.throughput_parts import forward, growth, memory, training
from benchmarks.throughput_tuned import STEPS, tuned

NAME = "throughput"
WIDE = ("resnet20", "resnet56")
DEPTHS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
PROPOSALS = 120
TUNED = 40
EPISODES = (30, 120)
CANDIDATES = 2000
# Steps, and those of an epoch, which has nine times as many.
TRAINED = 40


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    seed: int = 0,
    turns: int = 5,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Time everything, write benchmarks/results/throughput.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base, for what depends on what a network has learned.
        seed: of the policies.
        turns: how often everything is timed; the best counts.
        run_dir: finished parts, from which an interrupted run goes on; default runs/throughput.
        quick: ResNet-20 only, one turn, few images and candidates.
    """
    parts = (
        quick_parts(checkpoint, data, seed) if quick else all_parts(checkpoint, data, seed, turns)
    )
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    settings = {"data": data, "checkpoint": str(checkpoint), "seed": seed, "turns": turns}
    done = [
        done_once(folder / f"{name}.json", settings, name, work) for name, work in parts.items()
    ]
    rows = [row for part in done for row in part["rows"]]
    path = write_result(
        NAME,
        command=command_line(
            NAME, quick, data=data, checkpoint=str(checkpoint), seed=seed, turns=turns
        ),
        seed=seed,
        rows=rows,
        bars=bars({(row["what"], row["network"]): row["value"] for row in rows}),
        seconds=sum(part["seconds"] for part in done),
        quick=quick,
    )
    print(path)


def all_parts(checkpoint: Path, data: str, seed: int, turns: int) -> dict[str, Part]:
    """Every part by name; what a bar compares is within one of them."""
    partial = functools.partial
    images = 1920  # a multiple of every batch size
    return {
        **{f"forward passes of {m}": partial(forward, m, images, turns, seed) for m in WIDE},
        "training steps": partial(training, "resnet20", TRAINED, turns),
        "seconds per candidate": partial(candidates, checkpoint, data, PROPOSALS, seed),
        "episodes of a search": partial(episodes, checkpoint, data, *EPISODES),
        "growth with depth": partial(growth, DEPTHS, turns, seed),
        "memory over many candidates": partial(memory, CANDIDATES, seed),
        "candidates given up while training": partial(tuned, checkpoint, data, TUNED, seed, STEPS),
    }


def quick_parts(checkpoint: Path, data: str, seed: int) -> dict[str, Part]:
    """The same with few images, candidates and turns, for ResNet-20 only."""
    partial = functools.partial
    return {
        "forward passes": partial(forward, WIDE[0], 256, 1, seed),
        "training steps": partial(training, "resnet20", 2, 1),
        "seconds per candidate": partial(candidates, checkpoint, data, 5, seed),
        "episodes of a search": partial(episodes, checkpoint, data, 5, 5),
        "growth with depth": partial(growth, DEPTHS[:2], 1, seed),
        "memory over many candidates": partial(memory, 20, seed),
        "candidates given up while training": partial(tuned, checkpoint, data, 5, seed, 60),
    }


def bars(found: Mapping[tuple[str, str], float]) -> dict[str, dict[str, Any]]:
    """What has been promised, as ratios of figures of this very run."""
    result = {}
    for model in WIDE:
        if ("plain", model) not in found:
            continue
        plain = found["plain", model]
        result[f"{model}_candidate_images_over_plain_at_least"] = at_least(
            found["candidate", model] / plain, 0.8
        )
        result[f"{model}_half_of_the_channels_over_plain_at_least"] = at_least(
            found["candidate, half of the channels", model] / plain, 1.0
        )
        result[f"{model}_plain_over_reference_at_most"] = at_most(
            plain / found["reference", model], 5.0
        )
    slow = found["straightforward candidate", "resnet20"]
    result |= {
        "candidate_on_the_same_images_times_faster_at_least": at_least(
            slow / found["candidate on all validation images", "resnet20"], 4.0
        ),
        "candidate_as_searched_times_faster_at_least": at_least(
            slow / found["candidate as searched", "resnet20"], 12.0
        ),
        "finalists_given_up_percent_at_most": at_most(found["finalists given up", "resnet20"], 2.0),
        "finalists_given_up_with_divergence_percent_at_most": at_most(
            found["finalists given up, divergence counted", "resnet20"], 2.0
        ),
        "finalists_given_up_near_chance_percent_at_most": at_most(
            found["finalists given up, near chance", "resnet20"], 2.0
        ),
        "tuned_finalists_given_up_percent_at_most": at_most(
            found["tuned finalists given up", "resnet20"], 2.0
        ),
        "agent_overhead_percent_at_most": at_most(
            100 * found["episode outside evaluation", "resnet20"] / found["episode", "resnet20"],
            10.0,
        ),
        "training_over_float32_eager_at_least": at_least(
            found["training step", "resnet20"] / found["training step, eager", "resnet20"], 2.5
        ),
        "psg_over_plain_sgd_at_least": at_least(
            found["PSG step", "resnet20"] / found["training step", "resnet20"], 0.95
        ),
    }
    per_mac = [value for (what, _), value in found.items() if what == "candidate per GMAC"]
    result["seconds_per_mac_spread_percent_at_most"] = at_most(
        100 * (max(per_mac) / min(per_mac) - 1), 20.0
    )
    result["memory_growth_percent_at_most"] = at_most(found["memory growth", "resnet8"], 5.0)
    return result


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
