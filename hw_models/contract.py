"""What every target promises, as checks that anyone can run.

``python -m ajpq.targets check NAME`` prints them; :mod:`hw_models.testing` runs them in pytest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from hw_models.analytic.base import AnalyticTarget
from hw_models.analytic.work import joined
from hw_models.base import NetworkCost, Target
from hw_models.checks import NETWORK_FIELDS, checked_cost
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Network
from hw_models.samples import conv_network, grouped_network, residual_network, with_widths

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; ``detail`` says what was found."""

    check: str
    passed: bool
    detail: str


def findings(target: Target) -> Iterator[Finding]:
    """Run all checks, one after the other; a check that raises has failed."""
    for name, check in CHECKS.items():
        try:
            yield Finding(name, True, check(target))
        except AjpqError as error:
            yield Finding(name, False, str(error))


def ask(target: Target, network: Network) -> NetworkCost:
    """``checked_cost``, with errors that say for which network."""
    try:
        return checked_cost(target, network)
    except AjpqError as error:
        raise AjpqError(f"network {network.name!r}: {error}") from error


def samples(target: Target) -> list[Network]:
    """Networks of every declared width, alone and mixed, and of every kind of convolution."""
    widths = live_widths(target)
    rng = np.random.default_rng(0)
    integers = [bits for bits in widths if bits != FLOAT_BITS] or widths
    found = [conv_network(bits=bits, name=f"conv-{bits}-bit") for bits in widths]
    found += [grouped_network(bits=integers[-1]), residual_network(bits=integers[-1])]
    found.append(with_widths(conv_network(bits=integers[-1]), rng, integers, "conv-mixed"))
    top = _activation_widths(target)[-1]
    narrow = [
        with_activations(conv_network(bits=integers[-1], name=f"conv-activations-{bits}"), bits)
        for bits in _activation_widths(target)[:-1]
    ]
    return [with_activations(network, top) for network in found] + narrow


def live_widths(target: Target) -> list[int]:
    """The declared weight widths but 0, ascending.

    Raises:
        AjpqError: there is none.
    """
    widths = sorted(set(target.weight_bits) - {0})
    if not widths:
        raise AjpqError(f"target {target.name!r} declares no weight width but 0")
    return widths


def _activation_widths(target: Target) -> list[int]:
    """The declared activation widths, ascending; real ones only where there are no codes."""
    widths = sorted(target.activation_bits)
    return [bits for bits in widths if bits != FLOAT_BITS] or widths


def with_activations(network: Network, bits: int) -> Network:
    """The network with codes of this width between its operators."""
    edges = {
        name: edge
        if edge.bits == FLOAT_BITS
        else replace(edge, bits=bits, scale=1.0 if bits == FLOAT_BITS else edge.scale)
        for name, edge in network.edges.items()
    }
    return replace(network, edges=edges)


def _figures_are_sound(target: Target) -> str:
    known: set[str] = set()
    for network in samples(target):
        cost = ask(target, network)
        known |= {name for name in NETWORK_FIELDS if getattr(cost, name) is not None}
    if not known:
        raise AjpqError("it answers nothing: every figure is None")
    return f"finite and not negative: {', '.join(sorted(known))}"


def _is_deterministic(target: Target) -> str:
    if target.measured:
        return "not asked of a target that measures"
    first = [ask(target, network) for network in samples(target)]
    second = [ask(target, network) for network in reversed(samples(target))][::-1]
    for one, other in zip(first, second, strict=True):
        for name in (*NETWORK_FIELDS, "per_layer"):
            before, after = getattr(one, name), getattr(other, name)
            if before != after:
                raise AjpqError(f"{name} was {before!r}, the second time {after!r}")
    return "equal questions, equal answers, in any order"


def _leaves_the_network_alone(target: Target) -> str:
    for network in samples(target):
        before = _content(network)
        ask(target, network)
        if _content(network) != before:
            raise AjpqError("cost() changes the network that it is given")
    return "the network stays as it is"


def _content(network: Network) -> list[Any]:
    arrays = [
        array.tobytes()
        for op in network.operators
        if op.weights is not None
        for array in (op.weights.codes, op.weights.scales, op.weights.bits, op.weights.bias)
    ]
    return [arrays, dict(network.edges), [dict(op.attributes) for op in network.operators]]


def _takes_pruned_rows(target: Target) -> str:
    if 0 not in target.weight_bits:
        return "not declared"
    top = _activation_widths(target)[-1]
    bits = [width for width in live_widths(target) if width != FLOAT_BITS] or [FLOAT_BITS]
    network = with_activations(residual_network(bits=bits[-1]), top)
    for share in (0.5, 1.0):
        ask(target, with_zero_rows(network, share))
    return "half and all of a layer's rows at 0 bits"


def with_zero_rows(network: Network, share: float) -> Network:
    """The network with zero rows in its third layer, whose channels a residual sum keeps."""
    layer = network.layers[2]
    assert layer.weights is not None
    count = round(share * len(layer.weights.bits))
    parts = {name: np.array(getattr(layer.weights, name)) for name in ("codes", "bits", "bias")}
    for array in parts.values():
        array[:count] = 0
    changed = replace(layer, weights=replace(layer.weights, **parts))
    operators = tuple(changed if op is layer else op for op in network.operators)
    return replace(network, operators=operators)


def _layers_add_up(target: Target) -> str:
    for network in samples(target):
        cost = ask(target, network)
        for name in ("latency_s", "energy_j"):
            parts = [getattr(layer, name) for layer in cost.per_layer]
            total = getattr(cost, name)
            if not parts or total is None or None in parts:
                continue
            if sum(parts) > total * (1 + 1e-6):
                raise AjpqError(f"the layers' {name} add up to {sum(parts)!r}, above {total!r}")
    return "no layer is larger than the whole"


def _is_monotone(target: Target) -> str:
    declared = target.monotone
    if not isinstance(declared, tuple) or not set(declared) <= set(SHRINKING):
        raise AjpqError(f"expected monotone to be a tuple out of {SHRINKING}, got {declared!r}")
    for what in declared:
        costs = [ask(target, network) for network in _shrinking(target, what)]
        for name in NETWORK_FIELDS:
            values = [getattr(cost, name) for cost in costs]
            if None not in values and any(b > a * (1 + _TOLERANCE) for a, b in pairwise(values)):
                raise AjpqError(f"with fewer {what}, {name} goes {values}")
    return f"never dearer with fewer {' or '.join(declared)}" if declared else "not declared"


SHRINKING = ("channels", "bits")


def _shrinking(target: Target, what: str) -> list[Network]:
    """From large to small, all layers at once."""
    widths, top = live_widths(target), _activation_widths(target)[-1]
    if what == "bits":
        found = [conv_network(bits=bits) for bits in reversed(widths)]
    else:
        found = [conv_network(bits=widths[-1], channels=count) for count in (48, 32, 16, 8)]
    return [with_activations(network, top) for network in found]


def _batches_agree(target: Target) -> str:
    if not isinstance(target, AnalyticTarget):
        return "no batched form"
    rng, top = np.random.default_rng(1), _activation_widths(target)[-1]
    widths = [bits for bits in target.weight_bits if bits != FLOAT_BITS]
    forms = [
        with_activations(with_widths(conv_network(channels=count), rng, widths, "mixed"), top)
        for count in (48, 32, 16)
    ]
    together = target.cost_batch(joined(forms))
    for index, network in enumerate(forms):
        alone = ask(target, network)
        for name in NETWORK_FIELDS:
            one, many = getattr(alone, name), getattr(together, name)
            if (one is None) != (many is None):
                raise AjpqError(f"{name} is {one!r} alone and {many!r} in a batch")
            if one is not None and not np.isclose(many[index], one, rtol=_TOLERANCE, atol=0):
                raise AjpqError(f"{name} is {one!r} alone and {many[index]!r} in a batch")
    return "one by one and all at once"


CHECKS: dict[str, Callable[[Target], str]] = {
    "figures": _figures_are_sound,
    "deterministic": _is_deterministic,
    "read-only": _leaves_the_network_alone,
    "pruned rows": _takes_pruned_rows,
    "layers": _layers_add_up,
    "monotone": _is_monotone,
    "batched": _batches_agree,
}
