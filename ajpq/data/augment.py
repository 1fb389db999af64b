"""Random crops and flips of a whole batch at once."""

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
