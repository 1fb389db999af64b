"""The throughput benchmark: what it compares with, and what its bars mean."""

import numpy as np
import pytest
import torch

from ajpq.policy import uniform_policy
from ajpq.selection.answers import Answers, Shown, without_divergence
from ajpq.selection.fidelity import Rival
from benchmarks import throughput, throughput_candidates, throughput_parts, throughput_tuned
from benchmarks.straightforward import judged, largest_inputs, on_grid
from tests.modules import build, images, minmax


def test_rows_go_to_the_grid_of_their_largest_weight():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    bits = torch.tensor([2, 3, 5, 8])
    codes, scales = minmax(weight, bits)
    expected = codes * scales.view(-1, 1, 1, 1)
    found = torch.stack([on_grid(row, int(b)) for row, b in zip(weight, bits, strict=True)])
    assert torch.allclose(found, expected, atol=1e-6)
    assert not on_grid(weight[0], 0).any()


def test_the_straightforward_candidate_is_a_sound_one():
    """At 8 bits it answers like the module; with nothing left, like a constant."""
    model, x = build("gated"), images(200)
    channels = {
        name: module.out_channels if hasattr(module, "out_channels") else module.out_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    with torch.no_grad():
        labels = model(x).argmax(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wide, empty = (uniform_policy(channels, bits, 8) for bits in (8, 0))
    reach = largest_inputs(model, wide, x)
    assert judged(model, wide, reach, x, labels) >= 95
    assert judged(model, empty, reach, x, labels) < 95
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_bars_compare_figures_of_one_run(slower):
    found = {
        ("plain", "resnet20"): 1000.0,
        ("candidate", "resnet20"): 900.0 / slower,
        ("candidate, half of the channels", "resnet20"): 1200.0 / slower,
        ("reference", "resnet20"): 250.0 / slower,
        ("straightforward candidate", "resnet20"): 12.0,
        ("candidate on all validation images", "resnet20"): 3.0 * slower,
        ("candidate as searched", "resnet20"): 1.0 * slower,
        ("finalists given up", "resnet20"): 1.5 * slower,
        ("finalists given up, divergence counted", "resnet20"): 1.5 * slower,
        ("finalists given up, near chance", "resnet20"): 1.5 * slower,
        ("tuned finalists given up", "resnet20"): 1.5 * slower,
        ("episode", "resnet20"): 1.0,
        ("episode outside evaluation", "resnet20"): 0.09 * slower,
        ("training step", "resnet20"): 250.0 / slower,
        ("training step, eager", "resnet20"): 100.0,
        ("PSG step", "resnet20"): 240.0 / slower**2,
        ("candidate per GMAC", "resnet20"): 10.0,
        ("candidate per GMAC", "resnet110"): 11.9 * slower,
        ("memory growth", "resnet8"): 4.0 * slower,
    }
    bars = throughput.bars(found)
    assert {bar["holds"] for bar in bars.values()} == {slower == 1.0}


def test_decisions_count_candidates_that_would_have_been_finalists():
    """Where all are equally good on all images nothing is given up; clear losers are, rightly."""
    same = [Answers(without_divergence(torch.ones(1000, dtype=torch.bool)))] * 6
    assert throughput_candidates.decisions(same, 2, 0) == (0.0, 1000.0)
    shares = torch.linspace(900, 100, 6)
    steps = [without_divergence(torch.arange(1000) < share) for share in shares]
    wrong, images = throughput_candidates.decisions([Answers(own) for own in steps], 2, 0)
    assert wrong == 0.0
    assert images < 700
    early = [
        Answers(own, without_divergence(torch.arange(200) < share / 5))
        for own, share in zip(steps, shares, strict=True)
    ]
    wrong, fewer = throughput_candidates.decisions(early, 2, 0)
    assert wrong == 0.0
    assert fewer < images
    everything_or_nothing = fewer * len(early) * throughput_candidates.ORDERS / 1000
    assert everything_or_nothing == pytest.approx(round(everything_or_nothing))


def test_decisions_may_count_divergence_too():
    """All are right equally often; of those that diverge more than others few images say it."""
    right, rng = torch.ones(1000, dtype=torch.bool), np.random.default_rng(0)
    scales = np.repeat([0.1, 1.0], [3, 17])
    found = [
        Answers(Shown(right, torch.from_numpy(rng.exponential(scale, 1000)))) for scale in scales
    ]
    assert throughput_candidates.decisions(found, 1, 0) == (0.0, 1000.0)
    wrong, images = throughput_candidates.decisions(found, 1, 0, kl_weight=1.0)
    assert wrong <= 2.0
    assert images < 600


def curves(rng, finals, gains):
    """``[P, 3, 1000]``: right at two looks and in the end; a twentieth of answers is flipped."""
    difficulty = rng.random(1000)
    rows = [
        [difficulty < final - gain, difficulty < final - gain / 2, difficulty < final]
        for final, gain in zip(finals, gains, strict=True)
    ]
    right = torch.from_numpy(np.array(rows))
    return right ^ torch.from_numpy(rng.random(right.shape) < 0.05)


def test_whoever_gains_as_others_do_is_hardly_ever_given_up_wrongly():
    rng = np.random.default_rng(0)
    for finals in (rng.uniform(0.2, 0.9, 40), rng.uniform(0.84, 0.88, 40)):
        found = curves(rng, finals, rng.exponential(0.05, 40))
        wrong, saved = throughput_tuned.decisions(found, 3, 0)
        assert wrong <= 2.0
    assert saved <= 5.0  # all are about as good as each other


def test_hopeless_candidates_are_not_trained_to_the_end():
    rng = np.random.default_rng(1)
    finals = np.where(np.arange(40) % 2, 0.3, 0.88)
    wrong, saved = throughput_tuned.decisions(curves(rng, finals, np.full(40, 0.05)), 3, 0)
    assert wrong == 0.0
    assert saved == pytest.approx(75 * 0.5 * 0.75, abs=5)  # half of them, at the first look


def test_nobody_is_given_up_before_it_is_known_what_training_brings():
    rng = np.random.default_rng(2)
    finals = np.where(np.arange(9) < 3, 0.95, 0.1)
    found = curves(rng, finals, np.full(9, 0.02))
    rival = Rival(Answers(without_divergence(found[0, -1])))
    gains = [(2.0, 1.0)] * 7
    assert throughput_tuned.given_up_at(found[5], rival, gains) is None
    assert throughput_tuned.given_up_at(found[5], rival, [*gains, (2.0, 1.0)]) == 0
    assert throughput_tuned.given_up_at(found[5], rival, [*gains, (95.0, 1.0)]) == 1
    assert throughput_tuned.given_up_at(found[5], rival, [*gains, (95.0, 95.0)]) is None
    assert throughput_tuned.given_up_at(found[5], None, [*gains, (2.0, 1.0)]) is None


def test_everything_takes_its_turn():
    order = []
    seconds = throughput_parts.best(
        2, {name: lambda name=name: order.append(name) for name in "ab"}
    )
    assert order == ["a", "b"] * 3
    assert all(np.isfinite(value) for value in seconds.values())
