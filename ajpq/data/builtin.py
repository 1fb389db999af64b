"""The data sets that have a name."""

from __future__ import annotations

import http.client
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from ajpq.data.cache import cache_folder, cached_arrays
from ajpq.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Dataset
from hw_models.errors import AjpqError

CIFAR10_CLASSES = (  # in the order of the labels
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_DIGITS_TEST_EVERY = 5  # one image in five of every class, in the order of the collection


def load_digits() -> Dataset:
    """Scikit-learn's 1,797 handwritten digits, 8 x 8 grey, 0..16 scaled to 0..255.

    The test images are every fifth image of each class, so they never change.
    """
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    is_test = _every_nth_of_a_class(labels, _DIGITS_TEST_EVERY)
    train = images[~is_test]
    return Dataset(
        "digits",
        train,
        labels[~is_test],
        images[is_test],
        labels[is_test],
        classes=tuple(str(name) for name in bunch.target_names),
        mean=(round(float(train.mean()) / 255, 4),),
        std=(round(float(train.std()) / 255, 4),),
        augmentation=Augmentation(padding=1, flip=False),
    )


def load_cifar(name: str, classes: int) -> Dataset:
    """CIFAR-10 or CIFAR-100 (Krizhevsky, 2009), downloaded by torchvision on first use.

    Normalised with the ImageNet statistics, because the public checkpoints want that.

    Args:
        name: ``cifar10`` or ``cifar100``.
        classes: 10 or 100.

    Raises:
        AjpqError: the download failed.
    """
    arrays = cached_arrays(name, partial(_write_cifar, name))
    return Dataset(
        name,
        *arrays,
        classes=CIFAR10_CLASSES if classes == 10 else tuple(str(i) for i in range(classes)),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augmentation=Augmentation(padding=4, flip=True),
    )


def _every_nth_of_a_class(labels: np.ndarray, step: int) -> np.ndarray:
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[step // 2 :: step]] = True
    return chosen


def _write_cifar(name: str, folder: Path) -> None:
    for side, is_train in (("train", True), ("test", False)):
        source = _torchvision_cifar(name, is_train)
        np.save(folder / f"{side}_images.npy", source.data.transpose(0, 3, 1, 2).copy())
        np.save(folder / f"{side}_labels.npy", np.array(source.targets, dtype=np.int64))


def _torchvision_cifar(name: str, train: bool) -> Any:
    import torchvision

    maker = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
    try:
        return maker[name](str(cache_folder("downloads")), train=train, download=True)
    except (URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError) as e:
        reason = " ".join(str(e).split())
        raise AjpqError(
            f"cannot download {name!r} ({reason}); give the images as --data imagefolder:DIR"
        ) from e
