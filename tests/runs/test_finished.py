"""What a finished run must agree on: the widths in its weights and in its policy."""

from types import SimpleNamespace

import pytest
import torch

from ajpq.compressed import CompressedWeights
from ajpq.finetune.recipe import Recipe
from ajpq.policy import uniform_policy
from ajpq.replaying import problem_of
from ajpq.runs.folder import save_weights
from ajpq.selection.finalists import _measured
from hw_models.errors import AjpqError

POLICY = uniform_policy({"conv": 3, "fc": 2}, 4)


def with_chosen(**widths):
    chosen = {name: torch.tensor(own) for name, own in widths.items()}
    return CompressedWeights({}, {}, {}, widths=chosen)


@pytest.fixture
def loaded(monkeypatch):
    """The problem of a run, when all but its widths has been found to fit."""
    target = SimpleNamespace(name="any", weight_bits=range(9), activation_bits=(8,))
    problem = SimpleNamespace(channels={"conv": 3, "fc": 2}, target=target, graph=None, state=None)
    monkeypatch.setattr("ajpq.replaying.build_problem", lambda *_: problem)
    monkeypatch.setattr("ajpq.replaying.check_weights", lambda *_: None)
    return lambda weights: problem_of(
        SimpleNamespace(config=None, policy=POLICY, asked=POLICY, weights=weights)
    )


def test_widths_of_the_policy_are_taken(loaded):
    assert loaded(with_chosen())
    assert loaded(with_chosen(fc=[4.0, 4.0]))


@pytest.mark.parametrize("width", [5.0, 2.6, 4.4, 0.0, 100.0, -3.0])
def test_other_widths_are_refused_by_layer_and_value(loaded, width):
    with pytest.raises(AjpqError, match=f"{width:g} bits in layer 'fc', which has 4 in its policy"):
        loaded(with_chosen(conv=[4.0, 4.0, 4.0], fc=[4.0, width]))


def test_a_target_refuses_widths_that_training_chose_and_it_does_not_store(tmp_path):
    done = tmp_path / "weights.safetensors"
    save_weights(done, with_chosen(fc=[4.0, 3.0]))
    target = SimpleNamespace(name="narrow", weight_bits=(0, 4), activation_bits=(8,))
    problem = SimpleNamespace(channels={"conv": 3, "fc": 2}, target=target)
    trained = SimpleNamespace(policy=POLICY, done=done, recipe=Recipe(name="none", stages=()))
    journal = SimpleNamespace(next_recorded=lambda **_: None)
    with pytest.raises(AjpqError, match=r"'narrow' stores weights of .*, layer 'fc' has 3"):
        _measured(problem, 0, trained, 1, None, journal)
