"""What a searcher may ask of candidates, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy, LayerPolicy
from envs.slopes import Slopes
from envs.task import CompressionTask


class SearchOver(Exception):  # noqa: N818  not an error
    """Raised instead of an answer when nothing more may be asked."""


@dataclass(eq=False)
class Trials:
    """Answers for candidates, as long as they and their images last.

    The cost of a search is counted in images: shown to a network once, trained on three times.

    Attributes:
        judge: metrics of a policy as a candidate of a task.
        cost: images that these metrics took.
        most_candidates, most_images: nothing is answered beyond either.
        in_time: is there any time left?
        candidates, images: asked so far.
    """

    judge: Callable[[CompressionTask, CompressionPolicy], Metrics]
    cost: Callable[[Metrics], int]
    most_candidates: float = math.inf
    most_images: float = math.inf
    in_time: Callable[[], bool] = lambda: True
    candidates: int = 0
    images: int = 0
    _known: set[str] = field(default_factory=set)
    _whole: Trials | None = None

    @property
    def over(self) -> bool:
        """Will the next question be refused?"""
        used_up = self.candidates > self.most_candidates - 1 or self.images >= self.most_images
        return used_up or not self.in_time()

    @property
    def left(self) -> float:
        """How many more candidates as expensive as those so far there is room for."""
        each = max(self.images, 1) / max(self.candidates, 1)
        return min(self.most_candidates - self.candidates, (self.most_images - self.images) / each)

    def metrics(self, task: CompressionTask, policy: CompressionPolicy) -> Metrics:
        """Metrics of ``policy``.

        Raises:
            SearchOver: candidates, images or time are used up.
        """
        if self.over:
            raise SearchOver
        found = self.judge(task, policy)
        self.candidates += 1
        if policy.hash not in self._known:  # equal policies are judged once
            self._known.add(policy.hash)
            self.images += self.cost(found)
        return found

    def harm(self, task: CompressionTask, changes: Mapping[str, LayerPolicy]) -> float:
        """Nats of divergence when the uncompressed network has only ``changes``; paid for.

        Raises:
            SearchOver: candidates, images or time are used up.
        """
        if self.over:
            raise SearchOver
        self.charge(task.harm_images)
        return task.harm(changes)

    def slopes(self, task: CompressionTask, policy: CompressionPolicy) -> Slopes:
        """Slopes of a policy's network, for a task that has them; paid for.

        Raises:
            SearchOver: candidates, images or time are used up.
        """
        if self.over:
            raise SearchOver
        assert task.slopes is not None
        self.charge(task.slope_images)
        return task.slopes(policy)

    def charge(self, images: int) -> None:
        """Pay for images that were shown without a candidate, such as for sensitivities."""
        self.images += images
        if self._whole is not None:
            self._whole.charge(images)

    def part(self, share: float) -> Trials:
        """Trials with ``share`` of what is left here; what they cost is counted here too."""
        return Trials(
            judge=self.metrics,
            cost=self.cost,
            most_candidates=share * (self.most_candidates - self.candidates),
            most_images=share * (self.most_images - self.images),
            in_time=self.in_time,
            _whole=self,
        )
