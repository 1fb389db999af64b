"""The networks that a target is tried on before anybody relies on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hw_models.base import Target
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Network
from hw_models.samples import conv_network, grouped_network, residual_network, with_widths

SHRINKING = ("channels", "bits")


@dataclass(frozen=True)
class Trials:
    """Networks with the widths that a target declares.

    Attributes:
        plain: whatever it must be able to price.
        pruned: half and all rows of a layer at 0 bits.
        alike: of one structure, different widths; an analytic target takes them at once.
        shrinking: for each of ``SHRINKING`` networks that have ever fewer of it.
    """

    plain: tuple[Network, ...]
    pruned: tuple[Network, ...]
    alike: tuple[Network, ...]
    shrinking: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)


def small_networks(target: Target) -> Trials:
    """Networks of every declared width, alone and mixed, and of every kind of convolution.

    Raises:
        AjpqError: the target declares no width.
    """
    widths, integers = live_widths(target), integer_widths(target)
    *narrow, top = activation_widths(target)
    mixed = with_widths(
        conv_network(bits=integers[-1]), np.random.default_rng(0), integers, "conv-mixed"
    )
    plain = [
        *(conv_network(bits=bits, name=f"conv-{bits}-bit") for bits in widths),
        grouped_network(bits=integers[-1]),
        residual_network(bits=integers[-1]),
        mixed,
    ]
    rng = np.random.default_rng(1)
    stored = [0, *integers] if 0 in target.weight_bits else integers
    alike = [
        with_widths(conv_network(channels=count), rng, stored, f"mixed-{count}")
        for count in (48, 32, 16)
    ]
    pruned = [with_zero_rows(residual_network(bits=integers[-1]), share) for share in (0.5, 1.0)]
    fewer = [conv_network(bits=widths[-1], channels=count) for count in (48, 32, 16, 8)]
    narrower = [conv_network(bits=bits) for bits in reversed(widths)]
    return Trials(
        plain=(
            *with_all_activations(plain, top),
            *(
                with_activations(
                    conv_network(bits=integers[-1], name=f"conv-activations-{bits}"), bits
                )
                for bits in narrow
            ),
        ),
        pruned=with_all_activations(pruned, top),
        alike=with_all_activations(alike, top),
        shrinking={
            "channels": with_all_activations(fewer, top),
            "bits": with_all_activations(narrower, top),
        },
    )


def forms_of(networks: Sequence[Network], target: Target) -> Trials:
    """The same, of one network that the target was made for, with ever fewer channels.

    Args:
        networks: the whole one first.
        target: decides the widths.
    """
    integers, top = integer_widths(target), activation_widths(target)[-1]
    whole, *smaller = networks
    rng = np.random.default_rng(0)
    even = [with_widths(whole, rng, [bits], f"{whole.name}, {bits} bit") for bits in integers]
    mixed = [with_widths(whole, rng, integers, f"{whole.name}, mixed") for _ in range(2)]
    plain = with_all_activations([*even, *mixed], top)
    fewer = with_all_activations(
        [with_widths(n, rng, [integers[-1]], n.name) for n in [whole, *smaller]], top
    )
    pruned = tuple(with_zero_rows(fewer[0], share) for share in (0.5, 1.0))
    return Trials(
        plain=(*plain, *fewer[1:]),
        pruned=pruned,
        alike=(*plain, *(pruned if 0 in target.weight_bits else ())),
        shrinking={"bits": plain[: len(integers)][::-1], "channels": fewer},
    )


def live_widths(target: Target) -> list[int]:
    """The declared weight widths but 0, ascending.

    Raises:
        AjpqError: there is none.
    """
    widths = sorted(set(target.weight_bits) - {0})
    if not widths:
        raise AjpqError(f"target {target.name!r} declares no weight width but 0")
    return widths


def integer_widths(target: Target) -> list[int]:
    """The live widths; real ones only where there are no codes."""
    widths = live_widths(target)
    return [bits for bits in widths if bits != FLOAT_BITS] or widths


def activation_widths(target: Target) -> list[int]:
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


def with_all_activations(networks: list[Network], bits: int) -> tuple[Network, ...]:
    """``with_activations`` of each."""
    return tuple(with_activations(network, bits) for network in networks)


def with_zero_rows(network: Network, share: float) -> Network:
    """The network with zero rows in its third layer, or the last if it has no third."""
    layer = network.layers[:3][-1]
    assert layer.weights is not None
    count = round(share * len(layer.weights.bits))
    parts = {name: np.array(getattr(layer.weights, name)) for name in ("codes", "bits", "bias")}
    for array in parts.values():
        array[:count] = 0
    changed = replace(layer, weights=replace(layer.weights, **parts))
    operators = tuple(changed if op is layer else op for op in network.operators)
    return replace(network, operators=operators)
