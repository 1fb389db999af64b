"""Channels that BatchNorm amplifies matter (network slimming, Liu et al., arXiv 1708.06519)."""

from __future__ import annotations

from torch import Tensor

from ajpq.criteria.statistics import ChannelStatistics


def batchnorm_scale(statistics: ChannelStatistics) -> Tensor:
    """``[O]`` absolute BatchNorm factor."""
    return statistics.gamma.abs()
