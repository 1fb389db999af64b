"""CIFAR-10, ResNet-20, Arm Ethos-U65-256: the search of ``configs/experiments/cifar10-resnet20``.

Claims: within an hour on two cores, at most 70 % of the int8 network's cycles and a tenth of the
float32 bytes at 91.2 % test accuracy or better.

    make bench NAME=cifar10_edge_npu
    python -m benchmarks.cifar10_edge_npu --data imagefolder:DIR --checkpoint resnet20-12fca82f.th

The first form downloads images and weights, the second takes the same from disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import api, cli
from ajpq.config.files import load_search_config
from ajpq.progress import ConsoleProgress
from ajpq.reporting import search_figure
from benchmarks.harness import at_least, at_most, command_line, write_result

NAME = "cifar10_edge_npu"
QUICK: dict[str, Any] = {
    "episodes": 8,
    "final": [{"keep": 1, "recipe": "psg-short"}],
}


def main(
    data: str = "cifar10",
    checkpoint: str = "public",
    seed: int = 0,
    run_dir: Path | None = None,
    resume: bool = False,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Run the search and write ``benchmarks/results/cifar10_edge_npu.json``.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: public, or the file that torch.hub would download.
        seed: of split, agent and fine-tuning.
        run_dir: the run folder; default runs/cifar10_edge_npu.
        resume: continue an interrupted run.
        quick: eight candidates and no real fine-tuning: does it run at all?
    """
    overrides = {"data": data, "checkpoint": checkpoint, "seed": seed, **(QUICK if quick else {})}
    config = load_search_config("cifar10-resnet20", overrides)
    run_dir = run_dir or Path("runs") / f"{NAME}{'-quick' if quick else ''}"
    result = api.search(config, run_dir, resume=resume, progress=ConsoleProgress())
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data, checkpoint=checkpoint, seed=seed),
        seed=seed,
        rows=[row("baseline", result["baseline"], result), row("found", result["found"], result)],
        bars=bars(result),
        seconds=result["seconds"],
        quick=quick,
    )
    print(path)
    if not quick:
        print(search_figure(run_dir, Path("docs/search.png")))


def row(name: str, metrics: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """One line of the README's table; latency of the baseline is its int8 form's."""
    base = result["baseline"]
    return {
        "network": name,
        "top1_test": metrics["top1_test"],
        "top1_val": metrics["top1_val"],
        "latency_ms": round(1e3 * metrics["latency_s"], 4),
        "latency_ratio": round(metrics["latency_s"] / base["latency_s"], 4),
        "packed_bytes": metrics["packed_bytes"],
        "size_ratio": round(metrics["packed_bytes"] / base["packed_bytes"], 4),
        "flash_bytes": metrics["flash_bytes"],
        "mmacs": round(metrics["macs"] / 1e6, 2),
        **{f"gbops_{key}": round(value / 1e9, 4) for key, value in metrics["bops"].items()},
    }


def bars(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The claims."""
    base, found = result["baseline"], result["found"]
    return {
        "top1_test_at_least": at_least(found["top1_test"], 91.2),
        "latency_ratio_at_most": at_most(found["latency_s"] / base["latency_s"], 0.7),
        "size_ratio_at_most": at_most(found["packed_bytes"] / base["packed_bytes"], 0.1),
        "seconds_at_most": at_most(result["seconds"], 3600),
    }


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
