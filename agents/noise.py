"""Exploration noise that fades with episodes and owns its random generator."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.noise import ActionNoise


class FadingNoise(ActionNoise):
    """Normal noise with standard deviation ``initial * decay ** episodes``.

    SB3's own noise draws from numpy's global generator and never fades.
    """

    def __init__(self, size: int, initial: float, decay: float, seed: int) -> None:
        super().__init__()
        self._size, self._sigma, self._decay = size, initial, decay
        self._rng = np.random.default_rng(seed)

    def __call__(self) -> np.ndarray:
        """``[size]`` float32."""
        return self._rng.normal(0.0, self._sigma, self._size).astype(np.float32)

    def reset(self) -> None:
        """An episode ended."""
        self._sigma *= self._decay
