"""Data sets by name, from a folder, and from the user's own code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ajpq.data.builtin import load_cifar, load_digits
from ajpq.data.dataset import Dataset, check_dataset, check_kinds
from ajpq.data.imagefolder import load_imagefolder
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plugins import call_with_accepted, is_object_spec, load_object

NAMED_DATA: dict[str, Callable[[], Dataset]] = {
    "digits": load_digits,
    "cifar10": partial(load_cifar, "cifar10", 10),
    "cifar100": partial(load_cifar, "cifar100", 100),
}
_FOLDER_PREFIX = "imagefolder:"


def data_names() -> tuple[str, ...]:
    """What ``--data`` takes."""
    return (*NAMED_DATA, "imagefolder:DIR", "module:function", "path.py:function")


def load_data(
    spec: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        spec: ``digits``, ``cifar10``, ``cifar100``, ``imagefolder:DIR``, or ``module:function`` /
            ``path.py:function`` for a function that returns a :class:`Dataset` and may take
            ``image_size``.
        mean: per channel, instead of the data set's own.
        std: per channel, instead of the data set's own.
        image_size: height and width in pixels to resize an image folder to; other data sets must
            have this size already.

    Raises:
        UnknownNameError: no such data set.
        AjpqError: the data cannot be loaded or is not what :class:`Dataset` promises.
    """
    if image_size is not None and image_size < 1:
        raise AjpqError(f"expected image_size >= 1, got {image_size}")
    dataset = _load(spec, image_size)
    check_kinds(dataset)
    dataset = replace(
        dataset,
        mean=tuple(dataset.mean if mean is None else mean),
        std=tuple(dataset.std if std is None else std),
    )
    check_dataset(dataset)
    height, width = dataset.image_shape[1:]
    if image_size is not None and (height, width) != (image_size, image_size):
        raise AjpqError(f"data {spec!r} has {width}x{height} images, got image_size={image_size}")
    return dataset


def _load(spec: str, image_size: int | None) -> Dataset:
    if spec in NAMED_DATA:
        return NAMED_DATA[spec]()
    if spec == _FOLDER_PREFIX:
        raise AjpqError(f"data {spec!r} names no folder; expected imagefolder:DIR")
    if spec.startswith(_FOLDER_PREFIX):
        return load_imagefolder(spec.removeprefix(_FOLDER_PREFIX), image_size)
    if not is_object_spec(spec):
        raise UnknownNameError("data", spec, data_names())
    function = load_object(spec, "data")
    if not callable(function):
        raise AjpqError(f"data {spec!r} is not callable: {type(function).__name__}")
    dataset = call_with_accepted(f"data {spec!r}", function, image_size=image_size)
    if not isinstance(dataset, Dataset):
        found = type(dataset).__name__
        raise AjpqError(f"data {spec!r} gave a {found}, expected an ajpq.data.Dataset")
    return dataset
