"""Candidates one by one and a generation at a time."""

import dataclasses

import pytest
import torch

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.selection.executor import InProcess, worker_processes
from ajpq.selection.fidelity import Answers, Rival
from ajpq.selection.judge import judge_against, judge_many

SHORT = Calibration(batchnorm_batches=1, range_batches=1, batch_size=64)
DIRECT = Recipe(name="direct", calibration=SHORT)
TRAINED = Recipe(
    name="trained", stages=(Stage(mode="psg", steps=4, batch_size=64),), calibration=SHORT
)


@pytest.fixture(scope="module")
def problem():
    stage = Stage(mode="float", epochs=2, batch_size=64, learning_rate=0.1)
    base = Recipe(name="short", stages=(stage,))
    return build_problem(ProblemConfig(target="size-only", criterion="l1", base=base))


def test_a_generation_is_judged_as_its_members_are_wherever_it_is(problem):
    policies = [problem.uniform(bits) for bits in (8, 3, 2)]
    problem.codes  # noqa: B018  a function that cannot be sent, made when it is first asked for
    with worker_processes(dataclasses.replace(problem), 2, 1) as workers:
        best = Rival(judge_against(problem, DIRECT, policies[0])[1])
        assert judge_against(problem, DIRECT, policies[-1], best)[0].images == 0
        everyone = _all_right(problem)
        for recipe, rival in ((DIRECT, None), (TRAINED, None), (DIRECT, everyone), (DIRECT, best)):
            alone = [judge_against(problem, recipe, policy, rival) for policy in policies]
            for executor in (InProcess(problem), workers):
                found = judge_many(executor, recipe, policies, rival)
                assert [metrics for metrics, _ in found] == [metrics for metrics, _ in alone]
                for (_, own), (_, expected) in zip(found, alone, strict=True):
                    assert torch.equal(own.right, expected.right)
                    assert torch.equal(own.calibrating, expected.calibrating)


def _all_right(problem):
    return Rival(Answers(torch.ones(len(problem.search_sample.labels), dtype=torch.bool)))
