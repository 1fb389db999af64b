"""TD3 for episodes whose reward comes at the end, without what such episodes make superfluous.

With returns up to the end of an episode no value is bootstrapped: the targets of the critics are
the returns themselves, and evaluating the target networks would multiply them by zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3 import TD3
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import Tensor, nn


class EpisodicTD3(TD3):
    """The updates of Stable-Baselines3's TD3, to the last bit, without what nothing reads."""

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Update critics ``gradient_steps`` times, actor and targets every ``policy_delay``."""
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        critic_losses, actor_losses = [], []
        # Listed once: finding them in their modules takes longer than moving them.
        parts = (self.critic_target, self.critic), (self.actor_target, self.actor)
        pairs = [(list(slow.parameters()), list(quick.parameters())) for slow, quick in parts]
        for _ in range(gradient_steps):
            self._n_updates += 1
            assert self.replay_buffer is not None
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            critic_losses.append(self._update_critics(batch))
            if self._n_updates % self.policy_delay == 0:
                actor_losses.append(self._update_actor(batch.observations))
                for slow, quick in pairs:
                    follow(slow, quick, self.tau)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if actor_losses:
            self.logger.record("train/actor_loss", np.mean(actor_losses))
        self.logger.record("train/critic_loss", np.mean(critic_losses))

    def _update_critics(self, batch: ReplayBufferSamples) -> float:
        wanted = self._returns(batch)
        found = self.critic(batch.observations, batch.actions)
        loss = torch.stack([F.mse_loss(values, wanted) for values in found]).sum()
        self.critic.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _returns(self, batch: ReplayBufferSamples) -> Tensor:
        """``[batch, 1]`` what the critics should say."""
        # Drawn in any case: who compares with Stable-Baselines3 wants the same random numbers.
        noise = torch.empty_like(batch.actions).normal_(0, self.target_policy_noise)
        if bool(batch.dones.all()):
            return batch.rewards
        noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
        following = (self.actor_target(batch.next_observations) + noise).clamp(-1, 1)
        values = torch.cat(self.critic_target(batch.next_observations, following), dim=1)
        discounts = self.gamma if batch.discounts is None else batch.discounts
        least = values.min(dim=1, keepdim=True).values
        return batch.rewards + (1 - batch.dones) * discounts * least

    def _update_actor(self, observations: Tensor) -> float:
        """The critic's own gradients are left out: nothing would read them."""
        loss = -self.critic.q1_forward(observations, self.actor(observations)).mean()
        parameters = list(self.actor.parameters())
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        self.actor.optimizer.step()
        return loss.item()


@torch.no_grad()
def follow(targets: Iterable[nn.Parameter], values: Iterable[nn.Parameter], share: float) -> None:
    """Move ``targets`` a ``share`` of the way to ``values``, all in one call."""
    slow: list[Tensor] = list(targets)
    quick: list[Tensor] = list(values)
    torch._foreach_mul_(slow, 1 - share)
    torch._foreach_add_(slow, quick, alpha=share)
