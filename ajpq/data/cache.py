"""Decoded images on disk: one folder per data set, memory-mapped when read.

A folder is written under a temporary name and renamed when it is complete, so that what has the
final name is whole; its checksums catch what happens to it later. Images lie in an order that
depends on their content alone, so that the same pictures give the same split and the same training
wherever they came from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ajpq.files import sync_folder
from hw_models.errors import AjpqError

FORMAT_VERSION = 2
_CHUNK = 512
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")
_CHECKSUMS = "checksums.json"

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def cache_folder(name: str) -> Path:
    """``$AJPQ_CACHE/name``, or ``~/.cache/ajpq/name`` without that variable; made if needed.

    Raises:
        AjpqError: the folder cannot be made.
    """
    root = os.environ.get("AJPQ_CACHE") or "~/.cache/ajpq"
    folder = Path(root).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AjpqError(
            f"cannot make the cache folder {str(folder)!r}: {error.strerror}; set AJPQ_CACHE"
        ) from error
    return folder


def cached_arrays(key: str, build: Callable[[Path], None]) -> Arrays:
    """Train images and labels, test images and labels, read-only and memory-mapped.

    Args:
        key: name of the cache entry; must change whenever the content would.
        build: writes ``train_images.npy``, ``train_labels.npy``, ``test_images.npy`` and
            ``test_labels.npy`` into the folder that it is given; called when there is no entry or
            a damaged one.
    """
    entry = cache_folder("data") / f"{key}-v{FORMAT_VERSION}"
    arrays = _read(entry)
    if arrays is None:
        _write(entry, build)
        arrays = _read(entry)
    if arrays is None:
        raise OSError(f"the cache entry {entry} cannot be read back")
    return arrays


def write_array(path: Path, shape: tuple[int, ...], chunks: Iterable[np.ndarray]) -> None:
    """Write a uint8 ``.npy`` file piece by piece.

    Plain writes and no memory map: on a full disk these raise an OSError, a map kills the process.
    """
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype=np.uint8).data)


def _read(entry: Path) -> Arrays | None:
    """The arrays of a sound entry, None for a missing or a damaged one."""
    try:
        checksums = json.loads((entry / _CHECKSUMS).read_text())
        arrays = [np.load(entry / f"{part}.npy", "r", allow_pickle=False) for part in _PARTS]
    except (OSError, ValueError, EOFError, OverflowError):
        return None
    if checksums != [zlib.crc32(array) for array in arrays]:
        return None
    train_images, train_labels, test_images, test_labels = arrays
    return train_images, train_labels, test_images, test_labels


def _write(entry: Path, build: Callable[[Path], None]) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
    try:
        build(temporary)
        for side in ("train", "test"):
            _sort_by_content(temporary / f"{side}_images.npy", temporary / f"{side}_labels.npy")
        checksums = [_checksum(temporary / f"{part}.npy") for part in _PARTS]
        (temporary / _CHECKSUMS).write_text(json.dumps(checksums))
        shutil.rmtree(entry, ignore_errors=True)
        os.rename(temporary, entry)
    except OSError:
        if _read(entry) is None:  # else another process was quicker, which is as good
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(entry.parent)


def _sort_by_content(images_file: Path, labels_file: Path) -> None:
    """Order images, and labels with them, by the hash of the pixels."""
    images, labels = np.load(images_file, "r", allow_pickle=False), np.load(labels_file)
    keys = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
    order = np.array(sorted(range(len(keys)), key=lambda i: (keys[i], labels[i])), dtype=np.int64)
    sorted_file = images_file.with_suffix(".sorted")
    chunks = (images[order[at : at + _CHUNK]] for at in range(0, len(order), _CHUNK))
    write_array(sorted_file, images.shape, chunks)
    sorted_file.replace(images_file)
    np.save(labels_file, labels[order])


def _checksum(path: Path) -> int:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return zlib.crc32(np.load(path, "r", allow_pickle=False))
