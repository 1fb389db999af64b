"""Channels whose removal changes the loss matter (Molchanov et al., arXiv 1906.10771, eq. 8)."""

from __future__ import annotations

from torch import Tensor

from ajpq.criteria.statistics import ChannelStatistics


def first_order_taylor(statistics: ChannelStatistics) -> Tensor:
    """``[O]`` squared first-order change of the loss when the channel is set to zero."""
    return (statistics.weight * statistics.gradient).flatten(1).sum(1).square()
