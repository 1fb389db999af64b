"""The uncompressed networks of ``zoo/base``: trained on 45,000 images of CIFAR-10, measured here.

The other 5,000 training images, the validation split of seed 0, were never shown to them, so that
what a search measures there is about images that the network has not seen.

    python -m benchmarks.base_networks --train resnet20    # hours; goes on where it was stopped
    make bench NAME=base_networks                          # measures what lies in the zoo

Both take ``--data imagefolder:DIR`` where the images are on disk.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import cli
from ajpq.base import build_problem
from ajpq.checkpoints import load_tensors, save_tensors
from ajpq.config.files import load_recipe
from ajpq.config.schema import ProblemConfig
from ajpq.evaluate import top1
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.progress import ConsoleProgress
from ajpq.results import float_network, record_test, top1_test
from ajpq.selection.finalists import validation_images
from benchmarks.harness import at_least, at_most, command_line, write_result
from hw_models.errors import AjpqError
from hw_models.network import macs

NAME = "base_networks"
ZOO = Path(__file__).parent.parent / "zoo" / "base"
# Top-1 on test images that each network has to reach.
BARS = {"resnet8": 86.0, "resnet20": 91.3, "mobilenet_v2_x0_5": 91.5}
LARGEST_FILE = 4_000_000


def main(
    train: str | None = None,
    data: str = "cifar10",
    recipe: str = "base",
    seed: int = 0,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train one network into zoo/base, or measure all that are there.

    Args:
        train: the network to train; any model name.
        data: cifar10, or imagefolder:DIR with the same images.
        recipe: the training schedule.
        seed: of the split, the first weights and the order of the images.
        quick: measure the smallest network only.
    """
    if train is not None:
        print(train_one(train, data, recipe, seed))
        return
    started = time.monotonic()
    files = sorted(ZOO.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    if not files:
        raise AjpqError(f"no networks in {ZOO.name}/; train one with --train resnet20")
    rows = [row(path, data, quick) for path in files[: 1 if quick else None]]
    reached = {found["network"]: found["top1_test"] for found in rows}
    largest = max(found["file_bytes"] for found in rows)
    path = write_result(
        NAME,
        command=command_line(NAME, quick, data=data),
        seed=seed,
        rows=rows,
        bars={
            **{
                f"{network}_top1_test_at_least": at_least(reached.get(network, math.nan), bar)
                for network, bar in BARS.items()
            },
            "file_bytes_at_most": at_most(largest, LARGEST_FILE),
        },
        seconds=time.monotonic() - started,
        quick=quick,
    )
    print(path)


def problem_of(model: str, data: str, seed: int, **options: Any) -> Problem:
    """The network on its data, without a device."""
    settings = {"model": model, "data": data, "seed": seed, "criterion": "l1", **options}
    progress = ConsoleProgress()
    with progress.phase(f"loading {model}"):
        return build_problem(ProblemConfig(target="size-only", **settings), progress.base_step)


def train_one(model: str, data: str, recipe_name: str, seed: int) -> Path:
    """Train ``model`` and write it with what is needed to repeat that."""
    recipe = load_recipe(recipe_name)
    problem = problem_of(model, data, seed, base=recipe)
    about = {
        "model": model,
        "recipe": recipe_name,
        "epochs": str(sum(stage.epochs or 0 for stage in recipe.stages)),
        "images": str(len(problem.split.train)),
        "seed": str(seed),
    }
    ZOO.mkdir(parents=True, exist_ok=True)
    path = ZOO / f"{model}.safetensors"
    save_tensors(path, problem.state, about)
    return path


def zoo_problem(path: Path, data: str) -> Problem:
    """A network of the zoo on its data, with the split that it was trained with.

    Raises:
        AjpqError: the file does not say how it was trained.
    """
    about = load_tensors(path)[1]
    if not {"model", "seed"} <= about.keys():
        raise AjpqError(f"{path} does not say which network it is and which images it has seen")
    return problem_of(about["model"], data, int(about["seed"]), checkpoint=str(path))


def row(path: Path, data: str, quick: bool) -> dict[str, Any]:
    """One network, measured on the validation split and, unless ``quick``, on the test images."""
    about, problem = load_tensors(path)[1], zoo_problem(path, data)
    tested = math.nan
    if not quick:
        answers = top1_test(problem, {"baseline": float_network(problem.graph, problem.state)})
        record_test(problem, path.parent, f"{NAME}: {about['model']}", "none", answers)
        tested = answers["baseline"]
    sample = validation_images(problem)
    assert sample.float_logits is not None
    return {
        "network": about["model"],
        "top1_test": tested,
        "top1_val": top1(sample.float_logits, sample.labels),
        "mmacs": macs(network_of(problem, problem.uniform(32), direct_weights(problem))) / 1e6,
        "float32_bytes": problem.float_bytes,
        "file_bytes": path.stat().st_size,
        "train_images": int(about["images"]),
        "trained_by": f"--train {about['model']} --recipe {about['recipe']} --seed {about['seed']}",
        "epochs": int(about["epochs"]),
    }


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
