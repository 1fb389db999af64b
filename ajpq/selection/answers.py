"""What networks answered to the images that they have been shown."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ajpq.evaluate import Images, kl_of_images


@dataclass(frozen=True, eq=False)
class Shown:
    """What a network answered to the first n of some images.

    Attributes:
        right: ``[n]`` bool: which it classifies right.
        kl: ``[n]`` float64, nats of divergence from the uncompressed network on each.
    """

    right: Tensor
    kl: Tensor

    def __len__(self) -> int:
        return len(self.right)

    def __add__(self, more: Shown) -> Shown:
        return Shown(torch.cat([self.right, more.right]), torch.cat([self.kl, more.kl]))

    def first(self, count: int) -> Shown:
        """The same of fewer images."""
        return Shown(self.right[:count], self.kl[:count])

    def points(self, kl_weight: float) -> Tensor:
        """``[n]`` float64: what each image adds to the reward, in points of top-1."""
        return 100 * (self.right.double() - kl_weight * self.kl)


NOTHING = Shown(torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a candidate answered.

    Attributes:
        sample: to the first images of the sample.
        calibrating: to the first batch that it has been calibrated with.
    """

    sample: Shown = NOTHING
    calibrating: Shown = NOTHING


def answers_to(images: Images, logits: Tensor, begin: int = 0) -> Shown:
    """What ``logits [n, classes]`` say of n of ``images``, from number ``begin`` on.

    Nothing diverges where it is not known what the uncompressed network answers.
    """
    seen = slice(begin, begin + len(logits))
    if images.float_logits is None:
        kl = torch.zeros(len(logits), dtype=torch.float64)
    else:
        kl = kl_of_images(images.float_logits[seen], logits)
    return Shown(logits.argmax(1) == images.labels[seen], kl)


def without_divergence(right: Tensor) -> Shown:
    """Answers of which only ``right [n]`` is known or counts."""
    return Shown(right, torch.zeros(len(right), dtype=torch.float64))
