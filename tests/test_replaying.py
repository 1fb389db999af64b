"""What may differ between a training and its repetition: widths that the method chose too."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ajpq.compressed import CompressedWeights
from ajpq.policy import uniform_policy
from ajpq.replaying import _excuses, same_weights
from hw_models.errors import AjpqError

RECORDED = {"top1_val": 90.0, "macs": 3, "bops": {"all": 1}}


def chosen(*bits, weight=0.0):
    return CompressedWeights({"w": torch.tensor(weight)}, {}, {}, {}, {"fc": torch.tensor(bits)})


def excused(weights, monkeypatch, changed=("processor abacus there",), **replayed):
    monkeypatch.setattr("ajpq.replaying.changed_surroundings", lambda result: list(changed))
    policy = uniform_policy({"conv": 3, "fc": 2}, 4)
    run = SimpleNamespace(folder=Path("run"), weights=chosen(4.0, 4.0), policy=policy, result={})
    return _excuses(run, weights, RECORDED, RECORDED | replayed)


def test_weights_of_other_widths_are_other_weights():
    assert same_weights(chosen(4.0, 4.0), chosen(4.0, 4.0))
    assert not same_weights(chosen(4.0, 4.0), chosen(4.0, 2.0))
    assert not same_weights(chosen(4.0, 4.0), CompressedWeights({"w": torch.tensor(0.0)}, {}, {}))


def test_elsewhere_a_training_may_choose_other_widths(monkeypatch):
    assert excused(chosen(4.0, 2.0, weight=1.0), monkeypatch, macs=2)
    with pytest.raises(AjpqError, match="top1_val was 90"):
        excused(chosen(4.0, 2.0, weight=1.0), monkeypatch, macs=2, top1_val=80.0)


def test_with_the_same_widths_costs_are_the_same_everywhere(monkeypatch):
    with pytest.raises(AjpqError, match="macs was 3, is 2"):
        excused(chosen(4.0, 4.0, weight=1.0), monkeypatch, macs=2)


def test_here_a_training_chooses_the_same_widths(monkeypatch):
    with pytest.raises(AjpqError, match="macs was 3, is 2"):
        excused(chosen(4.0, 2.0, weight=1.0), monkeypatch, changed=(), macs=2)
