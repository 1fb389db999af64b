"""``ajpq/JointCompression-v0``: one controller walks the layers and compresses each."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.episodes import assessed, settled
from envs.observation import observation_size, observe
from envs.task import CompressionTask


class JointCompressionEnv(gym.Env[np.ndarray, np.ndarray]):
    """Joint pruning and quantization of a network, one layer a step.

    ## Action space

    ``Box(-1, 1, (K,), float32)``: offsets of up to the task's ``reach`` from its prior, which
    single-layer measurements suggest (:mod:`envs.prior`) or which was found at the border of the
    accuracy (:mod:`envs.greedy`); the sum is a setting in [0, 1]. Pruning is quantization with 0
    bits: channels are ranked by the criterion, the least important get 0 bits.

    | knob         | meaning of a setting from 0 to 1                                           |
    |--------------|----------------------------------------------------------------------------|
    | `sparsity`   | share of pruned channels: none up to 0.5, then 0 .. `max_sparsity`; of        |
    |              | layers that can only be pruned together the first decides                   |
    | `bits`       | mean width of live channels, narrowest .. widest that the target stores    |
    | `spread`     | range of widths within the layer, 1 .. 4 bits, more for important channels |
    | `activation` | width of the codes that the layer reads, narrowest .. widest               |

    `bits` and `spread` are absent in fixed-precision mode (every kernel 0 or b bits), `activation`
    where the target has one activation width.

    ## Observation space

    ``Box(0, 1, (23 + 2 K,), float32)``

    | index   | content                                                                     |
    |---------|-----------------------------------------------------------------------------|
    | 0       | layer index / number of layers                                              |
    | 1-3     | is a convolution, is depthwise, shares its output channels with other layers |
    | 4, 5    | input and output channels, log scale, 1 = 4096                               |
    | 6, 7    | kernel size / 7, (stride - 1) / 3                                            |
    | 8       | output positions, log scale, 1 = 224 x 224                                   |
    | 9-11    | share of the network's MACs, of its weights, of its int8 latency             |
    | 12, 13  | sensitivity to narrow widths, to pruning (KL, 1 = most sensitive layer)      |
    | 14, 15  | weight bits and MACs spent so far, as a share of the 8-bit network's         |
    | 16, 17  | weights and MACs of the layers still to come, as shares                      |
    | 18-21   | latency, flash, SRAM and energy bounds (ratios, 1 where there is none)       |
    | 22      | size bound (ratio x 4)                                                       |
    | 23 ..   | K: the prior of this layer; K: the previous settings, 0.5 at the first layer |

    ## Reward

    Zero until the last layer, then that of :func:`envs.budget.reward`: accuracy after the
    candidates' recipe against the uncompressed network, or, with `max_drop`, the cost. A hard
    budget first projects the actions of the whole episode onto it (:func:`envs.budget.project`);
    a soft one subtracts a penalty.

    ## Episode end

    Terminates after the last layer. Never truncates. The last ``info`` holds ``policy``,
    ``metrics``, ``actions`` (as projected, ``[L, K]`` in [0, 1]) and ``reward``.

    ## Arguments

    ``task``: what to compress (:class:`envs.task.CompressionTask`); without one, scikit-learn's
    digits and a small convolutional network (:func:`envs.digits_task.digits_task`).

    ## Version history

    * v0: first version
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own declaration

    def __init__(self, task: CompressionTask | None = None) -> None:
        if task is None:
            from envs.digits_task import digits_task

            task = digits_task()
        self.task = task
        knobs = len(task.knobs.names)
        self.action_space = spaces.Box(-1.0, 1.0, (knobs,), np.float32)
        self.observation_space = spaces.Box(0.0, 1.0, (observation_size(task),), np.float32)
        self._taken = np.zeros((0, knobs))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start before the first layer."""
        super().reset(seed=seed)
        self._taken = np.zeros((0, len(self.task.knobs.names)))
        return observe(self.task, 0, self._taken), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Decide one layer; the last decision is assessed."""
        values = self.task.settings(len(self._taken), action)
        self._taken = np.vstack([self._taken, values])
        done = len(self._taken) == len(self.task.layers)
        value, info = assessed(self.task, settled(self.task, self._taken)) if done else (0.0, {})
        return observe(self.task, len(self._taken), self._taken), value, done, False, info
