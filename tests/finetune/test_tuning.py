"""Fine-tuning and calibration of one policy."""

import pytest
import torch

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.tuning import fine_tune

BASE = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))


@pytest.fixture(scope="module")
def problem():
    return build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE))


@pytest.mark.parametrize("mode", ["psg", "straight_through"])
def test_the_compressed_mode_gets_statistics_of_its_own(problem, mode):
    stage = Stage(mode=mode, steps=2, batch_size=64)
    results = {
        count: fine_tune(
            problem,
            problem.uniform(3),
            Recipe(name="r", stages=(stage,), calibration=Calibration(batchnorm_batches=count)),
        )
        for count in (0, 2)
    }
    trained, estimated = results[0], results[2]
    for name, value in trained.buffers.items():
        assert torch.equal(value, trained.latent[name])
    assert any(
        not torch.equal(value, estimated.latent[name]) for name, value in estimated.buffers.items()
    )
    assert all(torch.equal(trained.latent[n], estimated.latent[n]) for n in trained.latent)
