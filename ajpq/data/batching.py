"""From a data set to batches of normalised tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ajpq.data.augment import augment, cut_out
from ajpq.data.dataset import Dataset
from hw_models.errors import AjpqError

# Generators with different uses must not share a stream, whatever seed and epoch are.
_SPLIT_STREAM, _ORDER_STREAM, _AUGMENTATION_STREAM = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Split:
    """Sorted int64 indices into the training images; the two do not overlap."""

    train: np.ndarray
    validation: np.ndarray


def split(dataset: Dataset, seed: int, validation_share: float = 0.1) -> Split:
    """Set part of the training images aside for validation, the same share of every class.

    Args:
        dataset: its training images are split, its test images are not looked at.
        seed: equal seeds give equal splits.
        validation_share: rounded per class; a class keeps at least one image on either side, as
            long as it has two.

    Raises:
        AjpqError: the share is not between 0 and 1, or no class has two images.
    """
    if not 0 < validation_share < 1:
        raise AjpqError(f"expected 0 < validation_share < 1, got {validation_share}")
    rng = np.random.default_rng((_SPLIT_STREAM, seed))
    chosen = np.zeros(len(dataset.train_labels), dtype=bool)
    for label in np.unique(dataset.train_labels):
        members = rng.permutation(np.flatnonzero(dataset.train_labels == label))
        wanted = max(1, round(len(members) * validation_share))
        chosen[members[: min(wanted, len(members) - 1)]] = True
    if not chosen.any():
        raise AjpqError(
            f"data {dataset.name!r}: expected a class with two training images at least, one of "
            "them for validation"
        )
    return Split(train=np.flatnonzero(~chosen), validation=np.flatnonzero(chosen))


def normalize(images: np.ndarray, dataset: Dataset) -> Tensor:
    """``(pixel / 255 - mean) / std`` in float32, the arithmetic of torchvision's transforms.

    Args:
        images: ``[N, C, H, W]`` uint8.
        dataset: gives mean and standard deviation per channel.

    Returns:
        ``[N, C, H, W]`` float32.
    """
    mean = torch.tensor(dataset.mean, dtype=torch.float32).view(-1, 1, 1)
    std = torch.tensor(dataset.std, dtype=torch.float32).view(-1, 1, 1)
    return torch.from_numpy(np.array(images)).float().div_(255).sub_(mean).div_(std)


def batches(
    dataset: Dataset, indices: np.ndarray, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training images as they are, in the order of ``indices``; the last batch may be smaller.

    Yields:
        ``[B, C, H, W]`` float32 normalised images, ``[B]`` int64 labels.
    """
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        labels = torch.from_numpy(np.array(dataset.train_labels[chosen]))
        yield normalize(dataset.train_images[chosen], dataset), labels


def test_batches(dataset: Dataset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All test images in order; for the final report of a run and nothing else.

    Yields:
        Like :func:`batches`.
    """
    for start in range(0, len(dataset.test_labels), batch_size):
        part = slice(start, start + batch_size)
        labels = torch.from_numpy(np.array(dataset.test_labels[part]))
        yield normalize(dataset.test_images[part], dataset), labels


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest takes the name for a test


def training_batches(
    dataset: Dataset,
    indices: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    cutout: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, augmented, full batches only.

    ``cutout`` is the side of the square that every image loses (:func:`cut_out`).

    Batch ``b`` depends on the arguments and ``b`` alone, so an epoch can be repeated or entered
    in the middle (``itertools.islice``) without replaying what came before it.

    Yields:
        ``[batch_size, C, H, W]`` float32 normalised images, ``[batch_size]`` int64 labels.

    Raises:
        AjpqError: there are fewer images than one batch.
    """
    if not 0 < batch_size <= len(indices):
        raise AjpqError(f"expected 1 <= batch size <= {len(indices)} images, got {batch_size}")
    order = np.random.default_rng((_ORDER_STREAM, seed, epoch)).permutation(indices)
    for batch in range(len(order) // batch_size):
        chosen = order[batch * batch_size : (batch + 1) * batch_size]
        rng = np.random.default_rng((_AUGMENTATION_STREAM, seed, epoch, batch))
        images = augment(dataset.train_images[chosen], dataset.augmentation, rng)
        labels = torch.from_numpy(np.array(dataset.train_labels[chosen]))
        yield normalize(cut_out(images, cutout, rng), dataset), labels
