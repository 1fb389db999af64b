"""How far are cost models from what they stand for?

Two hundred random policies of each of three networks. The fitted models of slow and of measured
targets see one half of the policies and are judged on the other: Arm's compiler Vela for
``edge-npu``, ONNX Runtime on this machine for ``host-cpu``. Beside them a linear model of MACs
and bytes, which is what one would try first. The Bit Fusion model is held against two tools that
know nothing of it: with ``--scalesim`` its computing at 8 bits against SCALE-Sim
(:mod:`benchmarks.scalesim`), with ``--zigzag`` computing and transfers at 2, 4 and 8 bits against
ZigZag (:mod:`benchmarks.zigzag`). BISMO and MPIC are held against the rates that their papers
state (:mod:`benchmarks.published`). Last, how many policies the fastest models price in a second
once the tables of their layers are made.

    make bench NAME=hw_fidelity
    python -m benchmarks.hw_fidelity --scalesim scalesim/bin/python --zigzag zigzag/bin/python

Leave the machine alone meanwhile. Writes docs/hw_fidelity.png too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from ajpq import cli
from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.data import Dataset
from ajpq.files import write_atomically
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.progress import ConsoleProgress
from ajpq.reporting.style import BLUE, GREY
from benchmarks import zigzag as zigzag_tool
from benchmarks.harness import at_least, at_most, command_line, versions, write_result
from benchmarks.published import against_papers
from benchmarks.scalesim import Convolution, convolutions, cycles
from envs.measured import random_policies
from hw_models.analytic.base import AnalyticTarget
from hw_models.analytic.bitfusion import BitFusion
from hw_models.analytic.work import joined
from hw_models.base import NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.fitted import entropy_bytes, fit_to
from hw_models.network import Network, macs
from hw_models.registry import load_target

NAME = "hw_fidelity"
PICTURE = Path(__file__).parent.parent / "docs" / "hw_fidelity.png"
NETWORKS = ("resnet8", "resnet20", "mobilenet_v2_x0_5")
ZOO = Path(__file__).parent.parent / "zoo" / "base"
# Costs do not depend on what a network has learned: a single step is enough of a training.
ONE_STEP = Recipe(name="one-step", stages=(Stage(mode="float", steps=1),))
MAX_SPARSITY = 0.75
# Slow tools are asked about different layers only: with channels in blocks there are fewer.
CHANNELS_BY_EIGHT = "edge-npu"
VECTORISED = ("roofline", "mpic")
BATCH, REPEATS = 2048, 50


def main(
    policies: int = 200,
    seed: int = 0,
    scalesim: Path | None = None,
    zigzag: Path | None = None,
    run_dir: Path | None = None,
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Price random policies by model and by reference, write benchmarks/results/hw_fidelity.json.

    Args:
        policies: of each network; half of them are fitted to.
        seed: of the policies.
        scalesim: the interpreter of a virtual environment that has SCALE-Sim.
        zigzag: the interpreter of one that has ZigZag; half an hour more.
        run_dir: where finished comparisons are kept; default runs/hw_fidelity.
        quick: resnet8 only, a few policies, no picture.
    """
    progress = ConsoleProgress()
    count = 24 if quick else policies
    folder = run_dir or Path("runs") / (f"{NAME}-quick" if quick else NAME)
    for python in (scalesim, zigzag):
        if python is not None and not os.access(python, os.X_OK):
            raise AjpqError(f"{python}: no interpreter there")
    state = fingerprint(scalesim, zigzag)
    wanted: list[tuple[str, str, Callable[[str, int, int], list[Comparison]]]] = [
        (target, network, functools.partial(fitted_against, target))
        for network in (NETWORKS[:1] if quick else NETWORKS)
        for target in ("edge-npu", "host-cpu")
    ]
    if scalesim is not None:
        ask = functools.partial(bitfusion_against_scalesim, scalesim)
        wanted += [("SCALE-Sim", name, ask) for name in NETWORKS[: 1 if quick else 2]]
    if zigzag is not None:
        ask = functools.partial(bitfusion_against_zigzag, zigzag)
        wanted.append(("ZigZag", NETWORKS[0], ask))
    comparisons: list[Comparison] = []
    seconds = 0.0
    for against, network, compare in wanted:
        with progress.phase(f"{against}: {count} policies of {network}"):
            place = folder / f"{against}-{network}-{count}-{seed}-{state}.json"
            found, spent = kept(place, functools.partial(compare, network, count, seed))
        comparisons += found
        seconds += spent
    rows = [row(*comparison) for comparison in [*comparisons, *against_papers()]]
    ethos = [found for found in rows if found["model"] == "edge-npu, fitted"]
    with progress.phase("timing the vectorised models"):
        rates = {name: policies_per_second(name, count, seed) for name in VECTORISED}
    if not quick:
        picture(comparisons, PICTURE)
    path = write_result(
        NAME,
        command=command_line(
            NAME, quick, policies=policies, seed=seed, scalesim=scalesim, zigzag=zigzag
        ),
        seed=seed,
        rows=rows,
        bars={
            "edge_npu_fitted_spearman_at_least": at_least(
                min(found["spearman"] for found in ethos), 0.98
            ),
            "edge_npu_fitted_median_error_percent_at_most": at_most(
                max(found["median_error_percent"] for found in ethos), 8.0
            ),
            **{
                f"{name}_resnet20_layer_tables_priced_per_second_at_least": at_least(rate, 100_000)
                for name, rate in rates.items()
            },
        },
        seconds=seconds,
        quick=quick,
    )
    print(path)


def fingerprint(*interpreters: Path | None) -> str:
    """Changes with every package, interpreter and source file that figures may depend on."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256(repr((versions(), interpreters)).encode())
    for folder in ("ajpq", "benchmarks", "configs", "envs", "hw_models"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".yaml"):
                digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


Comparison = tuple[str, str, str, np.ndarray, np.ndarray]
"""Network, model, reference, seconds by the model, seconds by the reference; ``[P]`` each."""


def kept(path: Path, compare: Callable[[], list[Comparison]]) -> tuple[list[Comparison], float]:
    """What ``compare`` finds, now or in an earlier life, and the seconds that it took.

    Simulators take long, and may fail.
    """
    if not path.exists():
        started = time.monotonic()
        found = [(*names, priced.tolist(), true.tolist()) for *names, priced, true in compare()]
        content = {"comparisons": found, "seconds": time.monotonic() - started}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content).encode())
    content = json.loads(path.read_text())
    comparisons = [
        (network, model, reference, np.array(priced), np.array(true))
        for network, model, reference, priced, true in content["comparisons"]
    ]
    return comparisons, content["seconds"]


def noise() -> Dataset:
    """Random images of the size of CIFAR's: a network has to be traced with something."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(200) % 10
    classes = tuple(map(str, range(10)))
    middle = (0.5, 0.5, 0.5)
    return Dataset("noise", images, labels, images, labels, classes, middle, middle)


def problem_of(model: str, target: str, seed: int) -> Problem:
    """A network, from the zoo if it is there, and a target."""
    kept = ZOO / f"{model}.safetensors"
    config = ProblemConfig(
        target=target,
        model=model,
        data=f"{__name__}:noise" if __name__ != "__main__" else "benchmarks.hw_fidelity:noise",
        criterion="l1",
        search_images=10,
        seed=seed,
        base=ONE_STEP,
        checkpoint=str(kept) if kept.exists() else None,
    )
    return build_problem(config)


def fitted_against(target: str, model: str, count: int, seed: int) -> list[Comparison]:
    """The fitted and the linear model of a target on the half that neither has seen."""
    problem = problem_of(model, target, seed)
    chosen = random_policies(problem, MAX_SPARSITY, count, seed)
    direct = direct_weights(problem)
    networks = [network_of(problem, policy, direct) for policy in chosen]
    costs = problem.target.costs(networks)
    half = count // 2
    fitted = fit_to(problem.target, networks[:half], costs[:half], seed)
    true = _seconds(costs[half:])
    reference = "measured" if problem.target.measured else "Vela"
    straight = _linear(networks[:half], costs[:half], networks[half:])
    return [
        (model, f"{target}, fitted", reference, _priced(fitted, networks[half:]), true),
        (model, f"{target}, linear in MACs and bytes", reference, straight, true),
    ]


def _seconds(costs: Sequence[NetworkCost]) -> np.ndarray:
    return np.array([cost.latency_s for cost in costs], dtype=float)


def _priced(target: Target, networks: Sequence[Network]) -> np.ndarray:
    return _seconds(target.costs(networks))


def _linear(
    seen: Sequence[Network], costs: Sequence[NetworkCost], unseen: Sequence[Network]
) -> np.ndarray:
    """Least squares on MACs, bytes of the codes and a constant."""
    solved = np.linalg.lstsq(_amounts(seen), _seconds(costs), rcond=None)[0]
    found: np.ndarray = _amounts(unseen) @ solved
    return found


def _amounts(networks: Sequence[Network]) -> np.ndarray:
    return np.array(
        [
            [macs(net), sum(entropy_bytes(op.weights.codes) for op in net.layers if op.weights), 1]
            for net in networks
        ],
        dtype=float,
    )


def bitfusion_against_scalesim(python: Path, model: str, count: int, seed: int) -> list[Comparison]:
    """Both at 8 bits, where a unit of Bit Fusion is one multiplier, and without memory."""
    problem = problem_of(model, "bitfusion,bus_bits_per_cycle=1000000000", seed)
    device = problem.target
    assert isinstance(device, BitFusion)
    direct = direct_weights(problem)
    chosen = [
        _at_widths(policy, dict.fromkeys(policy.layers, 8))
        for policy in random_policies(problem, MAX_SPARSITY, count, seed)
    ]
    networks = [network_of(problem, policy, direct) for policy in chosen]
    layers = [convolutions(network) for network in networks]
    each: list[Convolution] = [layer for found in layers for layer in found]
    asked = cycles(python, each, rows=device.array_rows, columns=device.array_columns)
    simulated = np.array([sum(asked[layer] for layer in found) for found in layers])
    name = "bitfusion, compute only"
    return [(model, name, "SCALE-Sim", _priced(device, networks), simulated / device.clock_hz)]


def bitfusion_against_zigzag(python: Path, model: str, count: int, seed: int) -> list[Comparison]:
    """With transfers, and a width for every layer."""
    problem = problem_of(model, CHANNELS_BY_EIGHT, seed)
    device = load_target("bitfusion")
    assert isinstance(device, BitFusion)
    direct = direct_weights(problem)
    rng = np.random.default_rng(seed)
    chosen = [
        _at_widths(policy, {name: int(rng.choice((2, 4, 8))) for name in policy.layers})
        for policy in random_policies(problem, MAX_SPARSITY, count, seed)
    ]
    networks = [network_of(problem, policy, direct) for policy in chosen]
    layers = [
        [
            (layer, int(op.weights.bits.max()))
            for layer, op in zip(convolutions(network), network.layers, strict=True)
            if op.weights is not None
        ]
        for network in networks
    ]
    asked = zigzag_tool.cycles(python, [layer for found in layers for layer in found], device)
    found = np.array([sum(asked[layer] for layer in each) for each in layers])
    return [(model, "bitfusion", "ZigZag", _priced(device, networks), found / device.clock_hz)]


def _at_widths(policy: CompressionPolicy, widths: Mapping[str, int]) -> CompressionPolicy:
    """The channels that are left at one width per layer, activations at 8 bits."""
    layers = {
        name: LayerPolicy(
            weight_bits=tuple(widths[name] if bits else 0 for bits in layer.weight_bits),
            activation_bits=8,
        )
        for name, layer in policy.layers.items()
    }
    return policy.model_copy(update={"layers": layers})


def policies_per_second(name: str, count: int, seed: int) -> float:
    """How many ResNet-20s a target prices in a second, given the table of their layers."""
    problem = problem_of("resnet20", name, seed)
    direct = direct_weights(problem)
    forms = [
        network_of(problem, policy, direct)
        for policy in random_policies(problem, MAX_SPARSITY, count, seed)
    ]
    device, work = problem.target, joined((forms * (BATCH // len(forms) + 1))[:BATCH])
    assert isinstance(device, AnalyticTarget)
    started = time.perf_counter()
    for _ in range(REPEATS):
        device.cost_batch(work)
    return REPEATS * BATCH / (time.perf_counter() - started)


def row(
    network: str, model: str, reference: str, found: np.ndarray, true: np.ndarray
) -> dict[str, Any]:
    """One line of the table."""
    errors = 100 * np.abs(found / true - 1)
    return {
        "network": network,
        "model": model,
        "reference": reference,
        "policies": len(true),
        "spearman": float(spearmanr(found, true).statistic),
        "median_error_percent": float(np.median(errors)),
        "p95_error_percent": float(np.quantile(errors, 0.95)),
    }


def picture(comparisons: Sequence[Comparison], path: Path) -> None:
    """Model against reference, one panel per pair of model and reference."""
    shown = [each for each in comparisons if "linear" not in each[1]]
    figure = Figure(figsize=(4 * len(NETWORKS), 3.6 * -(-len(shown) // len(NETWORKS))), dpi=130)
    figure.set_layout_engine("constrained")
    for place, (network, model, reference, found, true) in enumerate(shown, start=1):
        axes = figure.add_subplot(-(-len(shown) // len(NETWORKS)), len(NETWORKS), place)
        low, high = 1e3 * min(found.min(), true.min()), 1e3 * max(found.max(), true.max())
        axes.plot([low, high], [low, high], color=GREY, linewidth=1)
        axes.scatter(1e3 * true, 1e3 * found, s=9, color=BLUE, alpha=0.7, linewidths=0)
        axes.set(xlabel=f"{reference}, ms", ylabel=f"{model}, ms", title=network)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


if __name__ == "__main__":
    cli.run(main, prog=f"python -m benchmarks.{NAME}")
