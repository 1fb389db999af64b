"""Random crops, flips and holes of a whole batch at once."""

from __future__ import annotations

import numpy as np

from ajpq.data.dataset import Augmentation


def augment(images: np.ndarray, augmentation: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Crop every image at random out of its black-padded self, then mirror half of them.

    The padding is black (0) before normalisation, as in the training of the public CIFAR
    ResNets, which pad the picture and not the normalised tensor.

    Args:
        images: ``[B, C, H, W]`` uint8; not changed.
        augmentation: width of the padding, and whether to flip.
        rng: source of all randomness; equal generators give equal results.

    Returns:
        ``[B, C, H, W]`` uint8, a new array.
    """
    cropped = _random_crop(images, augmentation.padding, rng)
    return _random_flip(cropped, rng) if augmentation.flip else cropped


def cut_out(images: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Blacken one square of every image, at a random place and partly outside it at the border.

    Cutout, DeVries and Taylor, arXiv 1708.04552; black as the padding of the crops is.

    Args:
        images: ``[B, C, H, W]`` uint8; not changed.
        side: of the square in pixels; 0 returns the images as they are.
        rng: source of all randomness.

    Returns:
        ``[B, C, H, W]`` uint8.
    """
    if side == 0:
        return images
    count, _, height, width = images.shape
    top = rng.integers(0, height, (count, 1)) - side // 2
    left = rng.integers(0, width, (count, 1)) - side // 2
    rows, columns = np.arange(height), np.arange(width)
    in_rows = (rows >= top) & (rows < top + side)
    in_columns = (columns >= left) & (columns < left + side)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return np.where(hole, np.uint8(0), images)


def _random_crop(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    if padding == 0:
        return np.array(images)
    count, _, height, width = images.shape
    border = (padding, padding)
    padded = np.pad(images, ((0, 0), (0, 0), border, border))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    top, left = rng.integers(0, 2 * padding + 1, size=(2, count))
    return windows[np.arange(count), :, top, left]


def _random_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.random(len(images)) < 0.5
    images[chosen] = images[chosen, :, :, ::-1]
    return images
