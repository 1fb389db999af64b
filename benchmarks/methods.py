"""Methods that train a quantized network, side by side on CIFAR-10.

The networks are published ones, MobileNetV2 is that of zoo/base in half its width.

Every row is a run of ``python -m ajpq.compress --method NAME --distill``: the same number of
epochs for all rows of a width (40 at W2A2, 20 else), the same images in the same order, first
and last layer at 8 bits, answers of the float checkpoint as the only teacher (KL divergence at
temperature 4). The learning rate is the method's own. Accuracy is the exact reference's on all
test images, looked at once per row.

    make bench NAME=methods
    python -m benchmarks.methods --data imagefolder:DIR --checkpoint resnet20-12fca82f.th
    python -m benchmarks.methods --rows lsq-w2a2 ewgs-mid-rise-w2a2

About half an hour per 20 epochs on one core. Rows are run folders: started again, it goes on
where it was stopped, and the table holds all rows that are finished.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import api, cli
from ajpq.config.files import load_compress_config, load_method, with_recipes
from ajpq.config.schema import CompressConfig
from ajpq.finetune.recipe import Recipe
from ajpq.progress import ConsoleProgress
from ajpq.runs.folder import check_resumable
from benchmarks.harness import command_line, write_result
from benchmarks.methods_figure import methods_figure
from benchmarks.methods_table import bars, line
from hw_models.errors import UnknownNameError

NAME = "methods"
QUICK_STEPS = 3


@dataclass(frozen=True)
class Row:
    """One row: a method, what it is asked for, and on which network."""

    method: str
    bits: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "resnet20"
    epochs: int = 20

    @property
    def name(self) -> str:
        """What ``--rows`` calls it; its run folder."""
        suffix = "" if self.model == "resnet20" else f"-{self.model}"
        return f"{self.method}-{self.bits.lower().replace(' ', '-')}{suffix}"


def both(method: str, bits: int) -> Row:
    """A row of weights and activations of the same width."""
    settings = {"weight_bits": bits, "activation_bits": bits}
    return Row(method, f"W{bits}A{bits}", settings, epochs=40 if bits == 2 else 20)


ROWS = (
    *(both(name, bits) for bits in (4, 3, 2) for name in ("lsq", "gdrq")),
    both("ewgs", 4),
    *(both("ewgs-mid-rise", bits) for bits in (3, 2)),  # at few bits with its paper's levels
    Row("ptq", "ternary"),
    *(Row(name, "W4A8") for name in ("codeq", "codeq-90", "codeq-mixed")),
    Row("psg", "W4", {"weight_bits": 4, "activation_bits": 32}),
    *(Row("gwk", "below 1 bit", model=name) for name in ("resnet20", "resnet56")),
    Row("gwk-channels", "below 1 bit", model="mobilenet_v2_x0_5"),
)


def main(
    data: str = "cifar10",
    checkpoint: str = "public",
    resnet56: str = "public",
    mobilenet_v2: str = "zoo/base/mobilenet_v2_x0_5.safetensors",
    rows: tuple[str, ...] = (),
    epochs: int | None = None,
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train the rows that are not finished, write the table of all that are, and docs/methods.png.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: of ResNet-20: public, or the file that torch.hub would download.
        resnet56: the same of ResNet-56.
        mobilenet_v2: of MobileNetV2 in half its width, which has no published weights.
        rows: names of the rows to train; default all.
        epochs: length of every training; default 20, at W2A2 40.
        seed: of the split and the order of the images.
        run_dir: where the run folders lie; default runs/methods.
        quick: three steps of every row on the embedded digits: does it run at all?
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    shared = {"data": data, "seed": seed, "distill": True}
    shared |= {} if epochs is None else {"epochs": epochs}
    checkpoints = {"resnet20": checkpoint, "resnet56": resnet56, "mobilenet_v2_x0_5": mobilenet_v2}
    for row in chosen(rows):
        config = config_of(row, {**shared, "checkpoint": checkpoints[row.model]}, quick)
        finished(row, config, folder)
    table = [json.loads(file.read_text()) for r in ROWS if (file := folder / _file(r)).exists()]
    path = write_result(
        NAME,
        command=command_line(
            NAME, quick, data=data, checkpoint=checkpoint, epochs=epochs, seed=seed
        ),
        seed=seed,
        rows=table,
        bars=bars(table),
        seconds=sum(row["seconds"] for row in table),
        quick=quick,
    )
    print(path)
    if not quick:
        print(methods_figure(table, Path("docs/methods.png")))


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names, or all.

    Raises:
        UnknownNameError: no row has this name.
    """
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise UnknownNameError("row", name, known)
    return [known[name] for name in names or known]


def config_of(row: Row, shared: Mapping[str, Any], quick: bool) -> CompressConfig:
    """The settings of a row's run."""
    own = {**load_method(row.method), **row.settings, "epochs": row.epochs, "model": row.model}
    settings = {**own, **shared}
    if quick:
        recipe = with_recipes(settings)["recipe"]
        settings |= {"recipe": shortened(recipe), "epochs": None}
        settings |= {"model": "resnet8", "data": "digits", "checkpoint": None}
        settings |= {"base": "digits-base", "search_images": 143}
    return load_compress_config("compress", settings)


def shortened(recipe: Any) -> dict[str, Any]:
    """A few steps of every stage."""
    whole = Recipe.model_validate(recipe)
    short = {"epochs": None, "steps": QUICK_STEPS, "batch_size": 64}
    stages = [{**stage.model_dump(), **short} for stage in whole.stages]
    return {"name": whole.name, "stages": stages}


def finished(row: Row, config: CompressConfig, folder: Path) -> None:
    """Train what is left of a row's training and keep its line of the table."""
    own = folder / row.name
    check_resumable(own, config)
    if (folder / _file(row)).exists():
        return
    api.compress(config, own, resume=own.exists(), progress=ConsoleProgress())
    (folder / _file(row)).write_text(
        json.dumps(line(row.method, row.bits, config, own), indent=1) + "\n"
    )


def _file(row: Row) -> str:
    return f"{row.name}.json"


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
