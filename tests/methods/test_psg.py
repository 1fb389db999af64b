"""What PSG prunes when its stage ends."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import PSGSettings, Recipe, Stage
from ajpq.finetune.tuning import Watch, fine_tune
from ajpq.graph.channels import inner_layers
from ajpq.graph.structure import layers
from ajpq.methods.psg import weak_channels
from ajpq.problem import network_of
from ajpq.runs.folder import load_weights, save_weights

BASE = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))


@pytest.fixture(scope="module")
def problem():
    return build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE))


def trained(problem, form, sparsity):
    psg = PSGSettings(form=form, sparsity=sparsity)
    stage = Stage(mode="psg", steps=2, batch_size=64, psg=psg)
    return fine_tune(problem, problem.uniform(8), Recipe(name="r", stages=(stage,)))


def test_single_weights_are_zero_in_both_modes(problem):
    weights = trained(problem, "sparse", 0.75)
    names = [layer.node.parameters["weight"] for layer in layers(problem.graph)]
    every = torch.cat([weights.latent[name].flatten() for name in names])
    assert float((every == 0).float().mean()) == pytest.approx(0.75, abs=1e-4)
    network = network_of(problem, problem.uniform(8), weights)
    codes = {op.name: op.weights.codes for op in network.layers}
    for layer in layers(problem.graph):
        latent = weights.latent[layer.node.parameters["weight"]].numpy()
        assert (codes[layer.name][latent == 0] == 0).all()


def test_whole_channels_have_no_bits(problem, tmp_path):
    weights = trained(problem, "sparse_channels", 0.5)
    save_weights(tmp_path / "w.safetensors", weights)
    weights = load_weights(tmp_path / "w.safetensors")
    inner = [layer.name for layer in inner_layers(problem.graph)]
    assert sorted(weights.widths) == sorted(inner)
    gone = torch.cat([weights.widths[name] == 0 for name in inner])
    assert float(gone.float().mean()) == pytest.approx(0.5, abs=1 / len(gone))
    network = network_of(problem, problem.uniform(8), weights)
    rows = {op.name: len(op.weights.bits) for op in network.layers}
    assert all(rows[name] == int((weights.widths[name] > 0).sum()) for name in inner)


@pytest.mark.parametrize("following", [{"mode": "straight_through"}, {"mode": "float"}])
def test_pruned_channels_stay_pruned_in_the_stages_after(problem, following):
    prune = Stage(
        mode="psg", steps=2, batch_size=64, psg={"form": "sparse_channels", "sparsity": 0.5}
    )
    stage = Stage(steps=2, batch_size=64, **following)
    pruned, both = (
        fine_tune(problem, problem.uniform(8), Recipe(name="r", stages=stages))
        for stages in ((prune,), (prune, stage))
    )
    assert both.widths.keys() == pruned.widths.keys()
    for name, own in pruned.widths.items():
        assert torch.equal(both.widths[name], own)
    assert both.latent.keys() == problem.state.keys()


def test_a_resumed_stage_knows_what_was_pruned_before(problem):
    prune = Stage(
        mode="psg", epochs=1, batch_size=640, psg={"form": "sparse_channels", "sparsity": 0.5}
    )
    stage = Stage(mode="straight_through", epochs=2, batch_size=640)
    recipe, seen = Recipe(name="r", stages=(prune, stage)), []
    whole = fine_tune(
        problem, problem.uniform(4), recipe, Watch(on_epoch=lambda *place: seen.append(place))
    )
    rest = fine_tune(problem, problem.uniform(4), recipe, Watch(resume=seen[1]))
    for name, own in whole.widths.items():
        assert torch.equal(rest.widths[name], own)
    for name, own in whole.latent.items():
        assert torch.equal(rest.latent[name], own)


def test_stages_that_would_undo_pruned_weights_or_codebooks_are_refused():
    sparse = {"mode": "psg", "steps": 1, "psg": {"form": "sparse", "sparsity": 0.9}}
    plain = {"mode": "straight_through", "steps": 1}
    for stage, kind in (
        (sparse, "sparse psg"),
        ({**plain, "method": "codeq"}, "codeq"),
        ({**plain, "method": "gwk"}, "gwk"),
    ):
        with pytest.raises(ValueError, match=f"what a {kind} stage ends with would be undone"):
            Recipe(name="r", stages=(stage, plain))
        assert len(Recipe(name="r", stages=(plain, stage, stage)).stages) == 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1), min_size=1),
    st.floats(0, 0.99),
)
def test_exactly_the_share_goes_but_never_a_whole_layer(strengths, share):
    named = {str(number): torch.tensor(own) for number, own in enumerate(strengths)}
    weak = weak_channels(named, share)
    every = sum(len(own) for own in strengths)
    gone = sum(int(own.sum()) for own in weak.values())
    assert gone == min(round(share * every), every - len(strengths))
    for name, own in weak.items():
        assert not own.all()
        assert named[name][~own].max() == named[name].max()
    spared = [named[n][~own].sort().values[:-1] for n, own in weak.items()]
    cut = [named[n][own] for n, own in weak.items()]
    if gone and any(len(own) for own in spared):
        assert torch.cat(cut).max() <= torch.cat(spared).min()


def test_a_layer_of_weak_channels_only_keeps_one():
    weak = weak_channels({"a": torch.arange(4.0), "b": torch.arange(4.0) + 4}, 0.5)
    assert {name: own.tolist() for name, own in weak.items()} == {
        "a": [True, True, True, False],
        "b": [True, False, False, False],
    }


def test_grids_prune_nothing():
    with pytest.raises(ValueError, match="only the sparse forms prune"):
        PSGSettings(sparsity=0.5)
