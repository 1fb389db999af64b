"""What an exported file has to answer, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ajpq.policy import CompressionPolicy
from ajpq.reference import prepare
from hw_models.network import Network

LEAST_AGREEMENT_PERCENT = 99.5
MOST_DIFFERENCE_POINTS = 0.1

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Every call gives the same images again: float32 ``[N, C, H, W]``, normalised, and ``[N]`` labels.
"""


@dataclass(frozen=True)
class Verdict:
    """What came out when a file was verified.

    Attributes:
        ok: it keeps what its format promises.
        note: what it was run with, or what is wrong.
        top1: percent of the images that the file classifies right; None if it cannot be run here.
        agreement: percent of the images to which file and reference give the same class.
    """

    ok: bool
    note: str
    top1: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, eq=False)
class Expected:
    """The compressed network, and the reference's answers on some images.

    Attributes:
        policy: None if the network came from a packed file, which holds none.
        logits: ``[N, classes]`` float32 of the reference.
        labels: ``[N]`` int64.
        on_batch: called after every batch that a file has been given.
    """

    network: Network
    policy: CompressionPolicy | None
    batches: Batches
    logits: np.ndarray
    labels: np.ndarray
    on_batch: Callable[[], None] = lambda: None

    @property
    def top1(self) -> float:
        """Percent of the images that the reference classifies right."""
        return top1(self.logits, self.labels)

    def images(self) -> Iterator[np.ndarray]:
        """One batch after the other, float32 ``[N, C, H, W]``."""
        for images, _ in self.batches():
            yield images.numpy()
            self.on_batch()

    def within_rounding(self, logits: np.ndarray, runner: str) -> Verdict:
        """For runtimes that round differently: nearly all classes, and the same accuracy."""
        found, same = self._compared(logits)
        difference = round(abs(found - self.top1), 9)
        note = runner
        if same < LEAST_AGREEMENT_PERCENT:
            note += f"; another class for more than {100 - LEAST_AGREEMENT_PERCENT} % of the images"
        if difference > MOST_DIFFERENCE_POINTS:
            note += f"; top-1 {difference:.2f} points away, more than {MOST_DIFFERENCE_POINTS}"
        return Verdict(note == runner, note, found, same)

    def bit_equal(self, logits: np.ndarray, runner: str) -> Verdict:
        """For what computes as the reference does: every bit of every logit."""
        equal = np.array_equal(logits, self.logits)
        different = "" if equal else f"; up to {np.abs(logits - self.logits).max():g} from the bits"
        return Verdict(equal, f"{runner}{different}", *self._compared(logits))

    def _compared(self, logits: np.ndarray) -> tuple[float, float]:
        same = (logits.argmax(1) == self.logits.argmax(1)).mean()
        return top1(logits, self.labels), 100 * float(same)


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent."""
    return 100.0 * int((logits.argmax(1) == labels).sum()) / len(labels)


def expected_of(
    network: Network,
    policy: CompressionPolicy | None,
    batches: Batches,
    on_batch: Callable[[], None] = lambda: None,
) -> Expected:
    """Run the reference on all images."""
    run = prepare(network)
    logits, labels = [], []
    for images, own in batches():
        logits.append(run(images).numpy())
        labels.append(own.numpy())
        on_batch()
    return Expected(network, policy, batches, np.concatenate(logits), np.concatenate(labels))
