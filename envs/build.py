"""From a compression problem to the task that the environments play."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ajpq.compressed import compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.evaluate import Metrics, costs_in_loop, exact_costs, kl_divergence, top1
from ajpq.graph.channels import channel_groups, coupled_layers
from ajpq.graph.execute import execute, frozen_batchnorm
from ajpq.graph.structure import Layer, layer_macs, layers
from ajpq.grids import edge_grids
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import Problem, direct_weights, network_of
from ajpq.quantizers import make_quantizer
from envs.actions import Knobs, make_knobs
from envs.budget import Budget, reward, unreachable
from envs.task import CompressionTask, LayerFacts

# Images on which single-layer sensitivities are measured.
_SENSITIVITY_IMAGES = 200


def reference_budget(
    problem: Problem,
    *,
    latency_ratio: float | None,
    size_ratio: float | None,
    max_drop: float | None,
) -> Budget:
    """Bounds relative to the int8 network's latency, the float32 bytes and the float accuracy."""
    int8 = network_of(problem, problem.uniform(8), direct_weights(problem))
    sample = problem.search_sample
    assert sample.float_logits is not None
    return Budget(
        latency_ratio=latency_ratio,
        size_ratio=size_ratio,
        max_drop=max_drop,
        reference_latency_s=exact_costs(int8, problem.target).latency_s,
        reference_bytes=problem.float_bytes,
        reference_top1=top1(sample.float_logits, sample.labels),
    )


def build_task(
    problem: Problem,
    budget: Budget,
    assess: Callable[[CompressionPolicy], Metrics],
    *,
    max_sparsity: float,
    fixed_bits: int | None,
    kl_weight: float,
    budget_mode: Literal["hard", "soft"],
    margin: float,
) -> CompressionTask:
    """Everything an environment needs; measures the sensitivity table once.

    Raises:
        BudgetError: the cheapest policy already exceeds a bound.
    """
    knobs = make_knobs(
        problem.target.weight_bits,
        problem.target.activation_bits,
        max_sparsity=max_sparsity,
        fixed_bits=fixed_bits,
    )
    direct = direct_weights(problem)
    task = CompressionTask(
        layers=layer_facts(problem, knobs),
        scores=problem.scores,
        unprunable=unprunable_layers(problem),
        knobs=knobs,
        quantizer=problem.quantizer,
        budget=budget,
        price=lambda policy: costs_in_loop(network_of(problem, policy, direct), problem.target),
        assess=assess,
        score=lambda metrics: reward(
            metrics, budget, kl_weight=kl_weight, soft=budget_mode == "soft"
        ),
        margin=margin,
        hard=budget_mode == "hard",
    )
    if task.hard and budget.bounds:
        cheapest = task.price_actions(np.tile(knobs.tightest, (len(task.layers), 1)))
        if not budget.met(cheapest, margin):
            raise unreachable(budget, cheapest, margin)
    return task


def unprunable_layers(problem: Problem) -> frozenset[str]:
    """Layers that make the logits: none of their channels may be removed."""
    groups = channel_groups(problem.graph)
    return frozenset(
        layer.name
        for layer in layers(problem.graph)
        if bool((groups[layer.node.output] < 0).any())
    )


def layer_facts(problem: Problem, knobs: Knobs) -> tuple[LayerFacts, ...]:
    """Facts of all layers in execution order."""
    graph = problem.graph
    found = layers(graph)
    coupled = {name for names in coupled_layers(graph) if len(names) > 1 for name in names}
    macs = {layer.name: layer_macs(graph, layer) for layer in found}
    weights = {layer.name: _weight(problem, layer).numel() for layer in found}
    sensitivities = _normalised([_sensitivity(problem, layer, knobs) for layer in found])
    facts = []
    for layer, sensitivity in zip(found, sensitivities, strict=True):
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
                sensitivity=sensitivity,
            )
        )
    return tuple(facts)


def _weight(problem: Problem, layer: Layer) -> Tensor:
    return problem.state[layer.node.parameters["weight"]]


def _normalised(table: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Square roots, so that a few very sensitive layers do not flatten the rest; largest is 1."""
    values = np.sqrt(np.maximum(np.array(table), 0.0))
    values /= np.maximum(values.max(axis=0), 1e-12)
    return [(float(narrow), float(pruned)) for narrow, pruned in values]


@torch.no_grad()
def _sensitivity(problem: Problem, layer: Layer, knobs: Knobs) -> tuple[float, float]:
    """KL divergence with only this layer narrow, and with only half of its channels."""
    whole = problem.uniform(32)
    order = np.argsort(problem.scores[layer.name], kind="stable")
    halved = np.full(layer.channels, 32)
    halved[order[: layer.channels // 2]] = 0
    narrow = np.full(layer.channels, knobs.fixed_bits or knobs.weight_bits[0])
    return _alone(problem, whole, layer, narrow), _alone(problem, whole, layer, halved)


def _alone(
    problem: Problem, whole: CompressionPolicy, layer: Layer, bits: np.ndarray
) -> float:
    changed = LayerPolicy(weight_bits=tuple(bits.tolist()), activation_bits=32)
    policy = whole.model_copy(update={"layers": {**whole.layers, layer.name: changed}})
    quantizer = make_quantizer(policy.quantizer)
    widths = weight_bits(problem.graph, policy)
    scales = fit_scales(problem.graph, problem.state, widths, quantizer)
    view = compressed_view(problem.graph, problem.state, widths, scales, quantizer)
    edge = quantize_edges(edge_grids(problem.graph, policy, problem.ranges))
    sample = problem.search_sample
    assert sample.float_logits is not None
    images = sample.images[:_SENSITIVITY_IMAGES]
    logits = execute(problem.graph, view, images, edge=edge, batchnorm=frozen_batchnorm)
    return kl_divergence(sample.float_logits[:_SENSITIVITY_IMAGES], logits)
