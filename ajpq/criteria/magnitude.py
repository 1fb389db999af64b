"""Channels with large weights matter (Li et al., arXiv 1608.08710)."""

from __future__ import annotations

from torch import Tensor

from ajpq.criteria.statistics import ChannelStatistics


def l1_norm(statistics: ChannelStatistics) -> Tensor:
    """``[O]`` sum of absolute weights."""
    return statistics.weight.flatten(1).abs().sum(1)


def l2_norm(statistics: ChannelStatistics) -> Tensor:
    """``[O]`` Euclidean norm of the weights."""
    return statistics.weight.flatten(1).norm(dim=1)
