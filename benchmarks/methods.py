"""Methods that train a quantized network, side by side on CIFAR-10.

The networks are published ones, MobileNetV2 is that of zoo/base in half its width.

Every row is a run of ``python -m ajpq.compress --method NAME --distill``: the same number of
epochs, the same images in the same order, first and last layer at 8 bits, answers of the float
checkpoint as the only teacher (KL divergence at temperature 4). The learning rate is the method's
own. Accuracy is the exact reference's on all test images, looked at once per row.

    make bench NAME=methods
    python -m benchmarks.methods --data imagefolder:DIR --checkpoint resnet20-12fca82f.th
    python -m benchmarks.methods --rows lsq-w2a2 ewgs-w2a2

About half an hour per row on one core. Rows are run folders: started again, it goes on where it was
stopped, and the table holds all rows that are finished.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ajpq import api, cli
from ajpq.config.files import load_compress_config, load_method, with_recipes
from ajpq.config.schema import CompressConfig
from ajpq.finetune.recipe import Recipe
from ajpq.graph.structure import layers
from ajpq.problem import network_of
from ajpq.progress import ConsoleProgress
from ajpq.replaying import problem_of
from ajpq.runs.finished import load_finished
from ajpq.runs.folder import check_resumable
from benchmarks.harness import at_least, at_most, command_line, write_result
from benchmarks.methods_figure import methods_figure
from hw_models.errors import UnknownNameError
from hw_models.network import FLOAT_BITS, Network, Weights, bops_sparse

NAME = "methods"
QUICK_STEPS = 3


@dataclass(frozen=True)
class Row:
    """One row: a method, what it is asked for, and on which network."""

    method: str
    bits: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = "resnet20"

    @property
    def name(self) -> str:
        """What ``--rows`` calls it; its run folder."""
        suffix = "" if self.model == "resnet20" else f"-{self.model}"
        return f"{self.method}-{self.bits.lower().replace(' ', '-')}{suffix}"


def both(bits: int) -> dict[str, int]:
    """Weights and activations at the same width."""
    return {"weight_bits": bits, "activation_bits": bits}


ROWS = (
    *(Row(name, f"W{b}A{b}", both(b)) for b in (4, 3, 2) for name in ("lsq", "ewgs", "gdrq")),
    *(Row("ewgs-mid-rise", f"W{b}A{b}", both(b)) for b in (3, 2)),
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
    epochs: int = 20,
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
        epochs: length of every training.
        seed: of the split and the order of the images.
        run_dir: where the run folders lie; default runs/methods.
        quick: three steps of every row on the embedded digits: does it run at all?
    """
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    shared = {"data": data, "epochs": epochs, "seed": seed, "distill": True}
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
    settings = {**load_method(row.method), **row.settings, **shared, "model": row.model}
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
    (folder / _file(row)).write_text(json.dumps(line(row, config, own), indent=1) + "\n")


def _file(row: Row) -> str:
    return f"{row.name}.json"


def line(row: Row, config: CompressConfig, run_dir: Path) -> dict[str, Any]:
    """What the table says of a finished run."""
    run = load_finished(run_dir)
    problem = problem_of(run)
    network = network_of(problem, run.policy, run.weights)
    base, found = run.result["baseline"], run.result["found"]
    names = [layer.node.parameters["weight"] for layer in layers(problem.graph)]
    weights = sum(problem.state[name].numel() for name in names)
    return {
        "method": row.method,
        "network": config.model,
        "bits": row.bits,
        "sparsity": round(1 - nonzero(network) / weights, 4),
        "packed_bytes": found["packed_bytes"],
        "times_smaller": round(base["packed_bytes"] / found["packed_bytes"], 2),
        **{f"bops_{key}_percent": percent(value, base) for key, value in found["bops"].items()},
        "bops_sparse_percent": percent(bops_sparse(network), base),
        "bops_sparse_levels_percent": percent(bops_sparse(with_level_widths(network)), base),
        "top1_test": found["top1_test"],
        "top1_test_full_precision": found["top1_test_full_precision"],
        "baseline_top1_test": base["top1_test"],
        "epochs": sum(stage.epochs or 0 for stage in config.full_recipe.stages),
        "seconds": run.result["seconds"],
    }


def nonzero(network: Network) -> int:
    """Weights of the layers that are not zero."""
    return sum(int(np.count_nonzero(op.weights.codes)) for op in network.layers if op.weights)


def with_level_widths(network: Network) -> Network:
    """Rows as wide as the numbers of their layer's levels, not as the codes that name them.

    It differs where the levels of a method are not multiples of one step and lie on a finer grid:
    what hardware would do that multiplies numbers of levels. That of a uniform grid is its own.
    """
    operators = tuple(
        replace(op, weights=_level_widths(op.weights)) if op.weights else op
        for op in network.operators
    )
    return replace(network, operators=operators)


def _level_widths(weights: Weights) -> Weights:
    levels = len(np.unique(np.abs(weights.codes[weights.bits < FLOAT_BITS])))
    width = 1 + math.ceil(math.log2(max(levels, 2)))  # a sign, and zero is among the levels
    return replace(
        weights,
        bits=np.where(weights.bits < FLOAT_BITS, np.minimum(weights.bits, width), weights.bits),
    )


def percent(value: int, base: Mapping[str, Any]) -> float:
    """Bit operations relative to the unpruned network at 32 bits."""
    return round(100 * value / base["bops"]["all"], 3)


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the methods have to reach on ResNet-20; what is not finished does not hold."""
    found = [row for row in rows if row["network"] == "resnet20"]
    widths = {"W4A4": 91.6, "W3A3": 91.2, "W2A2": 89.6}
    by = {name: [r for r in found if r["method"] == name] for name in ("ptq", "gwk", "psg")}
    learned = [row for row in found if row["method"].split("-")[0] == "codeq"]
    light = [row for row in learned if row["bops_sparse_percent"] <= 5.0]
    small = {"ptq": (40.0, 88.5), "gwk": (35.0, 89.8)}
    lost = [row["top1_test_full_precision"] - row["top1_test"] for row in by["psg"]]
    return {
        **{
            f"best_top1_at_{bits.lower()}_at_least": at_least(
                best(row for row in found if row["bits"] == bits), bar
            )
            for bits, bar in widths.items()
        },
        "codeq_top1_at_5_percent_of_bops_sparse_at_least": at_least(best(light), 91.0),
        **{
            f"{name}_top1_at_{times:.0f}_times_smaller_at_least": at_least(
                best(row for row in by[name] if row["times_smaller"] >= times), bar
            )
            for name, (times, bar) in small.items()
        },
        "psg_points_below_full_precision_at_most": at_most(max(lost, default=float("nan")), 0.5),
    }


def best(rows: Any) -> float:
    """The highest accuracy, no number where there is none."""
    return max((row["top1_test"] for row in rows), default=float("nan"))


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
