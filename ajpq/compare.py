"""``python -m ajpq.compare``: several searchers, several seeds, the same cost, one table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ajpq import api, cli
from ajpq.cli import Bound, Count, Text, option
from ajpq.comparing.config import CompareConfig
from ajpq.comparing.standings import Comparison
from ajpq.progress import ConsoleProgress
from ajpq.reporting.compare_table import cells, headings

Factor = Annotated[float | None, option("FACTOR")]


def main(
    agents: Annotated[tuple[str, ...] | None, option("NAME ...")] = None,
    seeds: Annotated[tuple[int, ...] | None, option("N ...")] = None,
    candidates: Count = None,
    images: Count = None,
    budget_range: Factor = None,
    budgets: Count = None,
    target: Text = None,
    model: Text = None,
    data: Text = None,
    checkpoint: Text = None,
    latency_ratio: Bound = None,
    size_ratio: Bound = None,
    limit: cli.Limits = (),
    criterion: Text = None,
    fixed_bits: Count = None,
    image_size: Count = None,
    run_dir: Annotated[Path | None, option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    config: Annotated[str | None, option("NAME", "")] = None,
) -> None:
    """Let searchers compete: on the same problem, within the same budgets, at the same cost.

    Every searcher searches once with every seed. The best candidates of each search are measured
    on the whole validation split by the exact reference, without fine-tuning; test images are not
    looked at. Leaves one folder with the table, plots and the journal of every search. Options
    override the config, which may be that of a search.

    Args:
        agents: searchers as --agent of python -m ajpq.search names them; else td3 and random.
        seeds: of the searchers, two or more, else 0 1 2; network, data split and images are the
            same for all.
        candidates: what each search may cost: the images of so many candidates that are judged on
            all search images, else 300. Those that are given up early leave room for more;
            sensitivities count.
        images: the same as a number of images, where one that is trained on counts three times.
        budget_range: the bounds are the tightest budget, so many times as much the widest.
        budgets: so many of them, equal factors apart, if there is a range.
        target: device: a name that python -m ajpq.targets lists, a YAML file, a table of layers
            (.csv), or your own module:Class or path.py:Class.
        model: network: resnet8, resnet20 .. resnet110, mobilenet_v2, a torchvision name, or your
            own module:function or path.py:function.
        data: digits, cifar10, cifar100, imagefolder:DIR (train/ and test/ with a folder per
            class), or module:function.
        checkpoint: trained weights (safetensors, or a .pt/.th state dict). Without it the network
            is trained first.
        latency_ratio: at most this share of the unpruned int8 network's latency; "none" takes the
            config's bound away.
        size_ratio: at most this share of the float32 network's bytes; or "none".
        limit: more bounds, such as flash=128kB sram=64KiB latency=0.5ms energy=80%, with % of the
            unpruned int8 network.
        criterion: importance of channels: taylor, l1, l2, batchnorm.
        fixed_bits: give every kernel this width or prune it.
        image_size: resize the images of an imagefolder.
        run_dir: where results go; default runs/compare-<model>-<time>.
        resume: continue the comparison in --run-dir after an interruption.
        config: what the options override: a shipped experiment (digits, default,
            cifar10-resnet20) or a YAML file. Without it digits, or default for other data.
    """
    overrides = cli.given(
        agents=agents,
        seeds=seeds,
        candidates=candidates,
        images=images,
        budget_range=budget_range,
        budgets=budgets,
        target=target,
        model=model,
        data=data,
        checkpoint=checkpoint,
        criterion=criterion,
        fixed_bits=fixed_bits,
        image_size=image_size,
    )
    if candidates is not None and images is None:
        overrides["images"] = None  # the config's number would count for more
    overrides |= cli.bounds_given(latency_ratio=latency_ratio, size_ratio=size_ratio)
    overrides |= cli.limits_given(limit)
    settings = cli.settings_of(
        CompareConfig,
        overrides,
        run_dir=run_dir,
        resume=resume,
        config=config,
        default="digits" if data in (None, "digits") else "default",
    )
    folder = run_dir or Path("runs") / time.strftime(f"compare-{settings.model_name}-%Y%m%d-%H%M%S")
    console = Console()
    found = api.compare(settings, folder, resume=resume, progress=ConsoleProgress(console))
    _print_table(console, found)
    console.print(f"folder: {folder}   report: {folder / 'compare.html'}")


def _print_table(console: Console, comparison: Comparison) -> None:
    """Cells are never wrapped, not even where a log file or a terminal is narrow."""
    table = Table(title=f"{comparison.model} on {comparison.target}, medians over seeds")
    titles, rows = headings(comparison), cells(comparison)
    widths = [
        max(len(text) for text in [*title.split(), *(row[number] for row in rows)])
        for number, title in enumerate(titles)
    ]
    for title, width in zip(titles, widths, strict=True):
        table.add_column(title, justify="right" if table.columns else "left", min_width=width)
    for row in rows:
        table.add_row(*row)
    least = sum(widths) + 3 * len(widths) + 1
    console.print(table, width=max(least, console.width), crop=False)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.compare")
