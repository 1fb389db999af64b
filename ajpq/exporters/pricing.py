"""What a network costs on every shipped target that can run it."""

from __future__ import annotations

from dataclasses import dataclass

from ajpq.config.files import shipped
from hw_models.base import NetworkCost, Target
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.registry import load_target


@dataclass(frozen=True)
class Price:
    """Costs on one target; ``baseline`` is None where only the compressed network is known."""

    target: str
    found: NetworkCost
    baseline: NetworkCost | None = None


def prices(network: Network, baseline: Network | None) -> list[Price]:
    """One for each shipped target; measured ones and those that refuse the network are left out.

    Args:
        network: the compressed network.
        baseline: what it is compared with, the unpruned int8 network for example.
    """
    targets = [load_target(name) for name in shipped("targets")]
    found = []
    for target in targets:
        cost = None if target.measured else _cost(target, network)
        if cost is not None:
            before = None if baseline is None else _cost(target, baseline)
            found.append(Price(target.name, cost, before))
    return found


def _cost(target: Target, network: Network) -> NetworkCost | None:
    stored = {int(bits) for op in network.layers if op.weights for bits in op.weights.bits}
    read = {network.edges[op.inputs[0]].bits for op in network.layers}
    if not stored <= set(target.weight_bits) or not read <= set(target.activation_bits):
        return None
    try:
        return checked_cost(target, network)
    except AjpqError:  # a compiler that is not installed, an operator that it does not know
        return None
