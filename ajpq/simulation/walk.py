"""Run a network operator by operator, whatever each of them computes with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ajpq.simulation.grids import quantize_edge
from ajpq.simulation.prefixes import Prefix, Prefixes, prefix_keys
from hw_models.network import Edge, Network, Operator

_MOST_ELEMENTS = 2**24  # of an edge at a time

Step = Callable[..., Tensor]
"""What the inputs of an operator hold -> what its output holds.

Leaves the inputs alone but for the one that :func:`ajpq.simulation.ranking.spare_input` names."""


def run_steps(
    network: Network,
    steps: Sequence[tuple[Operator, Step]],
    store: Callable[[Tensor, Edge], Tensor] = lambda codes, edge: codes,
    prefixes: Prefixes | None = None,
    images_at_once: int = 64,
) -> Callable[[Tensor], Tensor]:
    """Images to logits through ``steps``, one for every operator.

    Args:
        store: how the steps want the codes of an edge.
        prefixes: what networks that begin alike have answered.
        images_at_once: so many, which caches hold; fewer of them if they are large.
    """
    run = walk(network, steps, store, prefixes)
    largest = max(math.prod(edge.shape) for edge in network.edges.values())
    chunk = max(1, min(images_at_once, _MOST_ELEMENTS // largest))

    def simulate_all(images: Tensor) -> Tensor:
        with torch.inference_mode(), _exact_arithmetic():
            return torch.cat([run(part) for part in images.split(chunk)])

    return simulate_all


def walk(
    network: Network,
    steps: Sequence[tuple[Operator, Step]],
    store: Callable[[Tensor, Edge], Tensor],
    prefixes: Prefixes | None = None,
    notes: dict[str, Any] | None = None,
    more: Mapping[str, bytes] | None = None,
) -> Callable[[Tensor], Tensor]:
    """:func:`run_steps` on all images at once, with whatever arithmetic the caller has set.

    Args:
        notes: where the steps leave what else they find out, from the input on.
        more: what steps depend on beside the network, by operator (for ``prefixes``).
    """
    unread, start = expiring(network), network.edges[network.input]
    keys = [] if prefixes is None else prefix_keys(network, more or {})
    repeated = frozenset() if prefixes is None else prefixes.repeated(keys)
    found = {} if notes is None else notes

    def remember(done: int, values: Mapping[str, Tensor], images: Tensor) -> None:
        if prefixes is not None and len(values) == 1 and keys[done] in repeated:
            ((edge, value),) = values.items()
            prefixes.keep(keys[done], Prefix(edge, value, dict(found), images))

    def run(images: Tensor) -> Tensor:
        known = None if prefixes is None else prefixes.longest(keys, images)
        if known is None:
            done = 0
            layout = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
            values = {network.input: store(quantize_edge(layout, start), start)}
            remember(0, values, images)
        else:
            done, prefix = known
            values = {prefix.edge: prefix.values}
            found.update(prefix.noted)
        for number, (op, step) in enumerate(steps[done:], done):
            values[op.output] = step(*(values[edge] for edge in op.inputs))
            for edge in unread[op.name]:
                del values[edge]
            remember(number + 1, values, images)
        return values[network.output]

    return run


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """No reduced precision and no Winograd transform (NNPACK), whatever the caller has set."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.nnpack.flags(enabled=False), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def expiring(network: Network) -> dict[str, list[str]]:
    """Operator name to the edges that nothing reads after it."""
    last = {edge: op.name for op in network.operators for edge in op.inputs}
    last.pop(network.output, None)
    result: dict[str, list[str]] = {op.name: [] for op in network.operators}
    for edge, name in last.items():
        result[name].append(edge)
    return result
