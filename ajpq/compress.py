"""``python -m ajpq.compress``: one width for every kernel and one method, without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ajpq import api, cli
from ajpq.cli import Count, Text, option
from ajpq.config.files import load_method, shipped
from ajpq.config.schema import CompressConfig

METHODS = (
    f"whose settings to use: {', '.join(shipped('methods'))}, or a YAML file; the options below "
    "override them."
)
Method = Annotated[str | None, option("NAME", about=METHODS)]


def main(
    model: Text = None,
    data: Text = None,
    checkpoint: Text = None,
    target: Text = None,
    method: Method = None,
    weight_bits: Count = None,
    activation_bits: Count = None,
    outer_bits: Count = None,
    recipe: Text = None,
    epochs: Count = None,
    distill: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    image_size: Count = None,
    seed: Count = None,
    run_dir: Annotated[Path | None, option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    config: Annotated[str | None, option("NAME", "")] = None,
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
        epochs: length of the schedule's last stage.
        distill: learn from the uncompressed network's answers instead of the labels.
        image_size: resize the images of an imagefolder.
        seed: the same seed gives the same result.
        run_dir: where results go; default runs/<model>-<time>.
        resume: continue the run in --run-dir after an interruption.
        config: what the options override: psg-digits, compress, psg-cifar100 (the recipe of the
            PSG paper), or a YAML file. Without it psg-digits, or compress for other data.
    """
    overrides = {} if method is None else load_method(method)
    overrides |= cli.given(
        model=model,
        data=data,
        checkpoint=checkpoint,
        target=target,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        outer_bits=outer_bits,
        recipe=recipe,
        epochs=epochs,
        distill=distill or None,
        image_size=image_size,
        seed=seed,
    )
    settings = cli.settings_of(
        CompressConfig,
        overrides,
        run_dir=run_dir,
        resume=resume,
        config=config,
        default="psg-digits" if data in (None, "digits") else "compress",
    )
    cli.perform(api.compress, settings, run_dir, resume)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.compress")
