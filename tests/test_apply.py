import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ajpq.apply import ActivationRange, apply_policy, apply_unshrunk
from ajpq.graph.channels import kept_channels
from ajpq.graph.legality import illegal_layers
from ajpq.graph.structure import layers
from ajpq.policy import LayerPolicy
from ajpq.reference import simulate
from hw_models.errors import AjpqError
from hw_models.network import macs
from tests.modules import NETWORKS, images, minmax, pruning_policy, random_policy, ranges, traced

torch.set_num_threads(1)
GRAPHS = {name: traced(name) for name in NETWORKS}
RANGES = {name: ranges(*GRAPHS[name], images(16)) for name in NETWORKS}


def both(name, policy):
    graph, tensors = GRAPHS[name]
    arguments = (graph, tensors, policy, RANGES[name], minmax)
    return apply_policy(*arguments), apply_unshrunk(*arguments)


def by_name(network):
    return {op.name: op for op in network.operators}


@settings(deadline=None, max_examples=120)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 2**32),
    zeros=st.integers(0, 8),
)
def test_removing_pruned_channels_changes_no_bit(name, seed, zeros):
    graph, _ = GRAPHS[name]
    policy = random_policy(graph, np.random.default_rng(seed), (0,) * zeros + (2, 4, 8))
    pruned = {layer: own.bits == 0 for layer, own in policy.layers.items()}
    assume(not illegal_layers(graph, pruned))
    shrunk, unshrunk = both(name, policy)
    assert torch.equal(simulate(shrunk, images(3)), simulate(unshrunk, images(3)))
    assert macs(shrunk) <= macs(unshrunk)
    kept = kept_channels(graph, pruned)
    sources = {op.output: op.inputs[0] for op in shrunk.operators if op.kind == "requantize"}
    assert all(
        edge.shape[0] == kept[sources.get(key, key)].sum() for key, edge in shrunk.edges.items()
    )


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(NETWORKS)), data=st.data())
def test_emptied_layers_are_removed_or_refused(name, data):
    graph, _ = GRAPHS[name]
    emptied = data.draw(st.sets(st.sampled_from([layer.name for layer in layers(graph)])))
    policy = pruning_policy(graph, {layer: list(range(99)) for layer in emptied})
    illegal = illegal_layers(graph, {key: own.bits == 0 for key, own in policy.layers.items()})
    if illegal:
        with pytest.raises(AjpqError, match=f"'{illegal[0]}' would have no live channel"):
            both(name, policy)
        return
    shrunk, unshrunk = both(name, policy)
    assert torch.equal(simulate(shrunk, images(3)), simulate(unshrunk, images(3)))
    assert not emptied & by_name(shrunk).keys()


def test_a_whole_residual_channel_takes_rows_and_columns_with_it():
    pruned = {"conv1": [1], "layer1.conv2": [1], "layer2.0.conv2": [3, 0], "layer2.1.conv2": [3, 0]}
    network, _ = both("option_a", pruning_policy(GRAPHS["option_a"][0], pruned))
    shapes = {op.name: op.weights.codes.shape for op in network.layers}
    assert shapes == {
        "conv1": (3, 3, 3, 3),
        "layer1.conv1": (4, 3, 3, 3),
        "layer1.conv2": (3, 4, 3, 3),
        "layer2.0.conv1": (8, 3, 3, 3),
        "layer2.0.conv2": (6, 8, 3, 3),
        "layer2.1.conv1": (8, 6, 3, 3),
        "layer2.1.conv2": (6, 8, 3, 3),
        "linear": (5, 6),
    }
    select = next(op for op in network.operators if op.kind == "select")
    assert select.attributes["index"] == (-1, 0, 1, 2, -1, -1)


def test_a_zero_row_in_a_living_group_stays_and_is_zero():
    network, _ = both("option_a", pruning_policy(GRAPHS["option_a"][0], {"layer1.conv2": [2]}))
    weights = by_name(network)["layer1.conv2"].weights
    assert weights.codes.shape == (4, 4, 3, 3)
    assert weights.bits.tolist() == [8, 8, 0, 8]
    assert not weights.codes[2].any()
    assert weights.bias[2] == 0


def test_an_emptied_block_leaves_a_rescaling_behind():
    everything = list(range(8))
    policy = pruning_policy(GRAPHS["option_a"][0], {"layer2.1.conv2": everything})
    network, unshrunk = both("option_a", policy)
    assert {"layer2.1.conv1", "layer2.1.conv2"} & by_name(network).keys() == set()
    assert sum(op.kind == "add" for op in unshrunk.operators) == 3
    assert sum(op.kind == "add" for op in network.operators) == 2


def test_whole_groups_leave_a_grouped_convolution():
    policy = pruning_policy(GRAPHS["grouped"][0], {"grouped.0": list(range(6, 12))})
    network, _ = both("grouped", policy)
    operator = by_name(network)["grouped.0"]
    assert operator.weights.codes.shape == (12, 4, 3, 3)
    assert operator.attributes["groups"] == 2
    assert operator.attributes.keys() == {"stride", "padding", "dilation", "groups"}


def test_batchnorm_is_folded_into_scales_and_bias():
    graph, tensors = GRAPHS["option_a"]
    network, _ = both("option_a", pruning_policy(graph, {}))
    weights = by_name(network)["layer1.conv1"].weights
    weight = tensors["layer1.conv1.weight"]
    codes, scales = minmax(weight, torch.full((4,), 8))
    t = {
        key: tensors[f"layer1.bn1.{key}"].double()
        for key in ("weight", "bias", "running_mean", "running_var")
    }
    factor = t["weight"] / (t["running_var"] + 1e-5).sqrt()
    assert np.array_equal(weights.codes, codes.numpy())
    folded = (scales.double() * factor).float()
    assert np.array_equal(weights.scales, folded.bfloat16().float().numpy())  # as 16 bits hold them
    exact = (t["bias"] - t["running_mean"] * factor).numpy()
    source = network.edges[by_name(network)["layer1.conv1"].inputs[0]]
    step = np.abs(source.scale * weights.scales.astype(np.float64))
    assert (np.abs(weights.bias - exact) <= 0.5001 * step).all()
    in_steps = weights.bias / step
    assert in_steps == pytest.approx(np.rint(in_steps), abs=1e-3)  # an int32 holds it exactly


def test_untouched_rows_hold_real_values():
    graph, tensors = GRAPHS["option_a"]
    policy = pruning_policy(graph, {"layer1.conv1": [0]})
    mixed = LayerPolicy(weight_bits=(0, 32, 4, 8))
    policy = policy.model_copy(update={"layers": policy.layers | {"layer1.conv1": mixed}})
    network, _ = both("option_a", policy)
    weights = by_name(network)["layer1.conv1"].weights
    assert weights.codes.dtype == np.float32
    assert weights.bits.tolist() == [32, 4, 8]
    assert np.array_equal(weights.codes[0], tensors["layer1.conv1.weight"][1].numpy())
    assert np.array_equal(weights.codes[1], np.rint(weights.codes[1]))
    assert np.abs(weights.codes[1]).max() == 7


def test_the_quantizer_never_sees_unused_widths():
    graph, tensors = GRAPHS["option_a"]
    policy = pruning_policy(graph, {"conv1": [0]})
    seen = set()

    def spy(weight, bits):
        seen.update(bits.tolist())
        return minmax(weight, bits)

    apply_policy(graph, tensors, policy, RANGES["option_a"], spy)
    assert seen == {8}


def test_a_policy_for_another_network_is_refused():
    policy = pruning_policy(GRAPHS["option_a"][0], {})
    layer = LayerPolicy(weight_bits=(8, 8, 8))
    wrong = policy.model_copy(update={"layers": policy.layers | {"conv1": layer}})
    with pytest.raises(AjpqError, match=r"'conv1' has 4 output channels .* and 3 widths"):
        both("option_a", wrong)
    more = policy.model_copy(update={"layers": policy.layers | {"extra": layer}})
    with pytest.raises(AjpqError, match="'extra' has no output channels"):
        both("option_a", more)


def test_unsigned_ranges_make_unsigned_codes():
    graph, tensors = GRAPHS["option_a"]
    found = {
        edge: ActivationRange(own.maximum, edge == "input")
        for edge, own in RANGES["option_a"].items()
    }
    network = apply_policy(graph, tensors, pruning_policy(graph, {}), found, minmax)
    assert network.edges["input"].signed
    assert not any(e.signed for e in network.edges.values() if e.bits != 32 and e.name != "input")
