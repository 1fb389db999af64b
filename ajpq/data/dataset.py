"""What a data set is: uint8 images and labels, and how to normalise and augment them."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from hw_models.errors import AjpqError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image.

    Attributes:
        padding: black pixels added on every side before a random crop of the original size.
        flip: whether half of the images are mirrored left to right.
    """

    padding: int = 0
    flip: bool = False


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images for training and for the final test; validation images are split off the former.

    Attributes:
        name: what the user called it.
        train_images: ``[N, C, H, W]`` uint8, usually memory-mapped.
        train_labels: ``[N]`` int64 in ``[0, len(classes))``.
        test_images: like ``train_images``, of the same ``C, H, W``.
        test_labels: like ``train_labels``.
        classes: name of every class.
        mean: per channel, of pixel values in 0..1.
        std: per channel, of pixel values in 0..1.
        augmentation: for training batches.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = Augmentation()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def check_kinds(dataset: Dataset) -> None:
    """Is every field of the kind that :class:`Dataset` says, whatever is in it?

    Raises:
        AjpqError: the first that is not.
    """
    for what in ("train_images", "train_labels", "test_images", "test_labels"):
        _expect(dataset, what, np.ndarray, "a NumPy array")
    for what in ("classes", "mean", "std"):
        _expect(dataset, what, tuple | list | np.ndarray, "a tuple")
    _expect(dataset, "augmentation", Augmentation, "an Augmentation")


def _expect(dataset: Dataset, what: str, kind: Any, name: str) -> None:
    value = getattr(dataset, what)
    if not isinstance(value, kind):
        found = type(value).__name__
        raise AjpqError(f"data {dataset.name!r}: expected {what} as {name}, got {found}")


def check_dataset(dataset: Dataset) -> Dataset:
    """Return ``dataset`` if it keeps what :class:`Dataset` promises.

    Raises:
        AjpqError: the first promise that is broken.
    """
    label = f"data {dataset.name!r}"
    _check_part(f"{label}, train", dataset.train_images, dataset.train_labels, dataset.classes)
    _check_part(f"{label}, test", dataset.test_images, dataset.test_labels, dataset.classes)
    if dataset.train_images.shape[1:] != dataset.test_images.shape[1:]:
        train, test = dataset.train_images.shape[1:], dataset.test_images.shape[1:]
        raise AjpqError(f"{label}: train images are {train}, test images are {test}")
    _check_statistics(label, dataset)
    if dataset.augmentation.padding < 0:
        raise AjpqError(f"{label}: expected padding >= 0, got {dataset.augmentation.padding}")
    return dataset


def _check_part(
    label: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        found = f"{images.dtype} {images.shape}"
        raise AjpqError(f"{label}: expected images as uint8 [N, C, H, W], got {found}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        found = f"{labels.dtype} {labels.shape}"
        raise AjpqError(f"{label}: expected labels as int64 [{len(images)}], got {found}")
    if labels.min() < 0 or labels.max() >= len(classes):
        found = f"{labels.min()}..{labels.max()}"
        raise AjpqError(f"{label}: expected labels in 0..{len(classes) - 1}, got {found}")


def _check_statistics(label: str, dataset: Dataset) -> None:
    channels = dataset.image_shape[0]
    for what, values in (("mean", dataset.mean), ("std", dataset.std)):
        if len(values) != channels:
            raise AjpqError(
                f"{label}: expected one {what} per channel ({channels}), got {len(values)}"
            )
        if not np.isfinite(values).all():
            raise AjpqError(f"{label}: expected a finite {what}, got {tuple(values)}")
    if min(dataset.std) <= 0:
        raise AjpqError(f"{label}: expected std > 0, got {tuple(dataset.std)}")


def fingerprint(dataset: Dataset) -> str:
    """16 hex digits that change with any pixel, label, class name, statistic or augmentation."""
    parts = [
        zlib.crc32(np.ascontiguousarray(array).data)
        for array in (
            dataset.train_images,
            dataset.train_labels,
            dataset.test_images,
            dataset.test_labels,
        )
    ]
    words = (parts, dataset.classes, dataset.mean, dataset.std, astuple(dataset.augmentation))
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]
