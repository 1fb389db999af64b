"""Looks at a candidate in the midst of its training: is the rest of it worth while?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from torch import Tensor

from ajpq.compressed import State
from ajpq.evaluate import Images
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import OnState
from ajpq.finetune.tuning import calibrated, calibration_images
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem, network_of
from ajpq.selection.answers import answers_to
from ajpq.selection.fidelity import Rival, falls_short, hoped_for, logits_until_lost
from ajpq.simulation.ranking import prepare_ranking
from hw_models.network import Network

Gains = Sequence[tuple[float, ...]]
"""Of every candidate trained to the end: points of top-1 gained since each look."""

# Of the steps of a candidate's training.
SHARES = (0.25, 0.5)
# Fewer than all: who was shown all was judged in full.
_MOST_IMAGES = 512
# All looks together may cost this share of the training.
_WORTH = 0.1


class StoppedError(Exception):
    """A candidate was given up in the midst of its training.

    Attributes:
        network: as it was then.
        logits: ``[n, classes]`` of the first n images.
        hope: points that a candidate gains from there, in the middle of those seen.
    """

    def __init__(self, network: Network, logits: Tensor, hope: float) -> None:
        super().__init__("no hope is left")
        self.network, self.logits, self.hope = network, logits, hope


def images_of_a_look(sample: int) -> int:
    """How many of a sample of so many images a look shows at most."""
    return min(_MOST_IMAGES, sample // 2)


def look_steps(recipe: Recipe, train_images: int, shown: int) -> tuple[int, ...]:
    """After how many steps there are looks; none if they cost too much beside the training.

    Counted in images forwarded, of which a trained one is worth three.

    Args:
        shown: images of a look.
    """
    settings = recipe.calibration
    look = settings.batches * settings.batch_size + shown
    training = 3 * sum(s.total_steps(train_images) * s.batch_size for s in recipe.stages)
    if shown == 0 or len(SHARES) * look > _WORTH * training:
        return ()
    return tuple(math.ceil(share * recipe.steps(train_images)) for share in SHARES)


def looking(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    rival: Rival | None,
    gains: Gains | None,
    seen: list[Tensor],
) -> OnState:
    """A watch over the training of ``policy`` that ends it when hope is lost.

    It changes nothing of a training that goes on.

    Args:
        gains: None: there are no looks.
        seen: receives which images were classified right at each look, ``[count]`` bool.

    Returns:
        A function that raises :class:`StoppedError`.
    """
    count = images_of_a_look(len(problem.search_sample.labels))
    steps = look_steps(recipe, len(problem.split.train), count)

    def on_state(step: int, state: Callable[[], State]) -> None:
        if gains is None or step not in steps:
            return
        since = [each[len(seen)] for each in gains]
        hoped = hoped_for(rival, since, count)
        network, logits = look(problem, recipe, policy, state(), count, hoped)
        found = answers_to(problem.search_sample, logits)
        if falls_short(hoped, found):
            raise StoppedError(network, logits, median(since))
        seen.append(found.right)

    return on_state


def look(
    problem: Problem,
    recipe: Recipe,
    policy: CompressionPolicy,
    state: State,
    count: int,
    rival: Rival | None = None,
) -> tuple[Network, Tensor]:
    """What the candidate would be if its training ended with this ``state``.

    Returns:
        The network, and its logits ``[n, classes]`` of the first n images: ``count``, or as many
        as it took to see that it falls short of ``rival``.
    """
    images = calibration_images(problem, recipe.calibration)
    weights = calibrated(problem, policy, recipe.calibration, state, images)
    network = network_of(problem, policy, weights)
    sample = first(problem.search_sample, count)
    return network, logits_until_lost(prepare_ranking(network), sample, rival)


def gained(seen: Sequence[Tensor], right: Tensor) -> tuple[float, ...]:
    """Points of top-1 between each look and the end, on the images of the look.

    Args:
        right: ``[N]`` bool: what is classified right in the end.
    """
    return tuple(
        100 * float(right[: len(early)].double().mean() - early.double().mean()) for early in seen
    )


def first(sample: Images, count: int) -> Images:
    """The first images of a sample."""
    logits = sample.float_logits
    return Images(
        sample.images[:count], sample.labels[:count], None if logits is None else logits[:count]
    )
