"""Giving candidates up early: when, at what risk, and at what saving."""

import numpy as np
import pytest
import torch

from ajpq.base import build_problem
from ajpq.config.files import load_search_config
from ajpq.config.schema import ProblemConfig
from ajpq.evaluate import Images
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.runs.candidates import CandidateLog
from ajpq.runs.journal import Journal
from ajpq.selection.contest import contest
from ajpq.selection.fidelity import (
    Answers,
    Rival,
    falls_short,
    falls_short_calibrating,
    logits_until_lost,
    lost_points,
)
from ajpq.selection.judge import judge
from envs.budget import Budget

IMAGES = 1000
# To 128, 256, 384, 512, 768 and all images.
PORTIONS = [128, 128, 128, 128, 256, 232]


@pytest.fixture(scope="module")
def problem():
    """The digits, and a network that has learned something of them."""
    stage = Stage(mode="float", epochs=5, batch_size=64, learning_rate=0.1)
    base = Recipe(name="short", stages=(stage,))
    return build_problem(ProblemConfig(target="size-only", criterion="l1", base=base))


def answers(rng, count, top1):
    return torch.from_numpy(rng.random(count) < top1)


def test_the_interval_covers_the_truth():
    """Both are right on an image independently; the lower bound exceeds the truth in half a percent
    of all cases, as it says."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(4000):
        rival, right = answers(rng, 256, 0.85), answers(rng, 256, 0.80)
        above += lost_points(rival, right)[1] > 5.0
    assert 0.001 <= above / 4000 <= 0.01


def test_lost_points_are_the_difference_of_top1_on_the_images_seen():
    rng = np.random.default_rng(1)
    rival, right = answers(rng, IMAGES, 0.9), answers(rng, 300, 0.7)
    expected = 100 * float(rival[:300].double().mean() - right.double().mean())
    mean, lower = lost_points(rival, right)
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


def test_answers_during_calibration_count_like_the_sample_where_the_rival_has_some():
    for lost, clear in ((3, False), (10, True)):
        right = torch.arange(128) >= lost
        rival = Rival(Answers(torch.ones(512, dtype=torch.bool), torch.ones(128, dtype=torch.bool)))
        assert falls_short_calibrating(rival, right) == falls_short(rival, right) == clear
        assert not falls_short_calibrating(Rival(rival.answers, 20.0), right)
        assert not falls_short_calibrating(Rival(Answers(rival.answers.right)), right)
        assert not falls_short_calibrating(None, right)


@pytest.mark.parametrize(("top1", "allowed", "looks"), [(0.5, 0.0, 1), (0.5, 60.0, 6)])
def test_a_bad_candidate_is_given_up_and_one_that_may_be_so_bad_is_not(top1, allowed, looks):
    rng, seen = np.random.default_rng(2), []
    right = answers(rng, IMAGES, top1)
    sample, run = sample_and_run(right, seen)
    logits = logits_until_lost(run, sample, Rival(Answers(answers(rng, IMAGES, 0.95)), allowed))
    assert seen == PORTIONS[:looks]
    assert torch.equal(logits.argmax(1) == 0, right[: len(logits)])


def test_without_a_rival_all_images_are_seen_in_the_same_portions():
    seen = []
    sample, run = sample_and_run(answers(np.random.default_rng(3), IMAGES, 0.1), seen)
    assert len(logits_until_lost(run, sample, None)) == IMAGES
    assert seen == PORTIONS


def test_as_good_as_its_rival_a_candidate_is_hardly_ever_given_up():
    rng, stopped = np.random.default_rng(4), 0
    for _ in range(300):
        both = answers(rng, IMAGES, 0.8)
        flip = rng.random((2, IMAGES)) < 0.1
        rival, right = (both ^ torch.from_numpy(own) for own in flip)
        sample, run = sample_and_run(right, [])
        stopped += len(logits_until_lost(run, sample, Rival(Answers(rival)))) < IMAGES
    assert stopped / 300 <= 0.04


class Life:
    """One life of a search: its journal, its candidates, its judge."""

    def __init__(self, problem, folder):
        config = load_search_config("digits", {"kl_weight": 0.0})
        self.keep = config.final[0].keep
        self.log = CandidateLog(Journal(folder / "journal.jsonl", 0.0))
        judged = contest(config, problem, self.log)
        self.judged = lambda policy: judged(policy, Budget({}, {}, None, 0.0))

    def metrics(self, policy):
        found = self.judged(policy)
        self.log.keep(policy, found, found.top1_val)
        return found


def test_what_clearly_misses_the_finals_is_given_up_also_after_an_interruption(problem, tmp_path):
    everything = len(problem.search_sample.labels)
    first = Life(problem, tmp_path)
    good = [problem.uniform(bits) for bits in (8, 7, 6, 5)[: first.keep]]
    assert [first.metrics(policy).images for policy in good] == [everything] * first.keep
    hopeless = problem.uniform(2)
    again = Life(problem, tmp_path)
    for policy in good:
        assert again.metrics(policy) == first.judged(policy)
    given_up = again.metrics(hopeless)
    assert given_up == first.metrics(hopeless)
    assert given_up.images == 0  # the answers to its calibration were enough
    alone = judge(problem, load_search_config("digits", {}).candidate, hopeless)
    assert given_up.packed_bytes == pytest.approx(alone.packed_bytes, rel=0.02)
    assert given_up.top1_val == pytest.approx(alone.top1_val, abs=15)
    assert given_up.kl == pytest.approx(alone.kl, rel=0.3)
    worst = min(first.metrics(policy).top1_val for policy in good)
    assert given_up.top1_val < worst


def test_against_the_uncompressed_network_only_the_sample_counts(problem, tmp_path):
    """It knows the training images by heart: whatever is compressed falls short there."""
    config = load_search_config("digits", {"kl_weight": 0.0, "max_drop": 1.0})
    judged = contest(config, problem, CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0)))
    found = judged(problem.uniform(2), Budget({}, {}, 1.0, 0.0))
    assert 0 < found.images <= len(problem.search_sample.labels)


def test_a_candidate_is_judged_as_if_it_were_alone(problem, tmp_path):
    config = load_search_config("digits", {})
    for bits in (8, 4):
        alone = judge(problem, config.candidate, problem.uniform(bits))
        assert Life(problem, tmp_path / str(bits)).judged(problem.uniform(bits)) == alone


def test_places_are_those_of_the_ranking(tmp_path, problem):
    log = CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0))
    metrics = judge(problem, load_search_config("digits", {}).candidate, problem.uniform(8))
    for bits, value in ((8, 0.5), (7, 0.5), (6, 0.9), (5, 0.5)):
        log.assess(problem.uniform(bits), lambda policy: metrics)
        log.keep(problem.uniform(bits), metrics, value)
    ranked = log.ranked(lambda metrics: True)
    assert [log.placed(place, lambda metrics: True) for place in (1, 2, 3, 4)] == ranked
    assert log.placed(5, lambda metrics: True) is None
    assert log.placed(1, lambda metrics: False) is None
