"""Position-based scaled gradients against plain SGD and straight-through training.

Every training starts from the same network and sees the same images in the same order. What is
compared is trained for the same number of epochs: two where weights go to a grid, eight where they
are to be pruned, because PSG moves weights away from zero slowly, and plain SGD gains nothing from
more. Afterwards its weights are quantized or pruned directly: no fine-tuning, no correction.
Activations stay real, as in the paper (arXiv 2005.11035); at 3 and 2 bits the first and the last
layer have 8, as in its code. PSG has one training per grid and one per structure of sparsity:
single weights, and whole channels inside the residual blocks. Channels are ranked by BatchNorm
factor or by L1 norm, each network by what is better for it on validation images.

Each method has one setting to choose, from three or four values, on validation images after half
an epoch: PSG its strength ``lambda_s`` for each aim, plain SGD and straight-through (at 3 bits)
their learning rate. For sparsity PSG also chooses a weight decay: what it holds still near zero,
decay alone makes smaller. What decay takes grows with the steps, so the long trainings have as much
less of it as they are longer, times a few factors. Whole channels take far more of it than single
weights, because few of their BatchNorm factors may stay. Of its trainings PSG takes the one that is
furthest ahead of plain SGD where it is least ahead, on validation images: one for all sparsities.
How much of that is the decay's doing, and not PSG's, is answered by plain SGD with every decay that
PSG has for either structure, at PSG's learning rate: there both take what is best for each sparsity
alone, again on validation images (``tuned``). BatchNorm statistics are estimated anew after every
training, in the mode that was trained. Then test images are looked at once.

    make bench NAME=psg
    python -m benchmarks.psg --data imagefolder:DIR

Three hours on one core; started again, it goes on where it was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from ajpq import cli
from ajpq.compressed import State
from ajpq.finetune.recipe import Stage
from ajpq.graph.structure import layers
from ajpq.problem import Problem
from ajpq.results import float_network, record_test, top1_test
from benchmarks.base_networks import zoo_problem
from benchmarks.harness import at_least, at_most, command_line, write_result
from benchmarks.psg_choices import (
    FORMS,
    STRONG,
    SWEEP_STEPS,
    choices,
    on_validation,
    plain_stage,
    settled,
    with_rate,
    with_strength,
)
from benchmarks.psg_figure import psg_figure
from benchmarks.psg_trainings import Lab, Training, spent_seconds, trained
from benchmarks.psg_views import BY_L1, FULL, GRANULARITIES, SPARSITIES, WIDTHS, views

NAME = "psg"


def main(
    data: str = "cifar10",
    checkpoint: Path = Path("zoo/base/resnet20.safetensors"),
    epochs: int = 2,
    sparse_epochs: int = 8,
    seed: int = 0,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train, quantize and prune directly, write benchmarks/results/psg.json and docs/psg.png.

    Args:
        data: cifar10, or imagefolder:DIR with the same images.
        checkpoint: a network of zoo/base, where every training starts.
        epochs: length of every training towards a grid, and of what it is compared with.
        sparse_epochs: length of every training for sparsity, likewise.
        seed: of the order of the images.
        run_dir: finished trainings; default runs/psg.
        quick: a few steps instead of epochs, and validation images instead of test images.
    """
    problem = zoo_problem(checkpoint, data)
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    lab = Lab(problem, folder, seed)
    whole, sparse, short = (
        (plain_stage(steps=5),) * 3
        if quick
        else (
            plain_stage(epochs=epochs),
            plain_stage(epochs=sparse_epochs),
            plain_stage(steps=SWEEP_STEPS),
        )
    )
    images = len(problem.split.train)
    strong = STRONG * short.total_steps(images) / sparse.total_steps(images)
    chosen = choices(lab, short)
    compared = trainings(whole, chosen)
    for aim in FORMS:
        compared |= settled(lab, sparse, chosen, aim, strong)
    states = {
        name: state
        for name, training in compared.items()
        if (state := trained(lab, training)) is not None
    }
    rows = table(measured(lab, states, quick), compared)
    path = write_result(
        NAME,
        command=command_line(
            NAME,
            quick,
            data=data,
            checkpoint=str(checkpoint),
            epochs=epochs,
            sparse_epochs=sparse_epochs,
            seed=seed,
        ),
        seed=seed,
        rows=rows,
        bars=bars(rows),
        seconds=spent_seconds(lab),
        quick=quick,
    )
    print(path)
    if not quick:
        print(psg_figure(rows, histograms(problem, states), Path("docs/psg.png")))


def trainings(plain: Stage, chosen: Mapping[str, float]) -> dict[str, Training]:
    """Everything that is compared on grids, from what :func:`choices` found."""
    found = {"sgd": Training("sgd", with_rate(plain, "float", chosen["sgd"]))}
    for bits in WIDTHS:
        psg = with_strength(plain, str(bits), chosen[f"psg-{bits}"])
        through = with_rate(plain, "straight_through", chosen["straight-through-3"])
        for granularity in GRANULARITIES:
            for method, stage in (("psg", psg), ("straight-through", through)):
                name = f"{method}-{bits}-{granularity}"
                found[name] = Training(name, stage, bits, granularity)
    return found


def measured(lab: Lab, states: Mapping[str, State], quick: bool) -> dict[str, float]:
    """Top-1 by ``TRAINING/SETTING``: each training at the settings that it was made for."""
    problem = lab.problem
    networks = {
        f"{name}/{setting}": float_network(problem.graph, view(state))
        for name, state in {"checkpoint": problem.state, **states}.items()
        for setting, view in views(problem.graph).items()
        if belongs(name, setting)
    }
    networks = by_the_better_criterion(problem, networks)
    if quick:
        return on_validation(problem, networks)
    answers = top1_test(problem, networks)
    record_test(problem, lab.folder, f"{NAME} ({len(networks)} networks)", "none", answers)
    return answers


def by_the_better_criterion(
    problem: Problem, networks: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Of the two criteria for channels the one that is better on validation images, for each."""
    twins = {name: name + BY_L1 for name in networks if name + BY_L1 in networks}
    both = {name: networks[name] for pair in twins.items() for name in pair}
    answers = on_validation(problem, both)
    better = {
        name: networks[other] for name, other in twins.items() if answers[other] > answers[name]
    }
    return {**{n: net for n, net in networks.items() if not n.endswith(BY_L1)}, **better}


def belongs(training: str, setting: str) -> bool:
    """Is a training measured at a setting? Straight-through has no full precision to speak of."""
    if training == "checkpoint":
        return True
    if training in ("sgd", "sgd-sparse"):
        return setting == FULL or setting.startswith(tuple(FORMS)) == training.endswith("sparse")
    if setting == FULL:
        return not training.startswith("straight-through")
    aim = training.removeprefix("sgd-").removeprefix("psg-").removeprefix("straight-through-")
    return setting.startswith(aim)


def table(answers: Mapping[str, float], compared: Mapping[str, Training]) -> list[dict[str, Any]]:
    """One row per setting, one column per method; ``... full`` is the same weights' own."""
    rows = []
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            key = f"{bits}-{granularity}"
            row = _row(answers, f"{bits} bit per {granularity}", key, f"psg-{key}", "sgd")
            row["lambda_s"] = lambda_of(compared[f"psg-{key}"])
            row["straight_through"] = answers.get(f"straight-through-{key}/{key}", math.nan)
            rows.append(row)
    for structure in FORMS:
        for share in SPARSITIES:
            label, key = f"{share:.0%} of the {structure} pruned", f"{structure}-{share}"
            row = _row(answers, label, key, f"psg-{structure}", "sgd-sparse")
            row["lambda_s"] = lambda_of(compared[f"psg-{structure}"])
            row["weight_decay"] = compared[f"psg-{structure}"].stage.weight_decay
            for method in ("sgd", "psg"):
                row[f"{method}_tuned"] = answers.get(f"{method}-{key}/{key}", math.nan)
                row[f"{method}_tuned_decay"] = compared[f"{method}-{key}"].stage.weight_decay
            rows.append(row)
    return rows


def lambda_of(training: Training) -> float:
    """The strength of a training with PSG."""
    assert training.stage.psg is not None
    return training.stage.psg.lambda_s


def _row(
    answers: Mapping[str, float], label: str, setting: str, psg: str, sgd: str
) -> dict[str, Any]:
    def answer(training: str, at: str) -> float:
        return answers.get(f"{training}/{at}", math.nan)

    return {
        "setting": label,
        "checkpoint": answer("checkpoint", setting),
        "sgd": answer(sgd, setting),
        "psg": answer(psg, setting),
        "checkpoint_full": answer("checkpoint", FULL),
        "sgd_full": answer(sgd, FULL),
        "psg_full": answer(psg, FULL),
    }


def bars(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What PSG has to show: no loss where plain SGD loses nothing, gains everywhere else."""
    by = {row["setting"]: row for row in rows}
    mild = [r for name, r in by.items() if name.startswith(("8 bit", "30%"))]
    hard = [r for name, r in by.items() if not name.startswith(("8 bit", "30%"))]
    own = by["4 bit per channel"]
    tuned = {
        name: row["psg_tuned"] - row["sgd_tuned"] for name, row in by.items() if "psg_tuned" in row
    }
    behind = [n for n, points in tuned.items() if points <= (-0.2 if n.startswith("30%") else 0)]
    return {
        "points_over_sgd_at_8_bit_and_30_percent_at_least": at_least(
            min(row["psg"] - row["sgd"] for row in mild), -0.2
        ),
        "settings_below_8_bit_and_above_30_percent_where_sgd_is_not_beaten_at_most": at_most(
            sum(not row["psg"] > row["sgd"] for row in hard), 0
        ),
        "points_lost_at_4_bit_per_channel_against_own_full_precision_at_most": at_most(
            own["psg_full"] - own["psg"], 0.5
        ),
        "sparsities_where_psg_is_behind_sgd_if_each_has_the_best_decay_at_most": at_most(
            len(behind), 0
        ),
    }


def histograms(problem: Problem, states: Mapping[str, State]) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights of one layer before and after PSG: on a grid of 3 bits, and sparse."""
    inner = layers(problem.graph)
    name = inner[len(inner) // 2].node.parameters["weight"]
    shown = {"PSG to 3 bit per tensor": "psg-3-tensor", "sparse PSG": "psg-weights"}
    return {
        f"{title}, {name}": (problem.state[name].flatten(), states[training][name].flatten())
        for title, training in shown.items()
        if training in states
    }


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
