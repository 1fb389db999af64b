"""Turns of a layer and a channel controller around each budget's best candidate.

Both are agents of Stable-Baselines3, conditioned on the budget. While one learns, the other is held
at what has been best so far: the layer controller sets goals whose kernels share bits as in the
best candidate of the budget; the channel controller shares out the goals of that candidate. After
every round each budget's best candidate becomes the centre that offsets count from, and all
candidates so far become the layer controller's experience under every budget that they use
(:mod:`agents.experience`); what the channel controller did around other centres says nothing here.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from agents.config import AgentConfig
from agents.experience import Tried, best_of, forget, remember
from agents.neighbourhood import centred, shorter, unknown
from agents.searchers.opening import Departure, polish
from agents.searchers.setup import Hyperparameters, Setup
from agents.training import build_agent, train_agent
from agents.trials import Trials
from envs.channel_control import GROUPS, ChannelControlEnv
from envs.layer_control import LayerControlEnv
from envs.task import CompressionTask

Reach = Annotated[float, Field(gt=0, le=1)]
Caution = Annotated[float, Field(ge=0)]


class TwoControllers(Hyperparameters):
    """How the controllers take turns.

    Attributes:
        layer_rounds, channel_rounds: episodes per budget before the other controller's turn.
            Without channel rounds there is no hierarchy: tables and slopes alone share out bits.
        pruning: strengths of the prior's sparsity that the warm start tries; with none of them
            tables propose nothing, later neither.
        floor: solutions of the integer program for each budget that the search starts from too,
            and below which it never ends; 0 for none, and none of its sensitivities.
        reach: how far an action of 1 moves from the centre when nothing is spent, and when all is:
            wide at first, for devices step by whole blocks of channels, then narrow.
        patience: after so many candidates that were no budget's best the controllers forget what
            they know and begin anew; None: never. For searches without a warm start.
        moved_layers: in so many a neighbour of a proposal that is known already differs; None: all.
        mix: of the channel controller: weight of the network's reward next to the layers' errors,
            when nothing is spent, and when all is.
        between: budgets between each and the next that are served last, so that the front has no
            gaps, with
        between_share: of all trials.
        descents: cautions with which candidates go downhill from every budget's best one before
            controllers take their turns and after; without any no slopes are measured.
        descents_first: before, at most this share of what the warm start leaves for the turns.
        descent_share: after, this share of all trials.
        sees_sensitivities: do the agents observe how much layers mind narrow weights and pruning?
            What they start from says much of the same; seeing them too has made no difference
            beyond what seeds differ by (``benchmarks/ablations.py``).
        agent: hyperparameters of both agents.
    """

    layer_rounds: int = Field(default=8, ge=1)
    channel_rounds: int = Field(default=4, ge=0)
    pruning: tuple[float, ...] = (0.0, 0.5, 1.0)
    floor: int = Field(default=3, ge=0)
    reach: tuple[Reach, Reach] = (0.4, 0.1)
    patience: int | None = Field(default=None, ge=1)
    moved_layers: int | None = Field(default=None, ge=1)
    mix: tuple[float, float] = (0.3, 0.9)
    between: int = Field(default=3, ge=0)
    between_share: float = Field(default=0.2, gt=0, lt=0.5)
    descents: tuple[Caution, ...] = (1.0, 2.0)
    descents_first: float = Field(default=0.4, ge=0, lt=1)
    descent_share: float = Field(default=0.15, gt=0, lt=0.5)
    sees_sensitivities: bool = False
    agent: dict[str, Any] = Field(default_factory=dict)


@dataclasses.dataclass(eq=False)
class Search:
    """What changes while the controllers take turns: candidates, and each budget's best.

    Attributes:
        moved_layers: as of :class:`TwoControllers`.
        set_aside: candidates from before the controllers began anew.
        since: how many there were when these turns began.
        left: see :func:`agents.searchers.opening.descend`.
        proposed: is the candidate to come a controller's proposal, and not a neighbour of one?
    """

    tasks: list[CompressionTask]
    tried: list[Tried]
    rng: np.random.Generator
    moved_layers: int | None = None
    set_aside: list[Tried] = dataclasses.field(default_factory=list)
    since: int = 0
    left: set[Departure] = dataclasses.field(default_factory=set)
    proposed: bool = True

    def centres(self, reach: float) -> list[CompressionTask]:
        """Every budget's task around its best candidate."""
        return [centred(task, self.tried, reach) for task in self.tasks]

    def keep(self, info: dict[str, Any]) -> None:
        """Remember the candidate of an episode."""
        policy, metrics = info["policy"], info["metrics"]
        found = Tried(info["actions"], info["shares"], metrics, policy.hash, self.proposed)
        self.tried.append(found)
        self.proposed = True

    def new(self, task: CompressionTask, goals: np.ndarray) -> np.ndarray:
        """``goals`` on the budget, or where their policy is known those of one that is not."""
        known = {one.hash for one in (*self.set_aside, *self.tried)}
        settings, self.proposed = unknown(task, goals, known, self.rng, self.moved_layers)
        return settings

    def begin_anew(self) -> None:
        """Look elsewhere; proposals for what was asked before give way all the same."""
        self.set_aside += self.tried
        self.tried = []
        self.since = 0

    def stuck_for(self) -> int:
        """Candidates since the last one that was some budget's best."""
        last = [self.tried.index(best) for t in self.tasks if (best := best_of(self.tried, t))]
        return len(self.tried) - 1 - max([self.since - 1, *last])


def act(search: Search, agent: OffPolicyAlgorithm, reach: float) -> None:
    """Ask for what a trained layer controller does, without exploration, under every budget."""
    env = LayerControlEnv(search.centres(reach))
    for _ in env.tasks:
        observation, done = env.reset()[0], False
        while not done:
            action, _ = agent.predict(observation, deterministic=True)
            observation, _, done, _, info = env.step(action)
        search.keep(info)


def agent_config(config: AgentConfig, settings: TwoControllers) -> AgentConfig:
    # Experience is made before the first action, so none of them has to be random.
    return config.model_copy(
        update={"algorithm": "td3", "warmup_episodes": 0, "hyperparameters": settings.agent}
    )


def controllers(
    setup: Setup, settings: TwoControllers, search: Search
) -> dict[str, OffPolicyAlgorithm]:
    config, centres = agent_config(setup.config, settings), search.centres(settings.reach[0])
    steps = len(centres[0].layers)
    layer = build_agent(config, LayerControlEnv(centres), steps_per_episode=steps, seed=setup.seed)
    found = {"layer": layer}
    if settings.channel_rounds and centres[0].tables:
        found["channel"] = build_agent(
            config,
            ChannelControlEnv(centres, lambda task: task.prior),
            steps_per_episode=steps * GROUPS,
            seed=setup.seed + 1,
        )
    return {name: agent for name, agent in found.items() if isinstance(agent, OffPolicyAlgorithm)}


def take_turns(
    setup: Setup,
    settings: TwoControllers,
    search: Search,
    agents: dict[str, OffPolicyAlgorithm],
) -> None:
    budgets, search.since = len(search.tasks), len(search.tried)
    try:
        while not setup.trials.over:
            if settings.pruning:
                polish(search.tasks, search.tried)
            centres = search.centres(_now(settings.reach, setup.trials))
            agents["layer"].set_env(LayerControlEnv(shorter(centres), settle=search.new))
            remember(agents["layer"], centres, search.tried)
            _round(setup, agents["layer"], search, settings.layer_rounds * budgets)
            if "channel" in agents and not setup.trials.over:
                near = shorter(search.centres(_now(settings.reach, setup.trials)))
                mix = _now(settings.mix, setup.trials)
                agents["channel"].set_env(ChannelControlEnv(near, lambda task: task.prior, mix))
                forget(agents["channel"])
                _round(setup, agents["channel"], search, settings.channel_rounds * budgets)
            stuck = settings.patience is not None and search.stuck_for() >= settings.patience
            if stuck and not setup.trials.over:
                search.begin_anew()
                seed = int(search.rng.integers(2**31))
                agents.update(controllers(dataclasses.replace(setup, seed=seed), settings, search))
    finally:
        search.tried[:0] = search.set_aside
        search.set_aside = []


def _now(ends: tuple[float, float], trials: Trials) -> float:
    """Between both ends as much of the way as trials are spent."""
    left = trials.left
    spent = trials.candidates / max(trials.candidates + left, 1) if np.isfinite(left) else 0.0
    return ends[0] + spent * (ends[1] - ends[0])


def _round(setup: Setup, agent: OffPolicyAlgorithm, search: Search, episodes: int) -> None:
    def on_episode(info: dict[str, Any]) -> bool:
        search.keep(info)
        return not setup.trials.over

    train_agent(
        agent,
        episodes=episodes,
        steps_per_episode=len(search.tasks[0].layers) * GROUPS,
        on_episode=on_episode,
    )
