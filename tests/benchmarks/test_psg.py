"""Parts of ``benchmarks/psg.py`` and ``benchmarks/proxies.py`` whose answers are known."""

import numpy as np
import pytest
import torch

from ajpq.graph.channels import inner_layers
from ajpq.graph.execute import execute
from ajpq.graph.structure import layers
from benchmarks import proxies, psg, psg_choices, psg_views
from tests import modules


@pytest.fixture(scope="module")
def net():
    graph, tensors = modules.traced("option_a")
    return graph, {name: value for name, value in tensors.items() if value.is_floating_point()}


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_the_smallest_weights_of_the_whole_network_go(net, share):
    graph, state = net
    names = [layer.node.parameters["weight"] for layer in layers(graph)]
    pruned = psg_views.without_weights(graph, state, share)
    before = torch.cat([state[name].abs().flatten() for name in names])
    after = torch.cat([pruned[name].abs().flatten() for name in names])
    assert float((after == 0).float().mean()) == pytest.approx(share, abs=2 / len(before))
    assert before[after == 0].max() <= before[after > 0].min()
    assert torch.equal(before[after > 0], after[after > 0])


def test_the_weakest_channels_go_with_their_offsets(net):
    graph, state = net
    shifted = {n: v + 0.5 if n.endswith("bias") else v for n, v in state.items()}
    pruned = psg_views.without_channels(graph, shifted, 0.5)
    seen = {}
    execute(graph, pruned, modules.images(), edge=seen.setdefault)
    inner = {layer.name for layer in inner_layers(graph)}
    strengths, missing = [], []
    for layer in layers(graph):
        name = layer.node.parameters["weight"]
        if layer.name not in inner:
            assert torch.equal(pruned[name], shifted[name])
            continue
        gone = (pruned[name].flatten(1) == 0).all(1)
        strengths.append(shifted[layer.batchnorm.parameters["weight"]].abs())
        missing.append(gone)
        assert (seen[layer.activation.output][:, gone] == 0).all()
    strength, gone = torch.cat(strengths), torch.cat(missing)
    assert int(gone.sum()) == round(0.5 * len(gone))
    assert strength[gone].max() <= strength[~gone].min()


def test_each_training_is_measured_where_it_was_made_for():
    assert psg.belongs("sgd", "4-channel")
    assert not psg.belongs("sgd", "channels-0.3")
    assert psg.belongs("sgd-sparse", "channels-0.3-l1")
    assert psg.belongs("sgd-sparse", "weights-0.3")
    assert not psg.belongs("sgd-sparse", "8-tensor")
    assert psg.belongs("sgd-sparse", "full precision")
    assert psg.belongs("sgd-channels-0.3", "channels-0.3-l1")
    assert not psg.belongs("sgd-channels-0.3", "channels-0.5")
    assert psg.belongs("psg-4-channel", "4-channel")
    assert psg.belongs("psg-4-channel", "full precision")
    assert not psg.belongs("psg-4-channel", "4-tensor")
    assert psg.belongs("psg-weights", "weights-0.3")
    assert not psg.belongs("psg-weights", "channels-0.3")
    assert psg.belongs("straight-through-2-tensor", "2-tensor")
    assert not psg.belongs("straight-through-2-tensor", "full precision")


def test_one_decay_for_all_sparsities_by_the_least_lead_and_the_best_for_each(monkeypatch):
    strong = 0.01
    sgd = {psg_choices.WEAK: (80, 60, 50, 10), 8 * strong: (70, 70, 60, 20)}
    scaled = {strong: (81, 71, 61, 12), 8 * strong: (95, 90, 85, 9), 16 * strong: (0, 0, 0, 30)}

    def by_sparsity(lab, training, aim):
        known = scaled if training.name == "psg-weights" else sgd
        points = known.get(training.stage.weight_decay, (0, 0, 0, 0))
        return dict(zip(psg_views.SPARSITIES, points, strict=True))

    monkeypatch.setattr(psg_choices, "by_sparsity", by_sparsity)
    chosen = {"sgd": 0.003, "psg-weights": 50.0}
    sparse = psg_choices.plain_stage(epochs=8)
    found = psg_choices.settled(None, sparse, chosen, "weights", strong)
    decays = {name: training.stage.weight_decay for name, training in found.items()}
    assert decays == {
        "sgd-sparse": psg_choices.WEAK,
        "psg-weights": strong,
        **{f"psg-weights-{share}": 8 * strong for share in (0.3, 0.5, 0.7)},
        "psg-weights-0.9": 16 * strong,
        "sgd-weights-0.3": psg_choices.WEAK,
        **{f"sgd-weights-{share}": 8 * strong for share in (0.5, 0.7, 0.9)},
    }
    assert found["sgd-sparse"].stage.learning_rate == 0.003


def row(setting, sgd, found):
    return {"setting": setting, "sgd": sgd, "psg": found, "psg_full": 91.0}


@pytest.mark.parametrize(
    ("gains", "holds"),
    [((-0.1, 0.1, 5.0), [True] * 4), ((-0.3, 0.0, -1.0), [False] * 4)],
)
def test_bars(gains, holds):
    mild, hard, own = gains
    rows = [
        row("8 bit per channel", 90.0, 90.0 + mild),
        row("30% of the weights pruned", 90.0, 90.5),
        row("2 bit per tensor", 20.0, 20.0 + hard),
        row("4 bit per channel", 90.6 - own, 90.6 if holds[2] else 90.4),
    ]
    rows[1] |= {"sgd_tuned": 91.0, "psg_tuned": 90.9 if holds[3] else 90.7}
    assert [bar["holds"] for bar in psg.bars(rows).values()] == holds


def test_the_cheapest_of_the_faithful_proxies_is_chosen():
    rng = np.random.default_rng(0)
    truth = rng.uniform(50, 90, 30)
    noise = {0: 40.0, 4: 0.0, 20: 0.0, 100: 0.0}
    entries = []
    for index, value in enumerate(truth):
        entry = {"full": value, "packed_bytes": 1000 + index}
        for steps in proxies.STEPS:
            shown = value + noise[steps] * rng.standard_normal()
            entry[str(steps)] = {"top1": shown, "kl": -shown, "reward": shown, "seconds": steps + 1}
        entries.append(entry)
    rows = proxies.table(entries)
    (chosen,) = [found for found in rows if found["chosen"]]
    assert chosen["proxy"].endswith(" 4 PSG steps")
    assert chosen["spearman"] == pytest.approx(1)
    assert all(found["spearman"] < 0.9 for found in rows if " 0 PSG" in found["proxy"])


def test_each_network_is_pruned_by_the_criterion_that_suits_it(monkeypatch):
    answers = {"a/c": 80.0, "a/c-l1": 70.0, "b/c": 60.0, "b/c-l1": 61.0}
    monkeypatch.setattr(psg, "on_validation", lambda problem, networks: dict(answers))
    networks = {name: name for name in [*answers, "a/8"]}
    chosen = psg.by_the_better_criterion(None, networks)
    assert chosen == {"a/8": "a/8", "a/c": "a/c", "b/c": "b/c-l1"}


def test_by_l1_every_layer_loses_the_same_share(net):
    graph, state = net
    pruned = psg_views.without_channels(graph, state, 0.5, psg_views.l1_strength)
    for layer in inner_layers(graph):
        name = layer.node.parameters["weight"]
        norms = state[name].abs().flatten(1).sum(1)
        gone = (pruned[name].flatten(1) == 0).all(1)
        assert int(gone.sum()) == layer.channels // 2
        assert norms[gone].max() <= norms[~gone].min()
