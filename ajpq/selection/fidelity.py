"""How many images it takes to tell a candidate from one that it has to beat.

Both have seen the same images, so what counts is where they differ: in what is classified right
and, where the reward counts it, in the divergence from the uncompressed network. After 128 images,
after 256, and then whenever a third to a half more have been seen, a candidate is given up if the
confidence interval of the points of reward by which it is worse lies above what is allowed. Most
candidates of a search are far worse than its best, and a few hundred images show it.

Before that it is given up by the same rule after the first batch of its calibration, whose answers
cost nothing more. These are answers of a network that is not yet the candidate: the batch is
normalised by itself, on the grids of the uncompressed network. Single candidates do better or worse
there than in the end, and near chance, where ranks depend on little, four batches with their
narrower intervals would give up 8 % of the finalists; one does not. Divergences tell more than
ranks, and would give finalists up even so (3 of 37 in one search on bitfusion): where they are
rewarded, and against the uncompressed network, which has learned training images by heart, only the
sample counts.

A candidate that is trained before it is judged is looked at in the midst of that too, and given up
unless hope is left: the interval has to lie above what is allowed plus the largest number of points
that any candidate of this search has gained between that look and the end of its training. Of n + 1
gains in random order the last exceeds all others with probability 1 / (n + 1): for no larger share
of the candidates is that hope too small, and wronged are only those whom it leaves short of their
rival by more than the interval. Before there are eight gains nobody is given up. Gains are known of
candidates that were trained to the end and saw all images; those before the finals are filled are
among them, poor ones too, which gain most. ``benchmarks/throughput_tuned.py`` counts the errors.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ajpq.evaluate import Images
from ajpq.selection.answers import NOTHING, Answers, Shown, answers_to

_FIRST_LOOK = 128
# Images shown together at most; larger portions, of odd sizes above all, were slower.
_AT_ONCE = 512
# One-sided, of the normal distribution: half a percent at each look.
_DEVIATIONS = 2.58
# So many candidates have to be trained in full before one is given up in the midst of it.
ENOUGH_GAINS = 8
# Points: one of two networks classifies an image right.
_DISAGREEMENT = 100.0


@dataclass(frozen=True, eq=False)
class Rival:
    """What a candidate has to beat, or may lose so much against.

    Attributes:
        answers: of it to the whole sample, and to the first batch of its calibration or to none.
        allowed: points of reward that a candidate may be worse.
        kl_weight: of the divergence, beside accuracy, in the reward.
    """

    answers: Answers
    allowed: float = 0.0
    kl_weight: float = 0.0

    def lost(self, known: Shown, found: Shown) -> tuple[float, float]:
        """:func:`lost_points` of reward against what is ``known`` of the rival."""
        return lost_points(known.points(self.kl_weight), found.points(self.kl_weight))


def lost_points(known: Tensor, found: Tensor) -> tuple[float, float]:
    """By how many points a candidate is worse on the images seen, and a lower bound of that.

    For accuracy alone the interval is that of Agresti and Min (2005) for paired proportions: Wald's
    after half a disagreement either way has been added to what was seen twice over. Differences of
    divergences enter Wald's interval like any numbers.

    Args:
        known: ``[N]`` points of its rival on each image.
        found: ``[n]`` points of the candidate on the first n.
    """
    lost = known[: len(found)] - found
    count = len(lost) + 2
    mean = float(lost.sum()) / count
    square = (float(lost.square().sum()) + 2 * _DISAGREEMENT**2) / count
    deviation = math.sqrt(max(square - mean**2, 0.0) / count)
    return float(lost.mean()), mean - _DEVIATIONS * deviation


def logits_until_lost(
    run: Callable[[Tensor], Tensor], sample: Images, rival: Rival | None
) -> Tensor:
    """Logits ``[n, classes]`` of the first n images: all of them, or as many as it took to see
    that the candidate falls short of ``rival``.

    Args:
        rival: None to see all; in the same portions, so that the answers are the same bits.
        sample: in random order, so that its beginning is like the rest.
    """
    parts, found = list[Tensor](), NOTHING
    for begin, end in itertools.pairwise((0, *_looks(len(sample.labels)))):
        new = [run(portion) for portion in sample.images[begin:end].split(_AT_ONCE)]
        parts += new
        if rival is not None:
            found += answers_to(sample, torch.cat(new), begin)
            if falls_short(rival, found):
                break
    return torch.cat(parts)


def images_until_lost(found: Shown, rival: Rival | None) -> int:
    """How many images :func:`logits_until_lost` shows to a candidate whose answers are known.

    Args:
        found: its answers to all of them.
    """
    looks = (end for end in _looks(len(found)) if falls_short(rival, found.first(end)))
    return next(looks, len(found))


def _looks(count: int) -> Iterator[int]:
    """After how many of ``count`` images there are looks; the last is after all.

    After a third to a half more each time, in portions of few sizes: kernels are made for each.
    128, 256, 384, 512, 768, 1,024, 1,536, ...
    """
    look = _FIRST_LOOK
    while look < count:
        yield look
        look += max(1 << (look.bit_length() - 2), _FIRST_LOOK)
    yield count


def hoped_for(rival: Rival | None, gains: Sequence[float], count: int) -> Rival | None:
    """What a candidate in the midst of its training has to keep up with; None: nothing yet.

    Args:
        gains: points of top-1 that others have gained between this look and the end.
        count: images of the look.
    """
    if rival is None or len(gains) < ENOUGH_GAINS:
        return None
    seen = Answers(rival.answers.sample.first(count))
    return replace(rival, answers=seen, allowed=rival.allowed + max(0.0, *gains))


def falls_short(rival: Rival | None, found: Shown) -> bool:
    """Is it clear after these images of the sample that the candidate is worse than it may be?"""
    return rival is not None and rival.lost(rival.answers.sample, found)[1] > rival.allowed


def falls_short_calibrating(rival: Rival | None, found: Shown) -> bool:
    """Is it clear after the first batch of its calibration, if that counts?"""
    if rival is None or rival.kl_weight > 0 or len(rival.answers.calibrating) == 0:
        return False
    return rival.lost(rival.answers.calibrating, found)[1] > rival.allowed
