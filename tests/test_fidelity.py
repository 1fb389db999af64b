"""Giving candidates up early: when, at what risk, and at what saving."""

import numpy as np
import pytest
import torch

from ajpq.config import load_search_config
from ajpq.contest import contest
from ajpq.evaluate import Images
from ajpq.fidelity import Rival, logits_until_lost, lost_points
from ajpq.judge import judge
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from tests.test_problem import BASE, problem  # noqa: F401

IMAGES = 1000


def answers(rng, count, top1):
    return torch.from_numpy(rng.random(count) < top1)


def test_the_interval_covers_the_truth():
    """Both are right on an image independently; the lower bound exceeds the truth in 1 % of all
    cases, as it says."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(4000):
        rival, right = answers(rng, 256, 0.85), answers(rng, 256, 0.80)
        above += lost_points(Rival(rival), right)[1] > 5.0
    assert 0.002 <= above / 4000 <= 0.015


def test_lost_points_are_the_difference_of_top1_on_the_images_seen():
    rng = np.random.default_rng(1)
    rival, right = answers(rng, IMAGES, 0.9), answers(rng, 300, 0.7)
    expected = 100 * float(rival[:300].double().mean() - right.double().mean())
    mean, lower = lost_points(Rival(rival), right)
    assert mean == pytest.approx(expected)
    assert lower < mean


def sample_and_run(right, seen):
    """A network that classifies exactly the images with ``right`` right."""
    numbers = torch.arange(len(right)).view(-1, 1, 1, 1).float()

    def run(images):
        seen.append(len(images))
        rows = right[images.flatten().long()]
        return torch.stack([rows.float(), 1 - rows.float()], 1)

    return Images(numbers, torch.zeros(len(right), dtype=torch.int64)), run


@pytest.mark.parametrize(("top1", "allowed", "looks"), [(0.5, 0.0, 1), (0.5, 60.0, 4)])
def test_a_bad_candidate_is_given_up_and_one_that_may_be_so_bad_is_not(top1, allowed, looks):
    rng, seen = np.random.default_rng(2), []
    right = answers(rng, IMAGES, top1)
    sample, run = sample_and_run(right, seen)
    logits = logits_until_lost(run, sample, Rival(answers(rng, IMAGES, 0.95), allowed))
    assert seen == [128, 128, 256, 488][:looks]
    assert torch.equal(logits.argmax(1) == 0, right[: len(logits)])


def test_without_a_rival_all_images_are_seen_at_once():
    seen = []
    sample, run = sample_and_run(answers(np.random.default_rng(3), IMAGES, 0.1), seen)
    assert len(logits_until_lost(run, sample, None)) == IMAGES
    assert seen == [IMAGES]


def test_as_good_as_its_rival_a_candidate_is_hardly_ever_given_up():
    rng, stopped = np.random.default_rng(4), 0
    for _ in range(300):
        both = answers(rng, IMAGES, 0.8)
        flip = rng.random((2, IMAGES)) < 0.1
        rival, right = (both ^ torch.from_numpy(own) for own in flip)
        sample, run = sample_and_run(right, [])
        stopped += len(logits_until_lost(run, sample, Rival(rival))) < IMAGES
    assert stopped / 300 <= 0.04


def test_a_search_spends_few_images_on_what_will_not_be_in_its_finals(problem, tmp_path):  # noqa: F811
    config = load_search_config("digits", {"kl_weight": 0.0})
    log = CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0))
    judged = contest(config, problem, log, lambda metrics: True)
    everything = len(problem.search_sample.labels)
    keep = config.final[0].keep
    for bits in (8, 7, 6, 5, 4)[:keep]:
        policy = problem.uniform(bits)
        metrics = judged(policy)
        assert metrics.images == everything
        assert metrics == judge(problem, config.candidate, policy)
        log.keep(policy, metrics, metrics.top1_val)
    assert log.placed(keep, lambda metrics: True) == log.ranked(lambda metrics: True)[keep - 1]
    assert log.placed(keep + 1, lambda metrics: True) is None
    assert log.placed(1, lambda metrics: False) is None
