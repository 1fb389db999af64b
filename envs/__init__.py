"""Gymnasium environments of AJPQ; importing the package registers their ids."""

import gymnasium as gym

gym.register(
    id="ajpq/JointCompression-v0",
    entry_point="envs.joint_compression:JointCompressionEnv",
)
gym.register(
    id="ajpq/LayerControl-v0",
    entry_point="envs.layer_control:LayerControlEnv",
)
gym.register(
    id="ajpq/ChannelControl-v0",
    entry_point="envs.channel_control:ChannelControlEnv",
)
