"""The embedded task behind ``gymnasium.make("ajpq/JointCompression-v0")``: needs no files."""

from __future__ import annotations

from ajpq.base import build_problem
from ajpq.config.schema import FinalRound, SearchConfig
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.selection.judge import judge
from envs.build import build_task
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

    return build_task(
        settings, problem, lambda policy, budget: judge(problem, settings.candidate, policy)
    )
