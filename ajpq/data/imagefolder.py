"""Images in folders: ``DIR/train/CLASS/*.png`` and ``DIR/test/CLASS/*.png``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import Progress, TaskID

from ajpq.data.cache import cached_arrays, write_array
from ajpq.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Augmentation, Dataset
from hw_models.errors import AjpqError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp"))
_CHUNK = 512


@dataclass(frozen=True)
class Listing:
    """The image files of one side, in a fixed order.

    Attributes:
        root: folder that ``names`` are relative to.
        names: relative path of every image.
        labels: class number of every image.
        states: size in bytes and modification time in nanoseconds of every image.
    """

    root: Path
    names: tuple[str, ...]
    labels: tuple[int, ...]
    states: tuple[tuple[int, int], ...]


def load_imagefolder(folder: str, image_size: int | None = None) -> Dataset:
    """Decode a tree of class folders into RGB, or take it from the cache.

    Args:
        folder: has ``train/`` and ``test/``, each with one folder per class; files in deeper
            folders count too, files that are not images do not.
        image_size: resize the shorter side to this many pixels and cut out the centre; without
            it all images must have one size.

    Raises:
        AjpqError: a folder or a class is missing or empty, an image is unreadable, or sizes
            differ and there is no ``image_size``.
    """
    root = Path(folder).expanduser()
    classes = _common_classes(root)
    train, test = _listing(root / "train", classes), _listing(root / "test", classes)
    key = f"imagefolder-{_listing_hash(root, (train, test), image_size)}"
    arrays = cached_arrays(key, partial(_decode_both, train, test, image_size))
    size = min(arrays[0].shape[2:])
    return Dataset(
        f"imagefolder:{folder}",
        *arrays,
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augmentation=Augmentation(padding=size // 8, flip=True),
    )


def _common_classes(root: Path) -> tuple[str, ...]:
    train, test = _class_names(root / "train"), _class_names(root / "test")
    for one, other, names in (("train", "test", train - test), ("test", "train", test - train)):
        if names:
            missing = min(names)
            raise AjpqError(f"class {missing!r} is in {root / one} but not in {root / other}")
    return tuple(sorted(train))


def _class_names(side: Path) -> set[str]:
    if not side.is_dir():
        raise AjpqError(
            f"no folder {str(side)!r}; imagefolder:DIR needs DIR/train and DIR/test, "
            "each with one folder per class"
        )
    names = {entry.name for entry in os.scandir(side) if entry.is_dir() and entry.name[0] != "."}
    if not names:
        raise AjpqError(f"no class folders in {str(side)!r}")
    return names


def _listing(side: Path, classes: tuple[str, ...]) -> Listing:
    names, labels, states = [], [], []
    for label, class_name in enumerate(classes):
        found = sorted(_image_files(side / class_name, class_name))
        if not found:
            raise AjpqError(f"no images in {str(side / class_name)!r}")
        names += [name for name, _ in found]
        states += [state for _, state in found]
        labels += [label] * len(found)
    return Listing(side, tuple(names), tuple(labels), tuple(states))


def _image_files(folder: Path, prefix: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Relative name and (size, mtime) of every image at any depth."""
    for entry in os.scandir(folder):
        name = f"{prefix}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _image_files(Path(entry.path), name)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            status = entry.stat()
            yield name, (status.st_size, status.st_mtime_ns)


def _listing_hash(root: Path, sides: tuple[Listing, ...], image_size: int | None) -> str:
    digest = hashlib.sha256(f"{root.resolve()}|{image_size}".encode())
    for side in sides:
        digest.update(repr((side.names, side.labels, side.states)).encode())
    return digest.hexdigest()[:24]


def _decode_both(train: Listing, test: Listing, image_size: int | None, folder: Path) -> None:
    total = len(train.names) + len(test.names)
    first = train.root / train.names[0]
    shape = _decode(first, image_size, None).shape
    expected = (shape, first)
    with (
        Progress(console=Console(stderr=True), transient=True) as progress,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
    ):
        task = progress.add_task("Decoding images", total=total)
        for name, side in (("train", train), ("test", test)):
            chunks = _decoded_chunks(side, image_size, expected, pool, (progress, task))
            write_array(folder / f"{name}_images.npy", (len(side.names), *shape), chunks)
            np.save(folder / f"{name}_labels.npy", np.array(side.labels, dtype=np.int64))


def _decoded_chunks(
    side: Listing,
    image_size: int | None,
    expected: tuple[tuple[int, ...], Path],
    pool: ThreadPoolExecutor,
    progress: tuple[Progress, TaskID],
) -> Iterator[np.ndarray]:
    """``[n, 3, H, W]`` uint8 pieces in the order of the listing; few are in memory at a time."""
    bar, task = progress
    for start in range(0, len(side.names), _CHUNK):
        paths = [side.root / name for name in side.names[start : start + _CHUNK]]
        images = list(pool.map(lambda path: _decode(path, image_size, expected), paths))
        bar.advance(task, len(images))
        yield np.stack(images)


def _decode(
    path: Path, image_size: int | None, expected: tuple[tuple[int, ...], Path] | None
) -> np.ndarray:
    """One image as ``[3, H, W]`` uint8."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise AjpqError(f"unreadable image {str(path)!r}: {reason}") from error
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).transpose(2, 0, 1)
    if expected is not None and pixels.shape != expected[0]:
        raise AjpqError(_size_line(path, pixels.shape, *expected))
    return pixels


def _size_line(
    path: Path, shape: tuple[int, ...], first_shape: tuple[int, ...], first: Path
) -> str:
    one, other = f"{shape[2]}x{shape[1]}", f"{first_shape[2]}x{first_shape[1]}"
    return (
        f"images differ in size: {str(first)!r} is {other}, {str(path)!r} is {one}; give image_size"
    )
