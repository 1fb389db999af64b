"""How fast candidates are judged and networks trained, side by side on one machine.

Forward: images per second inside a candidate (weights and activations quantized), and of the exact
reference, against the fastest plain forward pass of the uncompressed network that PyTorch offers
here: BatchNorm folded, eager or compiled, the best of several batch sizes. Candidates: seconds for
each against the straightforward way (:mod:`benchmarks.straightforward`). Episodes: seconds of one
of the shipped search, and how many of them are not spent in evaluation. Training: a step against
float32 eager, and PSG against plain SGD. Growth: seconds per candidate against depth, memory over
many candidates.

Images are noise and weights untrained where neither changes how long arithmetic takes; candidates
are those of the network in zoo/base, on its validation images.

    make bench NAME=throughput
    python -m benchmarks.throughput --data imagefolder:DIR

Leave the machine alone meanwhile. Forward passes, training and growth are the best of several
turns, candidates the mean of ten (as searched: of all); what is compared takes its turn after the
other. How often a candidate is given up that belongs in the finals is counted over many orders of
candidates and images; of those that are trained first too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from ajpq.progress import ConsoleProgress
from benchmarks.harness import at_least, at_most, command_line, write_result
from benchmarks.throughput_candidates import candidates
from benchmarks.throughput_episodes import episodes
from benchmarks.throughput_parts import forward, growth, memory, training
from benchmarks.throughput_tuned import STEPS, tuned

NAME = "throughput"
WIDE = ("resnet20", "resnet56")
DEPTHS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
PROPOSALS = 120
TUNED = 40
EPISODES = 30
CANDIDATES = 2000


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    seed: int = 0,
    turns: int = 5,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Time everything, write benchmarks/results/throughput.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base, for what depends on what a network has learned.
        seed: of the policies.
        turns: how often everything is timed; the best counts.
        quick: ResNet-20 only, one turn, few images and candidates.
    """
    started = time.monotonic()
    progress = ConsoleProgress()
    turns, images = (1, 256) if quick else (turns, 1920)  # multiples of every batch size
    rows: list[dict[str, Any]] = []
    for model in WIDE[: 1 if quick else 2]:
        with progress.phase(f"forward passes of {model}"):
            rows += forward(model, images, turns, seed)
    with progress.phase("seconds per candidate"):
        rows += candidates(checkpoint, data, 5 if quick else PROPOSALS, seed)
    with progress.phase("candidates given up in the midst of their training"):
        rows += tuned(checkpoint, data, 5 if quick else TUNED, seed, 60 if quick else STEPS)
    with progress.phase("episodes of a search"):
        rows += episodes(checkpoint, data, 5 if quick else EPISODES)
    with progress.phase("training steps"):
        rows += training("resnet20", 2 if quick else 10, turns)
    with progress.phase("growth with depth"):
        rows += growth(DEPTHS[: 2 if quick else 5], turns, seed)
    with progress.phase("memory over many candidates"):
        rows += memory(20 if quick else CANDIDATES, seed)
    path = write_result(
        NAME,
        command=command_line(
            NAME, quick, data=data, checkpoint=str(checkpoint), seed=seed, turns=turns
        ),
        seed=seed,
        rows=rows,
        bars=bars({(row["what"], row["network"]): row["value"] for row in rows}),
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


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
