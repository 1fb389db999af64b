"""BatchNorm statistics and activation ranges of a compressed network, measured on its codes.

The network runs as it is shipped: pruned channels gone, codes for weights and activations, which is
several times as fast as imitating it with real numbers. Only BatchNorm is not folded yet: every
batch is normalised by its own statistics, which are averaged.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.apply import Quantize, apply_policy, kept_by_policy
from ajpq.compressed import State, batchnorm_buffers
from ajpq.graph.execute import role_name
from ajpq.graph.structure import EVERYTHING, GRID_PRESERVING, Graph, Node, nonnegative_edges
from ajpq.policy import CompressionPolicy
from ajpq.simulation.batchnorm import normalized_by_itself
from ajpq.simulation.calibration import clips, magnitude
from ajpq.simulation.grids import NARROW, ActivationRange, quantize_edge
from ajpq.simulation.kernels import Kernels, fastest
from ajpq.simulation.kernels.floats import CLAMPS, clamp_range, finish, step_size
from ajpq.simulation.operators import applied, operator_module
from ajpq.simulation.prefixes import Prefixes
from ajpq.simulation.ranking import loaded, ranking_step, real_edge
from ajpq.simulation.walk import Step, walk
from hw_models.network import Network, Operator

_STATISTICS = ("running_mean", "running_var")


@torch.no_grad()
def recalibrate(
    graph: Graph,
    tensors: State,
    policy: CompressionPolicy,
    ranges: Mapping[str, ActivationRange],
    quantize: Quantize,
    batches: Iterable[Tensor],
    *,
    batchnorm_batches: int,
    range_batches: int,
    kernels: Kernels | None = None,
    prefixes: Prefixes | None = None,
    go_on: Callable[[int, Tensor], bool] = lambda number, logits: True,
) -> tuple[dict[str, Tensor], dict[str, ActivationRange]]:
    """BatchNorm statistics by state-dict name, and the range of every quantized edge.

    Channels and edges that are not in the compressed network keep what ``tensors`` and ``ranges``
    say of them. Batches that give ranges take longest and run last.

    Args:
        tensors: parameters and buffers by state-dict name.
        ranges: of the uncompressed network; they give the grids that activations are on meanwhile.
        quantize: as of :func:`ajpq.apply.apply_policy`.
        batches: images ``[N, C, H, W]``, augmented as in training; one after the other, as many as
            the larger of the following two.
        batchnorm_batches: so many give the statistics, which are left as they are if 0.
        range_batches: so many, the first, give the ranges.
        prefixes: what networks that begin alike have answered, with the same numbers of batches.
        go_on: is told the number of the batch that has just run and its logits; after False no
            other runs, and the results are those of what has been seen.
    """
    kernels = kernels or fastest()
    network = apply_policy(graph, {**tensors, **_identity(graph)}, policy, ranges, quantize)
    kept = kept_by_policy(graph, policy)
    notes: dict[str, Any] = {}  # statistics by state-dict name, magnitudes by edge; of one batch
    seen: dict[int, dict[str, Any]] = {}  # of every batch; magnitudes only where ranges are from
    current = 0

    def measuring() -> bool:
        return current < range_batches

    def measure(
        edge: str, values: Tensor, unit: float = 1.0, ends: tuple[float, float] = EVERYTHING
    ) -> None:
        """``values`` in units of an edge, which are going to be clamped to ``ends``."""
        own, domain = network.edges[edge], graph.domains.get(edge, EVERYTHING)
        if own.bits in NARROW:
            notes[edge] = clips(values.clamp(*ends) * unit, [own.bits], own.signed)[0]
        else:
            low, high = max(domain[0] / unit, ends[0]), min(domain[1] / unit, ends[1])
            notes[edge] = magnitude(values, (low, high)) * unit

    owners = {fusion.node.name: fusion.batchnorm or fusion.node for fusion in graph.fusions}
    steps, more, biases = [], {}, _biases_in_front(graph)
    for op in network.operators:
        owner, normalise = owners.get(op.name), None  # an entry has none
        if owner is not None and owner.kind == "batchnorm":
            before = biases.get(owner.parameters["running_mean"], (None, 0))[0]
            own = _own_tensors(owner, op, tensors, kept[owner.output], before)
            normalise = _normalisation(owner, own, notes, frozen=batchnorm_batches == 0)
            more[op.name] = b"".join(own[role].numpy().tobytes() for role in sorted(own))
        real = _unrounded(kernels, network, op)
        measured = _measured_step(kernels, network, op, real, normalise, measure, notes)
        plain = _plain_step(kernels, network, op, real, normalise)
        steps.append((op, _either(measuring, measured, plain)))
    run = walk(network, steps, kernels.store, prefixes, notes, more)
    for current, images in _last_first(batches, range_batches):
        notes.clear()
        if measuring():
            measure(network.input, images)
        logits = run(images)
        seen[current] = dict(notes)
        if not go_on(current, logits):
            break
    return (
        _buffers(graph, tensors, kept, _of_first(seen, batchnorm_batches)),
        _ranges(graph, ranges, _of_first(seen, range_batches), _narrow(network)),
    )


def _last_first(batches: Iterable[Tensor], count: int) -> Iterator[tuple[int, Tensor]]:
    """Number and batch; the first ``count`` of them after all others."""
    numbered = enumerate(batches)
    held = list(itertools.islice(numbered, count))
    return itertools.chain(numbered, held)


def _of_first(seen: Mapping[int, dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return [seen[number] for number in sorted(seen) if number < count]


def _identity(graph: Graph) -> dict[str, Tensor]:
    """Parameters and statistics with which every BatchNorm does nothing.

    A layer's own bias in front of it is left out, because codes would round it; the mean that is
    measured goes without it too.
    """
    found = {}
    for name, channels in _biases_in_front(graph).values():
        found[name] = torch.zeros(channels)
    for node in graph.nodes:
        if node.kind == "batchnorm":
            values = {
                "weight": 1.0,
                "bias": 0.0,
                "running_mean": 0.0,
                "running_var": 1.0 - node.attributes["eps"],
            }
            channels = graph.shapes[node.output][0]
            for role, value in values.items():
                found[role_name(node, role)] = torch.full((channels,), value)
    return found


def _biases_in_front(graph: Graph) -> dict[str, tuple[str, int]]:
    """Name of a running mean -> name and length of the bias that its layer adds before."""
    return {
        fusion.batchnorm.parameters["running_mean"]: (
            fusion.node.parameters["bias"],
            graph.shapes[fusion.node.output][0],
        )
        for fusion in graph.fusions
        if fusion.batchnorm is not None and "bias" in fusion.node.parameters
    }


def _own_tensors(
    node: Node, op: Operator, tensors: State, kept: np.ndarray, before: str | None
) -> dict[str, Tensor]:
    """Role -> ``[C']`` values of the channels that stay; rows of 0 bits stay zero.

    Args:
        before: name of the bias that the layer in front adds.
    """
    assert op.weights is not None
    rows = torch.from_numpy(np.flatnonzero(kept))
    own = {role: tensors[name].detach()[rows] for role, name in node.parameters.items()}
    live = torch.from_numpy((op.weights.bits != 0).astype(np.float32))
    own["weight"] = own.get("weight", torch.ones(())) * live
    own["bias"] = own.get("bias", torch.zeros(())) * live
    if before is not None:
        own["before"] = tensors[before].detach()[rows]
    return own


Normalise = Callable[[Tensor, float], Tensor]
"""What a layer gives, normalised and divided by a number."""


def _normalisation(
    node: Node, own: Mapping[str, Tensor], notes: dict[str, Any], *, frozen: bool
) -> Normalise:
    eps, weight, bias = node.attributes["eps"], own["weight"], own["bias"]
    if frozen:
        mean, variance = (own[role] for role in _STATISTICS)
        mean = mean - own.get("before", 0.0)
        return lambda x, unit: F.batch_norm(
            x, mean, variance, weight / unit, bias / unit, False, 0.0, eps
        )

    def normalise(x: Tensor, unit: float) -> Tensor:
        result, *statistics = normalized_by_itself(x, weight / unit, bias / unit, eps)
        for role, value in zip(_STATISTICS, statistics, strict=True):
            notes[node.parameters[role]] = value
        return result

    return normalise


def _either(condition: Callable[[], bool], first: Step, second: Step) -> Step:
    def run(*stored: Tensor) -> Tensor:
        return first(*stored) if condition() else second(*stored)

    return run


Measure = Callable[[str, Tensor, float, tuple[float, float]], None]
"""Takes down an edge, its values in units, what a unit is, and the ends of what will be clamped."""


def _measured_step(
    kernels: Kernels,
    network: Network,
    op: Operator,
    real: Step,
    normalise: Normalise | None,
    measure: Measure,
    notes: dict[str, Any],
) -> Step:
    inputs, out = [network.edges[edge] for edge in op.inputs], network.edges[op.output]
    if op.kind in GRID_PRESERVING:
        return _inheriting(op, kernels.move(op, inputs, out), notes)
    if op.activation not in CLAMPS:

        def step(*stored: Tensor) -> Tensor:
            x = real(*stored)
            x = applied(x if normalise is None else normalise(x, 1.0), op.activation)
            measure(op.output, x, 1.0, EVERYTHING)
            return kernels.store(quantize_edge(x, out), out)

        return step
    done, unit = finish(op.activation, out), step_size(out)
    low, high = clamp_range(op.activation, real_edge(out))

    def clamped(*stored: Tensor) -> Tensor:
        x = real(*stored)
        x = x.div_(unit) if normalise is None else normalise(x, unit)
        measure(op.output, x, unit, (low / unit, high / unit))
        return kernels.store(done(x), out)

    return clamped


def _plain_step(
    kernels: Kernels, network: Network, op: Operator, real: Step, normalise: Normalise | None
) -> Step:
    """The same without measuring, and with fewer passes over the values."""
    if normalise is None:
        return ranking_step(kernels, network, op)
    out = network.edges[op.output]
    if op.activation in CLAMPS:
        done, unit = finish(op.activation, out), step_size(out)
        return lambda *stored: kernels.store(done(normalise(real(*stored), unit)), out)

    def step(*stored: Tensor) -> Tensor:
        x = applied(normalise(real(*stored), 1.0), op.activation)
        return kernels.store(quantize_edge(x, out), out)

    return step


def _unrounded(kernels: Kernels, network: Network, op: Operator) -> Step:
    """What an operator gives before its activation and before it is put on codes."""
    inputs, out = [network.edges[edge] for edge in op.inputs], network.edges[op.output]
    bare, unrounded = replace(op, activation=None), real_edge(out)
    if op.kind in ("conv", "linear"):
        return kernels.layer(bare, inputs[0], unrounded)
    if op.kind == "add":
        return kernels.add(bare, inputs[0], inputs[1], unrounded)
    return loaded(kernels, operator_module(bare, inputs, unrounded), inputs, unrounded)


def _inheriting(op: Operator, step: Step, notes: dict[str, Any]) -> Step:
    """Moving values about makes none that are larger."""

    def run(*stored: Tensor) -> Tensor:
        if op.inputs[0] in notes:
            notes[op.output] = max(notes[edge] for edge in op.inputs)
        return step(*stored)

    return run


def _buffers(
    graph: Graph,
    tensors: State,
    kept: Mapping[str, np.ndarray],
    seen: Sequence[Mapping[str, Any]],
) -> dict[str, Tensor]:
    buffers, biases = batchnorm_buffers(graph, tensors), _biases_in_front(graph)
    for node in graph.nodes:
        for role in _STATISTICS:
            name = node.parameters.get(role, "")
            if seen and name in seen[0]:
                rows = torch.from_numpy(np.flatnonzero(kept[node.output]))
                buffers[name][rows] = sum(notes[name] for notes in seen) / len(seen)
                if name in biases:
                    buffers[name][rows] += tensors[biases[name][0]].detach()[rows]
    return buffers


def _narrow(network: Network) -> frozenset[str]:
    return frozenset(name for name, edge in network.edges.items() if edge.bits in NARROW)


def _ranges(
    graph: Graph,
    ranges: Mapping[str, ActivationRange],
    seen: Sequence[Mapping[str, Any]],
    narrow: Container[str],
) -> dict[str, ActivationRange]:
    """The largest of all batches, or of narrow edges, which are cut off anyway, the mean."""
    unsigned = nonnegative_edges(graph)
    found = {}
    for edge, own in ranges.items():
        limits = [notes[edge] for notes in seen if edge in notes] or [own.maximum]
        largest = float(np.mean(limits)) if edge in narrow else max(limits)
        found[edge] = ActivationRange(largest, edge not in unsigned)
    return found
