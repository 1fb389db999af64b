"""From a compression problem to the task that the environments play."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Costs, Metrics, costs_of, exact_costs, layer_latencies, top1
from ajpq.graph.channels import channel_groups, coupled_layers
from ajpq.graph.structure import LAYER_KINDS, Layer, components, layer_macs, layers
from ajpq.limits import METRICS
from ajpq.packed.sizes import code_bits, packed_sizes
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.selection.remembered import remembered
from envs.actions import make_knobs
from envs.budget import Budget, reward, unreachable
from envs.distortion import kernel_tables
from envs.guesses import Form, Points, description, guess, learn
from envs.harm import Harm
from envs.ladders import cheapening, ladders
from envs.prior import measured_width, prior_settings, sensitivities
from envs.slopes import measured_slopes, slope_images
from envs.task import CompressionTask, LayerFacts
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError

# Policies of one projection, and of many.
_FEW, _MANY = 256, 4096


def reference_budget(config: SearchConfig, problem: Problem) -> Budget:
    """Bounds relative to the int8 network's costs, the float32 bytes and the float accuracy.

    Raises:
        AjpqError: a bound on a cost that the target does not know, or that is 0.
    """
    int8 = network_of(problem, problem.uniform(8), direct_weights(problem))
    costs = exact_costs(int8, problem.pricing)
    known = {name: getattr(costs, field) for name, field in METRICS.items()}
    known["size"] = problem.float_bytes
    reference = {name: float(value) for name, value in known.items() if value is not None}
    for name in config.bounds:
        if name not in reference:
            raise AjpqError(
                f"target {problem.target.name!r} does not know {name}; take this bound away: "
                f"--limit {name}=none"
            )
        if reference[name] == 0:
            raise AjpqError(
                f"target {problem.target.name!r} says that the {name} of the int8 network is 0: "
                "there is nothing to bound"
            )
    sample = problem.search_sample
    assert sample.float_logits is not None
    return Budget(
        bounds={
            name: limit.value if limit.relative else limit.value / max(reference[name], 1e-12)
            for name, limit in config.bounds.items()
        },
        reference=reference,
        max_drop=config.max_drop,
        reference_top1=top1(sample.float_logits, sample.labels),
    )


def build_task(
    config: SearchConfig, problem: Problem, judge: Callable[[CompressionPolicy, Budget], Metrics]
) -> CompressionTask:
    """Everything an environment needs; measures the sensitivity table once.

    Raises:
        AjpqError: the target does not know a bounded cost, or does not store ``fixed_bits``.
        BudgetError: the cheapest policy already exceeds a bound.
    """
    budget = reference_budget(config, problem)
    knobs = make_knobs(
        problem.target.weight_bits,
        problem.target.activation_bits,
        max_sparsity=config.max_sparsity,
        fixed_bits=config.fixed_bits,
        granularity=problem.target.channel_granularity,
        width_block=problem.target.width_granularity,
    )
    hard = config.budget_mode == "hard"
    asked = prices(problem)
    leaders = sparsity_leaders(problem)
    unprunable = unprunable_layers(problem)
    harm = Harm(problem)
    table = sensitivities(harm, knobs, leaders, unprunable)
    facts = layer_facts(problem, table, latency_shares(problem))
    task = CompressionTask(
        layers=facts,
        scores=problem.scores,
        leaders=leaders,
        prior=prior_settings(problem, knobs, facts, leaders, unprunable, table, asked.price),
        unprunable=unprunable,
        knobs=knobs,
        quantizer=problem.quantizer,
        budget=budget,
        packed_bytes=asked.packed_bytes,
        price=asked.price,
        guess=asked.guess,
        judge=judge,
        value=functools.partial(reward, kl_weight=config.kl_weight, soft=not hard),
        harm=harm,
        harm_images=harm.images_each,
        readers=readers_together(problem),
        margin=config.budget_margin,
        hard=hard,
    )
    if config.max_drop is not None:
        task = dataclasses.replace(task, path=_path(problem, task, harm))
    control = config.candidate.calibration.control_images(len(problem.split.train))
    task = dataclasses.replace(task, spent_images=harm.images + control)
    if "bits" in knobs.names:
        tables = kernel_tables(problem, knobs, measured_width(knobs), table[:, 0])
        task = dataclasses.replace(task, tables=tables)
        if not config.candidate.stages:
            asked_slopes = functools.partial(measured_slopes, problem, knobs.weight_bits)
            task = dataclasses.replace(
                task, slopes=asked_slopes, slope_images=slope_images(problem)
            )
    if hard and budget.bounds:
        cheapest = asked.price(task.policy(np.tile(knobs.tightest, (len(facts), 1))))
        if not budget.met(cheapest, config.budget_margin):
            raise unreachable(budget, cheapest, config.budget_margin)
    return task


def repriced(task: CompressionTask, problem: Problem) -> CompressionTask:
    """The task with prices as they were before anyone asked.

    Guesses depend on what was asked earlier, and where a projection ends may depend on guesses: of
    several searches on one task each has to start alike, or none could be repeated by itself.
    """
    asked = prices(problem)
    return dataclasses.replace(
        task, packed_bytes=asked.packed_bytes, price=asked.price, guess=asked.guess
    )


def _path(problem: Problem, task: CompressionTask, harm: Harm) -> tuple[np.ndarray, ...]:
    """What :func:`envs.ladders.cheapening` finds for a task, as far as a hard budget allows it."""
    prunable = [name not in task.unprunable for name in task.scores]
    channels = [len(scores) for scores in task.scores.values()]
    found = ladders(task.knobs, channels, task.leaders, task.readers, prunable)
    path = cheapening(
        task.knobs,
        found,
        len(channels),
        task.policy,
        task.price,
        harm,
        task.budget,
    )
    if not task.hard:
        return path
    prices = [task.price(task.policy(settings)) for settings in path]
    return tuple(
        settings
        for settings, costs in zip(path, prices, strict=True)
        if task.budget.met(costs, task.margin)
    )


@dataclass(frozen=True)
class _Prices:
    """Questions about the uncompressed weights under a policy, remembered by policy."""

    packed_bytes: Callable[[CompressionPolicy], int]
    price: Callable[[CompressionPolicy], Costs]
    guess: Callable[[CompressionPolicy], float | None] | None


def prices(problem: Problem) -> _Prices:
    """Size, costs, and guesses where asking takes long; these get better with every price."""
    direct, seen = direct_weights(problem), dict[Form, Points]()
    bits_of = remembered(code_bits(problem), _FEW)
    packed_bytes = remembered(packed_sizes(problem, bits_of), _MANY)
    described = remembered(description(problem, bits_of), _FEW)

    def price(policy: CompressionPolicy) -> Costs:
        network = network_of(problem, policy, direct)
        cost = checked_cost(problem.pricing, network)
        if problem.pricing.slow:
            learn(seen, described(policy), cost.per_layer)
        return costs_of(network, cost, packed_bytes(policy))

    def guessed(policy: CompressionPolicy) -> float | None:
        return guess(seen, described(policy))

    return _Prices(
        packed_bytes, remembered(price, _MANY), guessed if problem.pricing.slow else None
    )


def sparsity_leaders(problem: Problem) -> tuple[int, ...]:
    """For each layer the index of the first layer whose channels live and die with its own."""
    names = [layer.name for layer in layers(problem.graph)]
    leaders = list(range(len(names)))
    for group in coupled_layers(problem.graph):
        members = sorted(names.index(name) for name in group)
        for member in members:
            leaders[member] = members[0]
    return tuple(leaders)


def readers_together(problem: Problem) -> tuple[int, ...]:
    """For each layer the index of the first that reads the same stream.

    All readers of one stream share a ladder of widths: coarser than it could be, for every layer
    may read a width of its own, but there are fewer rungs to measure.
    """
    graph = problem.graph
    edges = [graph.input, *(fusion.output for fusion in graph.fusions)]
    pairs = [
        (edges.index(edge), edges.index(fusion.output))
        for fusion in graph.fusions
        if fusion.node.kind not in LAYER_KINDS
        for edge in fusion.node.inputs
    ]
    part = dict(zip(edges, components(len(edges), pairs).tolist(), strict=True))
    read = [part[layer.node.inputs[0]] for layer in layers(graph)]
    return tuple(read.index(number) for number in read)


def unprunable_layers(problem: Problem) -> frozenset[str]:
    """Layers that make the logits: none of their channels may be removed."""
    groups = channel_groups(problem.graph)
    return frozenset(
        layer.name for layer in layers(problem.graph) if bool((groups[layer.node.output] < 0).any())
    )


def latency_shares(problem: Problem) -> dict[str, float]:
    """Layer name -> its share of the int8 network's latency; empty where the target has none."""
    int8 = network_of(problem, problem.uniform(8), direct_weights(problem))
    found = layer_latencies(int8, problem.pricing)
    total = sum(found.values())
    return {name: latency / total for name, latency in found.items()} if total else {}


def layer_facts(
    problem: Problem, table: np.ndarray, latency: Mapping[str, float]
) -> tuple[LayerFacts, ...]:
    """Facts of all layers in execution order.

    Args:
        table: ``[L, 2]`` sensitivities.
        latency: shares of the int8 network's latency, by layer.
    """
    graph = problem.graph
    found = layers(graph)
    coupled = {name for names in coupled_layers(graph) if len(names) > 1 for name in names}
    macs = {layer.name: layer_macs(graph, layer) for layer in found}
    weights = {layer.name: _weight(problem, layer).numel() for layer in found}
    facts = []
    for layer, sensitivity in zip(found, _normalised(table), strict=True):
        shape = _weight(problem, layer).shape
        groups = int(layer.node.attributes.get("groups", 1))
        positions = int(np.prod(graph.shapes[layer.node.output][1:], dtype=np.int64))
        facts.append(
            LayerFacts(
                name=layer.name,
                kind=layer.node.kind,
                inputs=int(shape[1]) * groups,
                outputs=layer.channels,
                kernel=int(shape[-1]) if len(shape) == 4 else 1,
                stride=int(layer.node.attributes.get("stride", (1, 1))[0]),
                positions=positions,
                depthwise=groups > 1 and shape[1] == 1,
                coupled=layer.name in coupled,
                macs_share=macs[layer.name] / sum(macs.values()),
                weights_share=weights[layer.name] / sum(weights.values()),
                latency_share=latency.get(layer.name, 0.0),
                sensitivity=sensitivity,
            )
        )
    return tuple(facts)


def _weight(problem: Problem, layer: Layer) -> Tensor:
    return problem.state[layer.node.parameters["weight"]]


def _normalised(table: np.ndarray) -> list[tuple[float, float]]:
    """Square roots, so that a few very sensitive layers do not flatten the rest; largest is 1."""
    values = np.sqrt(np.maximum(table, 0.0))
    values /= np.maximum(values.max(axis=0), 1e-12)
    return [(float(narrow), float(pruned)) for narrow, pruned in values]
