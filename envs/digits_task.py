"""The embedded task behind ``gymnasium.make("ajpq/JointCompression-v0")``: needs no files."""

from __future__ import annotations

from ajpq.base import build_problem
from ajpq.config import FinalRound, SearchConfig
from ajpq.evaluate import Metrics, costs_in_loop, measured
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.policy import CompressionPolicy
from ajpq.problem import compress, network_of
from envs.build import build_task, reference_budget
from envs.task import CompressionTask


def digits_config() -> SearchConfig:
    """A one-epoch network for scikit-learn's digits, small enough to be trained on the spot."""
    nothing = Recipe(name="none")
    return SearchConfig(
        target="size-only",
        model="resnet8",
        data="digits",
        size_ratio=0.12,
        search_images=100,
        base=Recipe(
            name="quick",
            stages=(Stage(mode="float", epochs=3, batch_size=64, learning_rate=0.1),),
        ),
        candidate=Recipe(
            name="quick-psg",
            stages=(Stage(mode="psg", steps=2, batch_size=64),),
            calibration=Calibration(batchnorm_batches=1, range_batches=1, batch_size=64),
        ),
        final=(FinalRound(keep=1, recipe=nothing),),
    )


def digits_task(config: SearchConfig | None = None) -> CompressionTask:
    """Build the task of ``config``; its judge keeps no journal."""
    settings = config or digits_config()
    problem = build_problem(settings)

    def assess(policy: CompressionPolicy) -> Metrics:
        weights = compress(problem, policy, settings.candidate)
        network = network_of(problem, policy, weights)
        return measured(costs_in_loop(network, problem.target), network, problem.search_sample)

    budget = reference_budget(
        problem,
        latency_ratio=settings.latency_ratio,
        size_ratio=settings.size_ratio,
        max_drop=settings.max_drop,
    )
    return build_task(
        problem,
        budget,
        assess,
        max_sparsity=settings.max_sparsity,
        fixed_bits=settings.fixed_bits,
        kl_weight=settings.kl_weight,
        budget_mode=settings.budget_mode,
        margin=settings.budget_margin,
    )
