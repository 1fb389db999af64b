"""Position-based scaled gradients against plain SGD and straight-through training.

Every training starts from the same network and sees the same images in the same order. What is
compared is trained for the same number of epochs: two where weights go to a grid, eight where they
are to be pruned, because PSG moves weights away from zero slowly, and plain SGD gains nothing from
more. Afterwards its weights are quantized or pruned directly: no fine-tuning, no
correction. Activations stay real, as in the paper (arXiv 2005.11035); at 3 and 2 bits the first and
the last layer have 8, as in its code. PSG has one training per grid and one per structure of
sparsity: single weights, and whole channels inside the residual blocks. Channels are ranked by
BatchNorm factor or by L1 norm, each network by what is better for it on validation images.

Each method has one setting to choose, from three or four values, on validation images after half
an epoch: PSG its strength ``lambda_s`` for each aim, plain SGD and straight-through (at 3 bits)
their learning rate. Plain SGD and the sparse forms of PSG also choose whether weight decay is
strong: what PSG holds still near zero, decay alone makes smaller. What decay takes grows with the
steps, so the long training has as much less of it as it is longer, times a few factors: whichever
serves every sparsity best on validation images. Whole channels take far more of it than
single weights, because few of their BatchNorm factors may stay. BatchNorm statistics are estimated
anew after every training, in the mode that was trained. Then test images are looked at once.

Plain SGD is offered one strong decay, in the sweep, and takes it or not for all sparsities at once;
the factors are tried for PSG only.

    make bench NAME=psg
    python -m benchmarks.psg --data imagefolder:DIR

Two hours on one core; started again, it goes on where it was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from ajpq import cli
from ajpq.compressed import State
from ajpq.evaluate import top1
from ajpq.finalists import validation_images
from ajpq.finetune.recipe import PSGSettings, Stage
from ajpq.graph.structure import layers
from ajpq.problem import Problem
from ajpq.results import float_network, record_test, top1_test
from benchmarks.base_networks import zoo_problem
from benchmarks.harness import at_least, at_most, command_line, write_result
from benchmarks.psg_figure import psg_figure
from benchmarks.psg_trainings import Lab, Training, score_file, spent_seconds, trained
from benchmarks.psg_views import BY_L1, FULL, GRANULARITIES, SPARSITIES, WIDTHS, views

NAME = "psg"
FORMS = {"weights": "sparse", "channels": "sparse_channels"}
LAMBDAS: dict[str, tuple[float, ...]] = {
    "8": (150, 500, 1500),
    "4": (50, 150, 300, 500),
    "3": (150, 500, 1500),
    "2": (50, 150, 500),
    "weights": (15, 50, 150, 500),
    "channels": (300, 1000, 3000),
}
LEARNING_RATES = (0.003, 0.01, 0.03)
# The first for every method, the others where weights are to be pruned.
DECAYS = (1e-4, 0.1)
SHARES_OF_DECAY = {"weights": (1.0, 1.25, 1.5), "channels": (8.0, 16.0)}
SWEEP_STEPS = 176

Setting = tuple[float, float]
"""What is chosen for a method: its strength or learning rate, and its weight decay."""


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
        (_plain(steps=5),) * 3
        if quick
        else (_plain(epochs=epochs), _plain(epochs=sparse_epochs), _plain(steps=SWEEP_STEPS))
    )
    chosen = at_length(lab, choices(lab, short), short, whole, sparse)
    images = len(problem.split.train)
    strong = for_length(DECAYS[-1], sparse.total_steps(images) / short.total_steps(images))
    chosen |= {f"psg-{aim}": settled(lab, sparse, chosen, aim, strong) for aim in FORMS}
    states = {
        training.name: state
        for training in trainings(whole, sparse, chosen)
        if (state := trained(lab, training)) is not None
    }
    rows = table(measured(lab, states, quick), chosen)
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


def _plain(**length: int) -> Stage:
    """SGD, which the other methods change in one respect each."""
    return Stage.model_validate(
        {"mode": "float", "learning_rate": 0.01, "weight_decay": DECAYS[0], **length}
    )


def with_strength(plain: Stage, aim: str, lambda_s: float) -> Stage:
    """``plain`` with scaled gradients towards ``aim``: a width, or a structure of sparsity."""
    form = FORMS.get(aim, "multi_target")
    settings = PSGSettings.model_validate({"form": form, "lambda_s": lambda_s})
    return plain.model_copy(update={"mode": "psg", "psg": settings})


def with_rate(plain: Stage, mode: str, rate: float) -> Stage:
    """``plain`` in another mode at another learning rate."""
    return plain.model_copy(update={"mode": mode, "learning_rate": rate})


def with_decay(stage: Stage, decay: float) -> Stage:
    """``stage`` with another weight decay."""
    return stage.model_copy(update={"weight_decay": decay})


def plain_sgd(plain: Stage, chosen: Mapping[str, Setting], name: str) -> Training:
    """What PSG is compared with: ``sgd`` for the grids, ``sgd-sparse`` for sparsity."""
    rate, decay = chosen[name]
    return Training(name, with_decay(with_rate(plain, "float", rate), decay))


def trainings(plain: Stage, sparse: Stage, chosen: Mapping[str, Setting]) -> list[Training]:
    """Everything that is compared; ``chosen`` are the outcomes of :func:`choices`."""
    found = [plain_sgd(plain, chosen, "sgd"), plain_sgd(sparse, chosen, "sgd-sparse")]
    for aim in FORMS:
        strength, decay = chosen[f"psg-{aim}"]
        stage = with_decay(with_strength(sparse, aim, strength), decay)
        found.append(Training(f"psg-{aim}", stage))
    for bits in WIDTHS:
        psg = with_strength(plain, str(bits), chosen[f"psg-{bits}"][0])
        through = with_rate(plain, "straight_through", chosen["straight-through-3"][0])
        for granularity in GRANULARITIES:
            key = f"{bits}-{granularity}"
            found.append(Training(f"psg-{key}", psg, bits, granularity))
            found.append(Training(f"straight-through-{key}", through, bits, granularity))
    return found


def at_length(
    lab: Lab, found: Mapping[str, Setting], short: Stage, whole: Stage, sparse: Stage
) -> dict[str, Setting]:
    """What was chosen in ``short`` trainings, for the long ones; plain SGD has one of each."""
    images = len(lab.problem.split.train)
    methods = {**dict.fromkeys(found, whole), **{f"psg-{aim}": sparse for aim in FORMS}}
    stages = {**methods, "sgd-sparse": sparse}
    chosen = {}
    for name, stage in stages.items():
        value, decay = found[name.removesuffix("-sparse")]
        longer = stage.total_steps(images) / short.total_steps(images)
        chosen[name] = (value, for_length(decay, longer))
    return chosen


def for_length(decay: float, longer: float) -> float:
    """A strong decay in a training so many times longer: it takes as much from the weights."""
    return decay if decay == DECAYS[0] else decay / longer


def settled(
    lab: Lab, sparse: Stage, chosen: Mapping[str, Setting], aim: str, decay: float
) -> Setting:
    """The setting of a sparse form with as much of a strong decay as serves every sparsity best.

    Of a few long trainings the one whose least advantage over plain SGD on validation images, at
    the sparsity where it is least, is the largest.
    """
    strength = chosen[f"psg-{aim}"][0]
    sgd = trained(lab, plain_sgd(sparse, chosen, "sgd-sparse"))
    stages = {
        share * decay: with_decay(with_strength(sparse, aim, strength), share * decay)
        for share in SHARES_OF_DECAY[aim]
    }
    states = {own: trained(lab, Training(f"psg-{aim}", stage)) for own, stage in stages.items()}
    least = {
        own: least_advantage(lab.problem, aim, state, sgd)
        for own, state in states.items()
        if state is not None and sgd is not None
    }
    return strength, max(least, key=least.__getitem__)


def least_advantage(problem: Problem, aim: str, psg: State, sgd: State) -> float:
    """Points of PSG over plain SGD on validation images, at the sparsity where they are fewest.

    Each has its channels ranked by the better criterion.
    """
    settings = {
        share: [name for name in views(problem.graph) if name.startswith(f"{aim}-{share}")]
        for share in SPARSITIES
    }
    networks = {
        f"{name}/{setting}": float_network(problem.graph, views(problem.graph)[setting](state))
        for name, state in (("psg", psg), ("sgd", sgd))
        for names in settings.values()
        for setting in names
    }
    answers = on_validation(problem, networks)
    points = {
        share: max(answers[f"psg/{name}"] for name in names)
        - max(answers[f"sgd/{name}"] for name in names)
        for share, names in settings.items()
    }
    print(f"  points over SGD at sparsities of {aim}: {points}", flush=True)
    return min(points.values())


def choices(lab: Lab, short: Stage) -> dict[str, Setting]:
    """For each method and aim the setting that is best on validation images."""
    stages: dict[str, dict[float, Stage]] = {
        "sgd": {rate: with_rate(short, "float", rate) for rate in LEARNING_RATES}
    }
    for aim, strengths in LAMBDAS.items():
        stages[f"psg-{aim}"] = {s: with_strength(short, aim, s) for s in strengths}
    stages["straight-through-3"] = {
        rate: with_rate(short, "straight_through", rate) for rate in LEARNING_RATES
    }
    best = {}
    for method, by_value in stages.items():
        prunes = method in ("sgd", *(f"psg-{aim}" for aim in FORMS))
        scores = {
            (value, decay): score(lab, method, value, with_decay(stage, decay))
            for value, stage in by_value.items()
            for decay in (DECAYS if prunes else DECAYS[:1])
        }
        best[method] = max(scores, key=scores.__getitem__)
    return best


def score(lab: Lab, method: str, value: float, stage: Stage) -> float:
    """Mean validation accuracy of a short training over the settings that it is meant for."""
    aim = method.rpartition("-")[2]
    bits = int(aim) if aim.isdigit() else None
    training = Training(f"sweep-{method}-{value:g}", stage, bits)
    state, known = trained(lab, training), score_file(lab, training)
    if state is None:
        return -1.0
    if known.exists():
        return float(known.read_text())
    networks = {
        setting: float_network(lab.problem.graph, view(state))
        for setting, view in views(lab.problem.graph).items()
        if not setting.endswith(BY_L1)
        and (
            (method == "sgd" and setting != FULL)
            or setting == f"{aim}-channel"
            or setting.startswith(f"{aim}-0")
        )
    }
    answers = on_validation(lab.problem, networks)
    mean = sum(answers.values()) / len(answers)
    decay = stage.weight_decay
    print(f"  {method} {value:g}, decay {decay:g}: {mean:.2f} % on validation images", flush=True)
    known.write_text(f"{mean:.2f}\n")
    return round(mean, 2)


@torch.no_grad()
def on_validation(
    problem: Problem, networks: Mapping[str, Callable[[Tensor], Tensor]]
) -> dict[str, float]:
    """Top-1 of each network on the validation images."""
    sample = validation_images(problem)
    return {
        name: top1(torch.cat([network(part) for part in sample.images.split(500)]), sample.labels)
        for name, network in networks.items()
    }


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
    if training == "checkpoint" or (training.startswith("sgd") and setting == FULL):
        return True
    if training.startswith("sgd"):
        return setting.startswith(tuple(FORMS)) == training.endswith("sparse")
    aim = training.removeprefix("psg-").removeprefix("straight-through-")
    if setting == FULL:
        return training.startswith("psg-")
    return setting == aim or setting.startswith(f"{aim}-0")


def table(answers: Mapping[str, float], chosen: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """One row per setting, one column per method; ``... full`` is the same weights' own."""
    rows = []
    for bits in WIDTHS:
        for granularity in GRANULARITIES:
            key = f"{bits}-{granularity}"
            row = _row(answers, f"{bits} bit per {granularity}", key, f"psg-{key}", "sgd")
            row["lambda_s"] = chosen[f"psg-{bits}"][0]
            row["straight_through"] = answers.get(f"straight-through-{key}/{key}", math.nan)
            rows.append(row)
    for structure in FORMS:
        for share in SPARSITIES:
            label = f"{share:.0%} of the {structure} pruned"
            row = _row(answers, label, f"{structure}-{share}", f"psg-{structure}", "sgd-sparse")
            row["lambda_s"], row["weight_decay"] = chosen[f"psg-{structure}"]
            rows.append(row)
    return rows


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
