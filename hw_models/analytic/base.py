"""What the analytic cost models share: prices per layer, checked and added up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from hw_models.analytic.work import WIDTHS, Work, work_of
from hw_models.base import LayerCost, NetworkCost, Target
from hw_models.errors import AjpqError
from hw_models.network import Network


@dataclass(frozen=True, eq=False)
class Prices:
    """``[P, L]`` of every layer; None where the model does not know."""

    latency_s: np.ndarray
    energy_j: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class BatchCost:
    """``[P]`` of whole networks; None where the model does not know."""

    latency_s: np.ndarray
    energy_j: np.ndarray | None
    flash_bytes: np.ndarray
    peak_activation_bytes: np.ndarray


class AnalyticTarget(Target):
    """A device described by a published formula and its parameters.

    Convolutions and linear layers are priced; what stands between them is not in the formulas.
    Zero rows cost no time, because these devices go through channels in groups of equal width, but
    they are written like any output. ``flash_bytes`` are the codes packed to their widths and, per
    row, a width, a scale and a bias.

    Subclasses are frozen dataclasses; every number in them needs an entry in ``source``.
    """

    source: Mapping[str, str]
    monotone = ("channels", "bits")
    _NO_NUMBERS: ClassVar[frozenset[str]] = frozenset({"name", "source"})

    def __post_init__(self) -> None:
        """Is there a source for every parameter, and for nothing else?"""
        numbers = {field.name for field in fields(self)} - self._NO_NUMBERS  # type: ignore[arg-type]
        for name in sorted(numbers - set(self.source)):
            raise ValueError(f"no source for {name!r}")
        for name in sorted(set(self.source) - numbers):
            raise ValueError(f"a source for {name!r}, which is no parameter")

    @abstractmethod
    def price(self, work: Work) -> Prices:
        """Price every layer of every policy."""

    def cost_batch(self, work: Work) -> BatchCost:
        """All policies at once; equal to :meth:`cost` of each.

        Raises:
            AjpqError: a layer has a width that the device does not compute with.
        """
        return self._total(work, self._checked_prices(work))

    def cost(self, network: Network) -> NetworkCost:
        """Price one network.

        Raises:
            AjpqError: a layer has a width that the device does not compute with.
        """
        work = work_of(network)
        prices = self._checked_prices(work)
        total, energy = self._total(work, prices), prices.energy_j
        return NetworkCost(
            latency_s=float(total.latency_s[0]),
            energy_j=None if total.energy_j is None else float(total.energy_j[0]),
            flash_bytes=int(total.flash_bytes[0]),
            peak_activation_bytes=int(total.peak_activation_bytes[0]),
            per_layer=tuple(
                LayerCost(
                    name,
                    latency_s=float(prices.latency_s[0, index]),
                    energy_j=None if energy is None else float(energy[0, index]),
                    flash_bytes=int(work.stored_bytes[0, index]),
                )
                for index, name in enumerate(work.geometry.names)
            ),
        )

    def _total(self, work: Work, prices: Prices) -> BatchCost:
        return BatchCost(
            latency_s=prices.latency_s.sum(-1),
            energy_j=None if prices.energy_j is None else prices.energy_j.sum(-1),
            flash_bytes=work.stored_bytes.sum(-1) + work.other_bytes,
            peak_activation_bytes=work.peak_activation_bytes,
        )

    def _checked_prices(self, work: Work) -> Prices:
        self._check_widths(work)
        prices = self.price(work)
        for name in ("latency_s", "energy_j"):
            values = getattr(prices, name)
            if values is not None:
                self._check_values(name, values, work)
        return prices

    def _check_values(self, name: str, values: np.ndarray, work: Work) -> None:
        label, shape = f"target {self.name!r}", work.inputs.shape
        if np.shape(values) != shape:
            raise AjpqError(f"{label}: expected {name} of shape {shape}, got {np.shape(values)}")
        wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            policy, index = wrong[0]
            raise AjpqError(
                f"{label}, layer {work.geometry.names[index]!r}: expected a finite number >= 0 for "
                f"{name}, got {values[policy, index]!r}"
            )

    def _check_widths(self, work: Work) -> None:
        known = np.isin(WIDTHS, self.weight_bits)
        for index, column in zip(*np.nonzero((work.rows.any(0)) & ~known), strict=True):
            self._refuse(work, int(index), "weights", self.weight_bits, WIDTHS[column])
        present = work.rows.any(-1)
        foreign = present & ~np.isin(work.input_bits, self.activation_bits)
        for policy, index in np.argwhere(foreign):
            bits = int(work.input_bits[policy, index])
            self._refuse(work, int(index), "activations", self.activation_bits, bits)

    def _refuse(self, work: Work, index: int, what: str, known: tuple[int, ...], bits: int) -> None:
        name = work.geometry.names[index]
        raise AjpqError(
            f"target {self.name!r} has {what} of {known} bits, layer {name!r} has {bits}"
        )
