"""How many images it takes to tell a candidate from one that it has to beat.

Both have seen the same images, so what counts is where they disagree. After 128 images, after 256,
and then whenever a third to a half more have been seen, a candidate is given up if the confidence
interval of the share of images by which it is worse lies above what is allowed. Most candidates of
a search are far worse than its best, and a few hundred images show it.

Before that it is given up by the same rule after the first batch of its calibration, whose answers
cost nothing more. These are answers of a network that is not yet the candidate: the batch is
normalised by itself, on the grids of the uncompressed network. Single candidates do better or worse
there than in the end, and near chance, where ranks depend on little, four batches with their
narrower intervals would give up 8 % of the finalists; one does not. Against the uncompressed
network, which has learned training images by heart, only the sample counts.

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

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ajpq.evaluate import Images

_FIRST_LOOK = 128
# One-sided, of the normal distribution: half a percent at each look.
_DEVIATIONS = 2.58
# So many candidates have to be trained in full before one is given up in the midst of it.
ENOUGH_GAINS = 8


UNSEEN = torch.zeros(0, dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a candidate classifies right.

    Attributes:
        right: ``[n]`` bool, of the first n images of the sample.
        calibrating: ``[m]`` bool, of the first batch that it has been calibrated with.
    """

    right: Tensor = UNSEEN
    calibrating: Tensor = UNSEEN


@dataclass(frozen=True, eq=False)
class Rival:
    """What a candidate has to beat, or may lose so much against.

    Attributes:
        answers: of it to the whole sample, and to the first batch of its calibration or to none.
        allowed: points of top-1 that a candidate may be worse.
    """

    answers: Answers
    allowed: float = 0.0

    @property
    def top1(self) -> float:
        """Percent of the sample."""
        return 100 * float(self.answers.right.double().mean())


def lost_points(known: Tensor, found: Tensor) -> tuple[float, float]:
    """By how many points a candidate is worse on the images seen, and a lower bound of that.

    The interval is that of Agresti and Min (2005) for paired proportions: Wald's after half a
    disagreement either way has been added to what was seen twice over.

    Args:
        known: ``[N]`` bool: which images its rival classifies right.
        found: ``[n]`` bool: which of the first n the candidate does.
    """
    known = known[: len(found)]
    worse, better = int((known & ~found).sum()), int((~known & found).sum())
    count = len(found) + 2
    mean = (worse - better) / count
    deviation = math.sqrt((worse + better + 2) / count - mean**2) / math.sqrt(count)
    return 100 * (worse - better) / len(found), 100 * (mean - _DEVIATIONS * deviation)


def logits_until_lost(
    run: Callable[[Tensor], Tensor], sample: Images, rival: Rival | None
) -> Tensor:
    """Logits ``[n, classes]`` of the first n images: all of them, or as many as it took to see
    that the candidate falls short of ``rival``.

    Args:
        rival: None to see all; in the same portions, so that the answers are the same bits.
        sample: in random order, so that its beginning is like the rest.
    """
    parts: list[Tensor] = []
    seen, look = 0, _FIRST_LOOK
    while seen < len(sample.labels):
        parts.append(run(sample.images[seen:look]))
        seen = min(look, len(sample.labels))
        right = torch.cat(parts).argmax(1) == sample.labels[:seen]
        if falls_short(rival, right):
            break
        look = _next_look(look)
    return torch.cat(parts)


def _next_look(look: int) -> int:
    """More images by a third to a half, in portions of few sizes: kernels are made for each.

    128, 256, 384, 512, 768, 1,024, 1,536, ...
    """
    return look + max(1 << (look.bit_length() - 2), _FIRST_LOOK)


def hoped_for(rival: Rival | None, gains: Sequence[float], count: int) -> Rival | None:
    """What a candidate in the midst of its training has to keep up with; None: nothing yet.

    Args:
        gains: points of top-1 that others have gained between this look and the end.
        count: images of the look.
    """
    if rival is None or len(gains) < ENOUGH_GAINS:
        return None
    seen = Answers(rival.answers.right[:count])
    return Rival(seen, rival.allowed + max(0.0, *gains))


def falls_short(rival: Rival | None, right: Tensor) -> bool:
    """Is it clear after these images of the sample that the candidate is worse than it may be?"""
    return rival is not None and lost_points(rival.answers.right, right)[1] > rival.allowed


def falls_short_calibrating(rival: Rival | None, calibrating: Tensor) -> bool:
    """Is it clear after the first batch of its calibration, if the rival has answers to it?"""
    if rival is None or len(rival.answers.calibrating) == 0:
        return False
    return lost_points(rival.answers.calibrating, calibrating)[1] > rival.allowed
