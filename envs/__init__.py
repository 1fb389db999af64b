"""Gymnasium environments of AJPQ; importing the package registers their ids."""

import gymnasium as gym

gym.register(
    id="ajpq/JointCompression-v0",
    entry_point="envs.joint_compression:JointCompressionEnv",
)
