"""What a target is: a cost model, the widths it can hold, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from hw_models.network import Network


@dataclass(frozen=True)
class LayerCost:
    """What one operator contributes; ``None`` where the target does not know."""

    name: str
    latency_s: float | None = None
    energy_j: float | None = None
    flash_bytes: int | None = None


@dataclass(frozen=True)
class NetworkCost:
    """What one inference of a network costs on a target; ``None`` where it does not know.

    Attributes:
        latency_s: seconds for one image.
        energy_j: joules for one image.
        flash_bytes: bytes that the device stores.
        peak_activation_bytes: largest sum of live activations.
    """

    latency_s: float | None = None
    energy_j: float | None = None
    flash_bytes: int | None = None
    peak_activation_bytes: int | None = None
    per_layer: tuple[LayerCost, ...] = ()


class Target(ABC):
    """A device. Subclasses set the attributes and answer :meth:`cost`.

    Attributes:
        name: how results call it.
        weight_bits: the widths that a weight row may have, 0 (pruned) included.
        activation_bits: the widths that an edge may have.
        channel_granularity: output channels are computed in blocks of so many; live channels that
            do not fill a block are free.
        width_granularity: rows of equal width are computed in blocks of so many, whatever their
            order, and one that is not full costs as much: a search mixes no widths within one.
        monotone: what never makes a network dearer when all layers get less of it: ``"channels"``,
            ``"bits"`` (of the weights), both or, by default, neither.
        measured: answers are measurements, with noise in them: a search fits a model to some of
            them and asks that in its loop.
        slow: an answer takes a compiler: between the candidates that it proposes, a search guesses
            from earlier answers about operators of the same shape.
        time_limit_s: an answer that takes longer is an error.
    """

    name: str
    weight_bits: tuple[int, ...] = (0, 2, 3, 4, 5, 6, 7, 8, 32)
    activation_bits: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 32)
    channel_granularity: int = 1
    width_granularity: int = 1
    monotone: tuple[str, ...] = ()
    measured: bool = False
    slow: bool = False
    time_limit_s: float = 60.0

    @abstractmethod
    def cost(self, network: Network) -> NetworkCost:
        """Price one network; deterministic, unless it is ``measured``, and safe to call from
        several processes.

        A search asks about a candidate that is not trained before it is calibrated: shapes, widths
        and codes are final, scales and biases are not. What it ends with is priced as it is.
        """

    def costs(self, networks: Sequence[Network]) -> list[NetworkCost]:
        """Price several; equal to asking one after the other."""
        return [self.cost(network) for network in networks]
