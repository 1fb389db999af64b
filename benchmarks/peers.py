"""What other tools reach on the public ResNet-20 and CIFAR-10, and what a search reaches there.

Sony's MCT 2.6.1 chooses a width per layer by an integer program and trains nothing; its table of
files of 103, 87 and 70 kB is the bar without training. Torch-Pruning to half of the MACs, 300 steps
of fine-tuning, then MCT is the bar with it. Their figures were measured before, on the same
checkpoint and test images; this command does not repeat them. Their bytes are codes and scales,
ours are the packed file. Our CPU seconds are those of the whole run, loading and measuring on test
images included.

    make bench NAME=peers
    python -m benchmarks.peers --data imagefolder:DIR --checkpoint resnet20-12fca82f.th
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import api, cli
from ajpq.config.files import load_search_config
from ajpq.progress import ConsoleProgress
from benchmarks.harness import at_least, at_most, command_line, write_result

NAME = "peers"
FLOAT32_BYTES = 1_084_392
# MACs of the public ResNet-20 times 8 bits of weights times 8 of activations.
INT8_GBOPS = 40.81 * 64 / 1000
# Cycles of this BISMO are the bit operations of a layer, each width of its kernels by itself.
BOPS_TARGET = "bismo,rows_per_tile=1,columns_per_tile=1,depth_per_tile=1"
CPU_SECONDS = 150.0


@dataclass(frozen=True)
class Rival:
    """What another tool reached, and the bar that follows from it.

    Attributes:
        tool, top1_test, packed_bytes, gbops, cpu_seconds: as measured before, one seed.
        most_bytes, most_gbops, least_top1: what we have to keep to and to reach.
        steps: of training with 128 images, at most.
    """

    tool: str
    top1_test: float
    packed_bytes: int
    gbops: float
    cpu_seconds: float
    most_bytes: int
    least_top1: float
    most_gbops: float | None = None
    steps: int = 0


RIVALS = (
    Rival("MCT, average 3 bits", 87.66, 103_372, 1.107, 27.5, 103_000, 90.5),
    Rival("MCT, average 2.5 bits", 77.82, 86_642, 0.978, 27.5, 87_000, 89.0),
    Rival("MCT, average 2 bits", 10.42, 69_876, 0.649, 18.0, 69_000, 85.0),
    Rival(
        "pruning, then MCT", 85.0, 69_312, 0.736, 100.0, 69_000, 90.0, most_gbops=0.74, steps=300
    ),
)


def main(
    data: str = "cifar10",
    checkpoint: str = "public",
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Search once for each rival, write benchmarks/results/peers.json.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: public, or the file that torch.hub would download.
        seed: of the images that are looked at, and of the search.
        run_dir: one run folder for each rival; default runs/peers.
        quick: the first rival only, few candidates: does it run at all?
    """
    folder = run_dir or Path("runs") / f"{NAME}{'-quick' if quick else ''}"
    started, rows, bars = time.monotonic(), list[dict[str, Any]](), dict[str, Any]()
    for rival in RIVALS[: 1 if quick else None]:
        before = cpu_seconds()
        settings = {"data": data, "checkpoint": checkpoint, "seed": seed}
        config = load_search_config("untrained", settings | settings_for(rival, quick))
        own = folder / rival.tool.replace(", ", "-").replace(" ", "-")
        found = api.search(config, own, progress=ConsoleProgress())["found"]
        rows += [row_of(rival), row(rival, found, cpu_seconds() - before)]
        bars |= bars_of(rival, rows[-1])
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, checkpoint=checkpoint, seed=seed),
        seed=seed,
        rows=rows,
        bars=bars,
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(own.ru_utime + own.ru_stime for own in used)


def settings_for(rival: Rival, quick: bool) -> dict[str, Any]:
    """What differs from ``configs/experiments/untrained.yaml``."""
    found: dict[str, Any] = {"size_ratio": rival.most_bytes / FLOAT32_BYTES}
    if rival.most_gbops is not None:
        found |= {"target": BOPS_TARGET, "latency_ratio": rival.most_gbops / INT8_GBOPS}
    if rival.steps:
        found["final"] = [{"keep": 1, "recipe": "straight-through-300"}]
    if quick:
        found["episodes"] = 6
    return found


def row_of(rival: Rival) -> dict[str, Any]:
    """The rival's line of the table."""
    return {
        "tool": rival.tool,
        "top1_test": rival.top1_test,
        "bytes": rival.packed_bytes,
        "gbops": rival.gbops,
        "training_steps": rival.steps,
        "cpu_seconds": rival.cpu_seconds,
    }


def row(rival: Rival, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Our line below it."""
    return {
        "tool": "ajpq",
        "top1_test": found["top1_test"],
        "bytes": found["packed_bytes"],
        "gbops": round(found["bops"]["all"] / 1e9, 4),
        "training_steps": rival.steps,
        "cpu_seconds": round(seconds, 1),
    }


def bars_of(rival: Rival, ours: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Accuracy, bytes, and either the operations or the time."""
    kilobytes = f"{rival.most_bytes // 1000}_kb{'_trained' if rival.steps else ''}"
    bars = {
        f"top1_test_at_{kilobytes}_at_least": at_least(ours["top1_test"], rival.least_top1),
        f"bytes_at_{kilobytes}_at_most": at_most(ours["bytes"], rival.most_bytes),
    }
    if rival.most_gbops is None:
        bars[f"cpu_seconds_at_{kilobytes}_at_most"] = at_most(ours["cpu_seconds"], CPU_SECONDS)
    else:
        bars[f"gbops_at_{kilobytes}_at_most"] = at_most(ours["gbops"], rival.most_gbops)
    return bars


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
