"""Candidates one by one and a generation at a time."""

import dataclasses

import pytest
import torch

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.evaluate import costs_in_loop
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.tuning import calibrated, calibration_images
from ajpq.problem import direct_weights, network_of
from ajpq.selection.answers import Answers, without_divergence
from ajpq.selection.executor import InProcess, worker_processes
from ajpq.selection.fidelity import Rival
from ajpq.selection.judge import judge_against, judge_many
from hw_models import vela

SHORT = Calibration(batchnorm_batches=1, range_batches=1, batch_size=64)
DIRECT = Recipe(name="direct", calibration=SHORT)
TRAINED = Recipe(
    name="trained", stages=(Stage(mode="psg", steps=4, batch_size=64),), calibration=SHORT
)

SOON = Recipe(
    name="short",
    stages=(Stage(mode="float", epochs=2, batch_size=64, learning_rate=0.1),),
)


@pytest.fixture(scope="module")
def problem():
    return build_problem(ProblemConfig(target="size-only", criterion="l1", base=SOON))


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
                    for part in ("sample", "calibrating"):
                        given, wanted = getattr(own, part), getattr(expected, part)
                        assert torch.equal(given.right, wanted.right)
                        assert torch.equal(given.kl, wanted.kl)


def test_of_several_calibration_batches_the_first_that_runs_is_looked_at(problem):
    several = Calibration(batchnorm_batches=3, range_batches=1, batch_size=64)
    recipe = Recipe(name="direct", calibration=several)
    metrics, best = judge_against(problem, recipe, problem.uniform(8))
    assert len(best.calibrating) == 64
    assert metrics.images == len(problem.search_sample.labels)
    hopeless, found = judge_against(problem, recipe, problem.uniform(2), Rival(best))
    assert hopeless.images == 0
    assert len(found.calibrating) == 64


@pytest.mark.parametrize("given_up", [False, True])
def test_what_a_compiler_said_before_the_calibration_holds_after_it(
    tmp_path, monkeypatch, given_up
):
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path))
    problem = build_problem(ProblemConfig(target="edge-npu", criterion="l1", base=SOON))
    policy, rival = problem.uniform(2), None
    if given_up:
        rival = Rival(judge_against(problem, DIRECT, problem.uniform(8))[1])
    before = costs_in_loop(network_of(problem, policy, direct_weights(problem)), problem.pricing)
    asked = []
    monkeypatch.setattr(vela, "compile_file", lambda *question: asked.append(question))
    metrics = judge_against(problem, DIRECT, policy, rival)[0]
    assert (metrics.images == 0) == given_up
    assert not asked
    monkeypatch.undo()
    images = calibration_images(problem, SHORT)
    weights = calibrated(problem, policy, SHORT, problem.state, images)
    after = costs_in_loop(network_of(problem, policy, weights), problem.pricing)
    assert after.model_copy(update={"packed_bytes": before.packed_bytes}) == before
    assert after.packed_bytes == pytest.approx(before.packed_bytes, rel=0.001)
    told = {name: getattr(metrics, name) for name in type(before).model_fields}
    assert told == dict(before if given_up else after)


def _all_right(problem):
    right = torch.ones(len(problem.search_sample.labels), dtype=torch.bool)
    return Rival(Answers(without_divergence(right)))
