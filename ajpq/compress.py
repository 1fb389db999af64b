"""``python -m ajpq.compress``: the same width for every kernel and one recipe, without a search."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from ajpq import api, cli
from ajpq.config import CompressConfig, load_compress_config, validated_run
from ajpq.progress import ConsoleProgress
from ajpq.runs.folder import load_config


def _option(metavar: str, hint: str = "default: the config's") -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


Text = Annotated[str | None, _option("NAME")]
Count = Annotated[int | None, _option("N")]


def main(
    model: Text = None,
    data: Text = None,
    checkpoint: Text = None,
    target: Text = None,
    weight_bits: Count = None,
    activation_bits: Count = None,
    outer_bits: Count = None,
    recipe: Text = None,
    image_size: Count = None,
    seed: Count = None,
    run_dir: Annotated[Path | None, _option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    config: Annotated[str | None, _option("NAME", "")] = None,
) -> None:
    """Quantize a network to one width and fine-tune it.

    Leaves a run folder like a search does, which replay, export and report take. Options override
    the config.

    Args:
        model: network: resnet8, resnet20 .. resnet110, mobilenet_v2, a torchvision name, or your
            own module:function or path.py:function.
        data: digits, cifar10, cifar100, imagefolder:DIR (train/ and test/ with a folder per
            class), or module:function.
        checkpoint: trained weights (safetensors, or a .pt/.th state dict). Without it the network
            is trained first.
        target: device that must be able to store the widths, and that prices the result.
        weight_bits: width of every kernel, 2 to 8 or 32.
        activation_bits: width of all activations, 2 to 8 or 32.
        outer_bits: width of the first and the last layer instead.
        recipe: fine-tuning schedule: a shipped name or a YAML file.
        image_size: resize the images of an imagefolder.
        seed: the same seed gives the same result.
        run_dir: where results go; default runs/<model>-<time>.
        resume: continue the run in --run-dir after an interruption.
        config: what the options override: psg-digits, compress, psg-cifar100 (the recipe of the
            PSG paper), or a YAML file. Without it psg-digits, or compress for other data.
    """
    overrides = cli.given(
        model=model,
        data=data,
        checkpoint=checkpoint,
        target=target,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        outer_bits=outer_bits,
        recipe=recipe,
        image_size=image_size,
        seed=seed,
    )
    stored_config = cli.resumable(run_dir, config) if resume else False
    if stored_config and run_dir is not None:
        stored = load_config(run_dir).model_dump()
        settings = validated_run(CompressConfig, {**stored, **overrides}, f"run folder {run_dir}")
    else:
        name = config or ("psg-digits" if data in (None, "digits") else "compress")
        settings = load_compress_config(name, overrides)
    folder = run_dir or Path("runs") / time.strftime(f"{settings.model_name}-%Y%m%d-%H%M%S")
    console = Console()
    api.compress(settings, folder, resume=resume, progress=ConsoleProgress(console))
    console.print(f"run folder: {folder}   report: {folder / 'report.html'}")


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.compress")
