"""Methods in a search: every channel is trained, and stored, at the width that it was given."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ajpq.base import build_problem
from ajpq.compressed import stored_widths, with_widths
from ajpq.config.files import method_stage, shipped, width_keeping_methods
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.finetune.tuning import fine_tune
from ajpq.methods import MethodSpec, make_method
from ajpq.packed import load, save
from ajpq.policy import WEIGHT_BITS, check_policy
from ajpq.problem import network_of, unshrunk_of
from ajpq.reference import simulate
from hw_models.size_only import SizeOnly

BASE = Recipe(name="tiny", stages=(Stage(mode="float", steps=4, batch_size=64),))
SHORT = {"epochs": None, "steps": 2, "warmup_steps": 0, "batch_size": 64}


class PowersOfTwo(SizeOnly):
    weight_bits = (0, 2, 4, 8)


@pytest.fixture(scope="module")
def problem():
    config = ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE, search_images=20)
    return build_problem(config)


@pytest.fixture(scope="module")
def mixed(problem):
    """All widths in every layer, and narrow activations."""
    policy = problem.uniform(8)
    layers = {
        name: layer.model_copy(
            update={
                "weight_bits": tuple(
                    itertools.islice(itertools.cycle(WEIGHT_BITS), len(layer.weight_bits))
                ),
                "activation_bits": 4,
            }
        )
        for name, layer in policy.layers.items()
    }
    return policy.model_copy(update={"layers": layers})


def keeps(codes, weight, bits):
    """Is a row what its width allows? A pruned one is zero, no other is."""
    if bits in (0, 32):
        return np.array_equal(codes, weight if bits else np.zeros_like(weight))
    return 1 < len(np.unique(codes)) <= 2**bits - 1


def survived(problem, policy, weights):
    rows = (
        keeps(codes, weight, bits)
        for op in unshrunk_of(problem, policy, weights).layers
        for codes, weight, bits in zip(
            op.weights.codes,
            weights.latent[f"{op.name}.weight"].numpy(),
            policy.layers[op.name].weight_bits,
            strict=True,
        )
    )
    return all(rows)


def short(name):
    """A method's stage; a codebook of so few blocks needs more bits for each weight."""
    stage = method_stage(name).model_copy(update=SHORT)
    if stage.mode != "straight_through" or stage.trainer.name != "gwk":
        return stage
    spec = MethodSpec(name="gwk", params={**stage.trainer.params, "bits_per_weight": 2})
    return stage.model_copy(update={"method": spec})


@pytest.mark.parametrize("name", shipped("methods"))
def test_mixed_widths_survive_training_and_the_file(problem, mixed, name, tmp_path):
    stage = short(name)
    kept = stage.keeping_widths()
    weights = fine_tune(problem, mixed, Recipe(name="r", stages=(kept or stage,)))
    assert survived(problem, mixed, weights) == (kept is not None)
    for layer, own in weights.asked.items():
        assert tuple(own.tolist()) == mixed.layers[layer].weight_bits
    network, images = network_of(problem, mixed, weights), problem.search_sample.images
    save(network, tmp_path / "w.ajpq")
    expected = simulate(unshrunk_of(problem, mixed, weights), images)
    assert torch.equal(simulate(network, images), expected)
    assert torch.equal(simulate(load(tmp_path / "w.ajpq"), images), expected)


def test_widths_that_a_device_does_not_store_become_the_next_that_it_does(problem):
    """The answers stay the same: codes of 3 bits fit into 4."""
    stage = method_stage("ewgs-mid-rise").model_copy(update=SHORT)
    recipe, policy = Recipe(name="r", stages=(stage,)), problem.uniform(2)
    found = []
    for target in (problem.target, PowersOfTwo()):
        asked = dataclasses.replace(problem, target=target)
        weights = fine_tune(asked, policy, recipe)
        settled = with_widths(policy, weights.widths)
        check_policy(settled, asked.channels, asked.target)
        widths = {bits for layer in settled.layers.values() for bits in layer.weight_bits}
        network = network_of(asked, policy, weights)
        found.append((widths, simulate(network, problem.search_sample.images)))
    assert [widths for widths, _ in found] == [{3}, {4}]
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((0, 2, 3, 4, 8, 32), [0, 2, 3, 8, 8, 32]),
        ((0, 4, 8), [0, 4, 4, 8, 8, 32]),
        ((2, 4), [0, 2, 4, 5, 8, 32]),
    ],
)
def test_the_next_stored_width(stored, expected):
    widths = torch.tensor([0, 2, 3, 5, 8, 32])
    assert stored_widths(widths, stored).tolist() == expected


def test_learned_widths_are_not_given_ones():
    fixed, learned = (
        make_method(MethodSpec(name="codeq", params={"max_bits": most})) for most in (None, 8)
    )
    assert fixed.keeping_widths() is fixed
    assert learned.keeping_widths() is None
    assert set(width_keeping_methods()) >= {
        *("lsq", "ewgs", "codeq", "gdrq", "ptq", "gwk", "straight_through", "psg")
    }


@pytest.mark.parametrize("name", ["gwk", "gwk-channels"])
def test_a_codebook_has_the_grids_of_its_rows_only_in_a_search(problem, mixed, name):
    stage = short(name)
    assert make_method(stage.trainer) != make_method(stage.keeping_widths().trainer)
    weights = fine_tune(problem, mixed, Recipe(name="r", stages=(stage,)))
    assert not survived(problem, mixed, weights)
