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
from ajpq.selection.answers import Answers, Shown, without_divergence
from ajpq.selection.contest import contest
from ajpq.selection.fidelity import (
    Rival,
    falls_short,
    falls_short_calibrating,
    images_until_lost,
    logits_until_lost,
    lost_points,
)
from ajpq.selection.judge import judge
from ajpq.simulation.ranking import prepare_ranking
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


def known(right, calibrating=()):
    """A rival's answers of which only accuracy counts."""
    early = torch.as_tensor(calibrating, dtype=torch.bool)
    return Rival(Answers(without_divergence(right), without_divergence(early)))


def test_the_interval_covers_the_truth():
    """Both are right on an image independently; the lower bound exceeds the truth in half a percent
    of all cases, as it says."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(4000):
        rival, right = answers(rng, 256, 0.85), answers(rng, 256, 0.80)
        above += lost_points(100.0 * rival, 100.0 * right)[1] > 5.0
    assert 0.001 <= above / 4000 <= 0.01


def test_the_interval_covers_the_truth_of_rewards_that_count_divergence():
    """Divergences of single images have a long tail, mostly of images that both find hard."""
    rng, above, gap = np.random.default_rng(5), 0, 0.02
    for _ in range(4000):
        hard = rng.lognormal(-3.5, 1.5, 128)
        both = [hard * rng.lognormal(0, 0.5, 128) + own for own in (0.0, gap)]
        right = without_divergence(answers(rng, 128, 0.8)).right
        rival, found = (Shown(right, torch.from_numpy(kl)) for kl in both)
        above += Rival(Answers(), kl_weight=3.0).lost(rival, found)[1] > 300 * gap
    assert above / 4000 <= 0.01


def test_rewards_of_the_images_seen_are_compared():
    rng = np.random.default_rng(6)
    rival, found = (
        Shown(answers(rng, count, 0.8), torch.from_numpy(rng.exponential(0.1, count)))
        for count in (IMAGES, 300)
    )
    mean, lower = Rival(Answers(), kl_weight=2.0).lost(rival, found)
    top1, kl = (
        float((getattr(rival, what)[:300].double() - getattr(found, what).double()).mean())
        for what in ("right", "kl")
    )
    assert mean == pytest.approx(100 * top1 - 200 * kl)
    assert lower < mean


def test_lost_points_are_the_difference_of_top1_on_the_images_seen():
    rng = np.random.default_rng(1)
    rival, right = answers(rng, IMAGES, 0.9), answers(rng, 300, 0.7)
    expected = 100 * float(rival[:300].double().mean() - right.double().mean())
    mean, lower = lost_points(100.0 * rival, 100.0 * right)
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
        found, everything = without_divergence(torch.arange(128) >= lost), torch.ones(512).bool()
        rival = known(everything, everything[:128])
        assert falls_short_calibrating(rival, found) == falls_short(rival, found) == clear
        assert not falls_short_calibrating(Rival(rival.answers, 20.0), found)
        assert not falls_short_calibrating(known(everything), found)
        assert not falls_short_calibrating(Rival(rival.answers, kl_weight=1.0), found)
        assert not falls_short_calibrating(None, found)


@pytest.mark.parametrize(("top1", "allowed", "looks"), [(0.5, 0.0, 1), (0.5, 60.0, 6)])
def test_a_bad_candidate_is_given_up_and_one_that_may_be_so_bad_is_not(top1, allowed, looks):
    rng, seen = np.random.default_rng(2), []
    right = answers(rng, IMAGES, top1)
    sample, run = sample_and_run(right, seen)
    rival = Rival(known(answers(rng, IMAGES, 0.95)).answers, allowed)
    logits = logits_until_lost(run, sample, rival)
    assert seen == PORTIONS[:looks]
    assert images_until_lost(without_divergence(right), rival) == len(logits)
    assert torch.equal(logits.argmax(1) == 0, right[: len(logits)])


def test_without_a_rival_all_images_are_seen_in_the_same_portions():
    seen = []
    sample, run = sample_and_run(answers(np.random.default_rng(3), IMAGES, 0.1), seen)
    assert len(logits_until_lost(run, sample, None)) == IMAGES
    assert seen == PORTIONS


def test_however_many_images_there_are_few_are_shown_together():
    seen = []
    sample, run = sample_and_run(answers(np.random.default_rng(7), 5000, 0.5), seen)
    assert len(logits_until_lost(run, sample, None)) == sum(seen) == 5000
    assert max(seen) == 512
    assert len(set(seen)) <= 4  # and what is left over


def test_as_good_as_its_rival_a_candidate_is_hardly_ever_given_up():
    rng, stopped = np.random.default_rng(4), 0
    for _ in range(300):
        both = answers(rng, IMAGES, 0.8)
        flip = rng.random((2, IMAGES)) < 0.1
        rival, right = (both ^ torch.from_numpy(own) for own in flip)
        sample, run = sample_and_run(right, [])
        stopped += len(logits_until_lost(run, sample, known(rival))) < IMAGES
    assert stopped / 300 <= 0.04


class Life:
    """One life of a search: its journal, its candidates, its judge."""

    def __init__(self, problem, folder, kl_weight=0.0):
        config = load_search_config("digits", {"kl_weight": kl_weight})
        self.worth = lambda found: found.top1_val - 100 * kl_weight * found.kl
        self.keep = config.final[0].keep
        self.log = CandidateLog(Journal(folder / "journal.jsonl", 0.0))
        judged = contest(config, problem, self.log)
        self.judged = lambda policy: judged(policy, Budget({}, {}, None, 0.0))

    def metrics(self, policy):
        found = self.judged(policy)
        self.log.keep(policy, found, self.worth(found))
        return found


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_what_clearly_misses_the_finals_is_given_up_also_after_an_interruption(
    problem, tmp_path, kl_weight
):
    everything = len(problem.search_sample.labels)
    first = Life(problem, tmp_path, kl_weight)
    good = [problem.uniform(bits) for bits in (8, 7, 6, 5)[: first.keep]]
    assert [first.metrics(policy).images for policy in good] == [everything] * first.keep
    hopeless = problem.uniform(2)
    again = Life(problem, tmp_path, kl_weight)
    for policy in good:
        assert again.metrics(policy) == first.judged(policy)
    given_up = again.metrics(hopeless)
    assert given_up == first.metrics(hopeless)
    assert given_up.given_up
    # Of accuracy alone the answers to its calibration were enough.
    assert given_up.images == (128 if kl_weight else 0)
    alone = judge(problem, load_search_config("digits", {}).candidate, hopeless)
    assert given_up.packed_bytes == pytest.approx(alone.packed_bytes, rel=0.02)
    assert given_up.top1_val == pytest.approx(alone.top1_val, abs=15)
    assert given_up.kl == pytest.approx(alone.kl, rel=0.3)
    worst = min(first.worth(first.metrics(policy)) for policy in good)
    assert first.worth(given_up) < worst


def test_of_equal_accuracy_the_one_that_diverges_more_is_given_up_where_that_counts(
    problem, tmp_path, monkeypatch
):
    """Rivals are judged as they are; its answers to the sample are all but taken back, which leaves
    the largest the largest."""
    policy, sample = problem.uniform(7), problem.search_sample

    def told(kl_weight):
        folder = tmp_path / str(kl_weight)
        folder.mkdir()
        life = Life(problem, folder, kl_weight)
        for bits in (8, 6, 5, 4)[: life.keep]:
            life.metrics(problem.uniform(bits))
        with monkeypatch.context() as patched:
            patched.setattr(
                "ajpq.selection.judge.prepare_ranking",
                lambda network, prefixes: lambda images: 0.01 * prepare_ranking(network)(images),
            )
            return life.metrics(policy).images

    assert told(0.0) == len(sample.labels)
    assert told(1.0) == 128


@pytest.mark.parametrize("kl_weight", [0.0, 0.5])
def test_against_the_uncompressed_network_only_accuracy_on_the_sample_counts(
    problem, tmp_path, kl_weight
):
    """It knows the training images by heart: whatever is compressed falls short there. Whoever asks
    is told the same, so that estimates rank with what was judged in full."""
    config = load_search_config("digits", {"kl_weight": kl_weight, "max_drop": 1.0})
    judged = contest(config, problem, CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0)))
    found = judged(problem.uniform(2), Budget({}, {}, 1.0, 0.0))
    assert 0 < found.images < len(problem.search_sample.labels)
    assert not found.given_up


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


def test_who_was_given_up_comes_behind_all_who_were_not(tmp_path, problem):
    log = CandidateLog(Journal(tmp_path / "journal.jsonl", 0.0))
    full = judge(problem, load_search_config("digits", {}).candidate, problem.uniform(8))
    for bits, value in ((8, 0.5), (7, 0.9), (6, 0.6)):
        metrics = full.model_copy(update={"given_up": bits == 7})
        log.assess(problem.uniform(bits), lambda policy, found=metrics: found)
        log.keep(problem.uniform(bits), metrics, value)
    assert log.ranked(lambda metrics: True) == [problem.uniform(bits) for bits in (6, 8, 7)]
