import numpy as np
import pytest
import torch
import torch_pruning
from torchvision.models import mobilenet_v2, resnet18

from ajpq.graph.channels import channel_groups, coupled_layers, inner_layers, kept_channels
from ajpq.graph.legality import illegal_layers
from ajpq.graph.structure import layers
from ajpq.graph.trace import trace
from tests.modules import traced

torch.set_num_threads(1)


@pytest.mark.parametrize("build", [resnet18, mobilenet_v2])
def test_groups_equal_those_of_torch_pruning(build):
    model = build().eval()
    graph = trace(model, (3, 32, 32))
    groups = channel_groups(graph)
    outputs = {layer.name: groups[layer.node.output] for layer in layers(graph)}
    oracle = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, 3, 32, 32))
    modules = dict(model.named_modules())
    names = {module: name for name, module in modules.items()}
    for layer in layers(graph)[:-1]:
        channel = layer.channels // 2
        label = outputs[layer.name][channel]
        ours = {(n, c) for n, own in outputs.items() for c in np.flatnonzero(own == label).tolist()}
        prune = torch_pruning.prune_conv_out_channels
        if modules[layer.name].groups > 1:
            prune = torch_pruning.prune_depthwise_conv_out_channels
        group = oracle.get_pruning_group(modules[layer.name], prune, idxs=[channel])
        theirs = {
            (names[dep.target.module], index)
            for dep, indices in group
            if names.get(dep.target.module) in outputs and "out_channels" in dep.handler.__name__
            for index in indices
        }
        assert ours == theirs, layer.name


def test_option_a_couples_the_padded_stream_with_its_middle():
    graph, _ = traced("option_a")
    groups = channel_groups(graph)
    narrow, wide = groups["bn1"], groups["layer2.0.bn2"]
    assert np.array_equal(wide[2:6], narrow)
    assert len(set(wide.tolist())) == 8
    assert np.array_equal(groups["layer2.1.bn2"], wide)
    assert not set(groups["layer1.bn1"].tolist()) & set(wide.tolist())
    assert (groups["input"] == -1).all()
    assert (groups[graph.output] == -1).all()


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("option_a", ["layer1.conv1", "layer2.0.conv1", "layer2.1.conv1"]),
        (
            "depthwise",
            [f"blocks.{b}.{part}.0" for b in (0, 1) for part in ("expand", "depthwise")]
            + ["blocks.1.project.0"],
        ),
    ],
)
def test_inner_layers_are_those_that_no_addition_joins(name, inner):
    assert [layer.name for layer in inner_layers(traced(name)[0])] == inner


def test_coupled_layers_are_the_residual_streams():
    graph, _ = traced("option_a")
    assert coupled_layers(graph) == (("conv1", "layer1.conv2", "layer2.0.conv2", "layer2.1.conv2"),)
    graph, _ = traced("depthwise")
    assert coupled_layers(graph) == (
        ("stem.0", "blocks.0.project.0"),
        ("blocks.0.expand.0", "blocks.0.depthwise.0"),
        ("blocks.1.expand.0", "blocks.1.depthwise.0"),
    )


def test_grouped_convolutions_couple_whole_groups():
    graph, _ = traced("grouped")
    groups = channel_groups(graph)
    inputs, outputs = groups["reduce.1"].reshape(3, 4), groups["grouped.0"].reshape(3, 6)
    for one_in, one_out in zip(inputs, outputs, strict=True):
        assert len(set(one_in.tolist()) | set(one_out.tolist())) == 1
    assert len(set(inputs[:, 0].tolist())) == 3


def test_flattened_columns_follow_their_channel():
    graph, _ = traced("shuffle")
    pruned = {"mix.0": np.array([False, True, False, False])}
    kept = kept_channels(graph, pruned)
    flat = next(node for node in graph.nodes if node.kind == "flatten")
    assert kept[flat.output].reshape(4, 9).all(1).tolist() == [True, False, True, True]
    assert kept[flat.output].sum() == 27


def masks(graph, pruned):
    """Layer to the list of pruned channels, as masks."""
    sizes = {layer.name: layer.channels for layer in layers(graph)}
    return {name: np.isin(np.arange(sizes[name]), channels) for name, channels in pruned.items()}


def counts(graph, pruned):
    """Kept output channels by layer."""
    kept = kept_channels(graph, masks(graph, pruned))
    return {layer.name: int(kept[layer.node.output].sum()) for layer in layers(graph)}


def test_nothing_pruned_nothing_removed():
    for name in ("option_a", "concat", "squeeze_excite", "shuffle", "grouped", "gated"):
        graph, _ = traced(name)
        assert all(kept.all() for kept in kept_channels(graph, {}).values()), name


def test_block_internal_channels_go_at_once():
    graph, _ = traced("option_a")
    found = counts(graph, {"layer1.conv1": [0, 2]})
    assert found["layer1.conv1"] == 2
    assert found["layer1.conv2"] == 4


def test_a_residual_channel_goes_with_its_last_producer():
    graph, _ = traced("option_a")
    stream = {"conv1": [1], "layer1.conv2": [1], "layer2.0.conv2": [3], "layer2.1.conv2": [3]}
    assert counts(graph, stream)["conv1"] == 3
    assert counts(graph, stream)["layer2.1.conv2"] == 7
    for name in stream:
        some = {key: value for key, value in stream.items() if key != name}
        assert counts(graph, some)["conv1"] == 4


def test_zero_padding_counts_as_a_pruned_producer():
    graph, _ = traced("option_a")
    found = counts(graph, {"layer2.0.conv2": [0], "layer2.1.conv2": [0]})
    assert (found["layer2.0.conv2"], found["conv1"]) == (7, 4)


def test_a_depthwise_channel_needs_both_rows():
    graph, _ = traced("depthwise")
    expand, depthwise = "blocks.0.expand.0", "blocks.0.depthwise.0"
    assert counts(graph, {depthwise: [0]})[expand] == 11  # the input is not needed any more
    assert counts(graph, {expand: [0]})[expand] == 12  # the offset behind it is a constant
    assert counts(graph, {expand: [0], depthwise: [0]})[depthwise] == 11


def test_a_constant_gate_keeps_its_channel_unless_the_gated_one_is_zero():
    graph, _ = traced("squeeze_excite")
    gate, gated = "blocks.0.excite", "blocks.0.depthwise.0"
    assert counts(graph, {gate: [2]})[gate] == 12  # hardsigmoid(0) is a half
    assert counts(graph, {gated: [2]})[gate] == 11


def test_a_preactivation_offset_keeps_its_channel():
    graph, _ = traced("concat")
    assert counts(graph, {"stem": [0]})["stem"] == 6
    assert counts(graph, {"grow1": [0]})["grow1"] == 3


def test_half_a_group_of_a_grouped_convolution_stays():
    graph, _ = traced("grouped")
    assert counts(graph, {"grouped.0": [0, 1, 2]})["grouped.0"] == 18
    assert counts(graph, {"grouped.0": [0, 1, 2, 3, 4, 5]}) == {
        "stem.0": 8, "reduce.0": 8, "grouped.0": 12, "expand.0": 8, "shortcut.0": 8, "head": 5,
    }  # fmt: skip


def illegal(name, *emptied):
    graph, _ = traced(name)
    sizes = {layer.name: layer.channels for layer in layers(graph)}
    return illegal_layers(graph, {layer: np.ones(sizes[layer], bool) for layer in emptied})


def test_a_layer_may_be_emptied_only_behind_a_residual_addition():
    assert illegal("option_a", "layer1.conv2") == ()
    assert illegal("option_a", "layer1.conv2", "layer1.conv1") == ()
    assert illegal("option_a", "layer1.conv1")[0] == "layer1.conv1"
    assert illegal("option_a", "conv1")[0] == "conv1"
    assert illegal("option_a", "linear") == ("linear",)
    assert illegal("concat", "left.0")[0] == "left.0"
    assert illegal("depthwise", "blocks.0.project.0") == ()
    assert illegal("depthwise", "blocks.1.project.0")[0] == "blocks.1.project.0"
    assert illegal("squeeze_excite", "blocks.1.excite") == ("blocks.1.excite",)


def test_one_side_of_an_addition_must_live():
    assert illegal("grouped", "expand.0") == ()
    assert illegal("grouped", "shortcut.0") == ()
    assert illegal("grouped", "expand.0", "shortcut.0")[0] == "expand.0"


def test_a_layer_that_reads_only_zeros_is_illegal():
    graph, _ = traced("shuffle")
    pruned = masks(graph, {"stem.0": [4, 5, 6, 7]})
    assert illegal_layers(graph, pruned) == ("branch.0",)


def test_an_emptied_side_of_a_concatenation_must_go_as_a_whole():
    """Channel 0 of ``right`` is grouped with living channels of ``left``: its zero has a place."""
    emptied = {"right": [0, 1, 2, 3], "left.0": [4, 5, 6, 7], "grouped.0": [6, 7, 8, 9, 10, 11]}
    graph, _ = traced("concat_grouped")
    pruned = {
        layer.name: np.isin(np.arange(layer.channels), emptied.get(layer.name, []))
        for layer in layers(graph)
    }
    assert kept_channels(graph, pruned)["right"].tolist() == [True, False, False, False]
    assert illegal_layers(graph, pruned) == ("right",)
