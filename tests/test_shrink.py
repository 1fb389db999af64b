"""Shrunk modules: ordinary, smaller, and equal to the network whose pruned channels are zero."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ajpq.apply import apply_policy
from ajpq.compressed import compressed_view, fit_scales, weight_bits
from ajpq.graph.channels import channel_groups
from ajpq.graph.execute import execute, mask_pruned
from ajpq.graph.legality import illegal_layers
from ajpq.graph.structure import Graph, layers
from ajpq.graph.trace import trace
from ajpq.models import build_model
from ajpq.policy import CompressionPolicy, QuantizerSpec
from ajpq.quantizers import make_quantizer
from ajpq.shrink import padded_runs, shrink
from hw_models.errors import AjpqError
from tests.modules import (
    NETWORKS,
    conv_bn,
    images,
    minmax,
    pruning_policy,
    random_policy,
    randomize_batchnorm,
    ranges,
    traced,
)


@cache
def network(name: str) -> tuple[Graph, dict[str, Tensor]]:
    """Graph and float64 tensors."""
    if name in NETWORKS:
        graph, state = traced(name)
    else:
        torch.manual_seed(0)
        model = build_model(name, in_channels=3, classes=10, image_size=32)
        graph = trace(randomize_batchnorm(model).eval(), (3, 32, 32))
        state = model.state_dict()
    return graph, {n: v.double() if v.is_floating_point() else v for n, v in state.items()}


LARGE = ("resnet20", "mobilenet_v2_x0_5", "torchvision:resnet18", "mobilenet_v3_small")


def pruned_in_groups(graph: Graph, rng: np.random.Generator, share: float) -> CompressionPolicy:
    """Whole groups of coupled channels pruned, and some rows of others."""
    groups = channel_groups(graph)
    labels = np.unique(np.concatenate(list(groups.values())))
    gone = rng.choice(labels, int(share * len(labels)), replace=False)
    channels = {layer.name: groups[layer.node.output] for layer in layers(graph)}
    *_, last = channels
    return pruning_policy(
        graph,
        {
            name: [
                c
                for c, label in enumerate(own.tolist())
                if name != last and (label in gone or rng.random() < share / 4) and label >= 0
            ]
            for name, own in channels.items()
        },
    )


def zeroed(graph: Graph, tensors: dict[str, Tensor], policy: CompressionPolicy) -> dict:
    """The tensors of the unshrunk network: pruned rows and their offsets are zero."""
    live = {n: (own.bits != 0) for n, own in policy.layers.items()}
    masks = {n: torch.from_numpy(own).double() for n, own in live.items()}
    state = dict(tensors)
    for layer in layers(graph):
        name = layer.node.parameters["weight"]
        mask = masks[layer.name].view(-1, *[1] * (state[name].dim() - 1))
        state[name] = state[name] * mask
    return mask_pruned(graph, state, masks)


def check_equal(name: str, policy: CompressionPolicy, x: Tensor) -> nn.Module:
    graph, tensors = network(name)
    module = shrink(graph, tensors, policy)
    with torch.no_grad():
        wanted = execute(graph, zeroed(graph, tensors, policy), x)
        assert (module(x) - wanted).abs().max() <= 1e-9 * max(1.0, float(wanted.abs().max()))
    check_shapes(graph, tensors, policy, module)
    return module


def check_shapes(graph, tensors, policy, module) -> None:
    """Rows, columns and groups are those of the network IR."""
    floats = {name: value.float() for name, value in tensors.items()}
    shape = graph.shapes[graph.input]
    found = ranges(graph, floats, torch.randn(1, *shape))
    ir = apply_policy(graph, floats, policy, found, minmax)
    modules = {name: m for name, m in module.named_modules() if hasattr(m, "weight")}
    for op in ir.layers:
        rows = op.weights.codes
        assert modules[op.name].weight.numel() == rows.size
        assert len(modules[op.name].weight) == len(rows)
        assert getattr(modules[op.name], "groups", 1) == op.attributes.get("groups", 1)
    convolutions = [m for m in modules.values() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(convolutions) == len(ir.layers)


@settings(deadline=None, max_examples=80)
@given(
    name=st.sampled_from(sorted(NETWORKS)),
    seed=st.integers(0, 2**32),
    zeros=st.integers(0, 6),
    together=st.booleans(),
)
def test_it_computes_what_the_masked_network_computes(name, seed, zeros, together):
    graph, _ = network(name)
    rng = np.random.default_rng(seed)
    if together:
        policy = pruned_in_groups(graph, rng, zeros / 8)
    else:
        policy = random_policy(graph, rng, (0,) * zeros + (2, 4, 8))
    pruned = {layer: own.bits == 0 for layer, own in policy.layers.items()}
    assume(not illegal_layers(graph, pruned))
    check_equal(name, policy, images(3).double())


@pytest.mark.parametrize("name", LARGE)
def test_it_does_so_for_networks_of_the_field(name):
    graph, _ = network(name)
    policy = pruned_in_groups(graph, np.random.default_rng(1), 0.3)
    module = check_equal(name, policy, torch.randn(2, 3, 32, 32, dtype=torch.double))
    whole = shrink(graph, network(name)[1], pruning_policy(graph, {}))
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(module) < 0.7 * count(whole)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_an_ordinary_module(name):
    graph, tensors = network(name)
    state = {n: v.float() if v.is_floating_point() else v for n, v in tensors.items()}
    policy = pruned_in_groups(graph, np.random.default_rng(3), 0.2)
    module = shrink(graph, state, policy)
    own = module.state_dict()
    if name != "functional":  # its parameters have no modules
        assert own.keys() <= state.keys() | {n for n in own if n.endswith("num_batches_tracked")}
    assert not module.training
    x = images(4)
    other = copy.deepcopy(module)
    assert torch.equal(other(x), module(x))
    before = module(x)
    other.train()
    optimizer = torch.optim.SGD(other.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(other(x), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
    assert not torch.equal(other.eval()(x), before)
    assert torch.equal(module(x), before)
    other.load_state_dict(own)
    assert torch.equal(other(x), before)
    again = trace(module, (3, 12, 12))
    assert [layer.name for layer in layers(again)] == [
        n for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    shapes = {layer.name: again.shapes[layer.node.output] for layer in layers(again)}
    weights = {n: module.get_submodule(n).weight for n in shapes}
    assert {n: s[0] for n, s in shapes.items()} == {n: len(w) for n, w in weights.items()}


def test_its_tensors_are_its_own():
    graph, state = traced("option_a")
    module = shrink(graph, state, pruning_policy(graph, {}))
    with torch.no_grad():
        for value in module.state_dict().values():
            value.fill_(7)
    assert not any(bool((value == 7).all()) for value in state.values())


def test_a_zero_row_in_a_living_stream_is_zero_after_batchnorm_too():
    graph, state = traced("option_a")
    module = shrink(graph, state, pruning_policy(graph, {"layer1.conv2": [2]}))
    conv, norm = module.layer1.conv2, module.layer1.bn2
    assert conv.weight.shape == (4, 4, 3, 3)
    assert not conv.weight[2].any()
    assert (norm.weight[2], norm.bias[2]) == (0, 0)
    assert norm.weight[[0, 1, 3]].all()


def test_quantized_weights_stay_quantized():
    graph, state = traced("option_a")
    quantizer = make_quantizer(QuantizerSpec())
    policy = random_policy(graph, np.random.default_rng(5), (0, 2, 3, 4))
    bits = weight_bits(graph, policy)
    view = compressed_view(graph, state, bits, fit_scales(graph, state, bits, quantizer), quantizer)
    module = shrink(graph, view, policy)
    assert torch.allclose(module(images(3)), execute(graph, view, images(3)), atol=1e-5)
    assert max(len(row.unique()) for row in module.conv1.weight) <= 15


def test_a_policy_for_another_network_is_refused():
    graph, state = traced("option_a")
    with pytest.raises(AjpqError, match="layer 'conv1'"):
        shrink(graph, state, pruning_policy(traced("grouped")[0], {}))
    policy = pruning_policy(graph, {"conv1": [0, 1, 2, 3]})
    with pytest.raises(AjpqError, match="no live channel"):
        shrink(graph, state, policy)


@pytest.mark.parametrize(
    ("runs", "wanted"),
    [
        ([(0, 3)], [(0, 3, 0, 0)]),
        ([(-1, 2), (0, 3), (-1, 1)], [(0, 3, 2, 1)]),
        ([(4, 2), (-1, 3), (0, 1)], [(4, 2, 0, 3), (0, 1, 0, 0)]),
        ([(-1, 4)], [(0, 0, 4, 0)]),
    ],
)
def test_zeros_are_padded_to_the_slices_beside_them(runs, wanted):
    assert padded_runs(runs) == wanted


class PlainResidualNet(nn.Module):
    """Nothing that torch-pruning cannot do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def test_torch_pruning_arrives_at_the_same_network():
    torch.manual_seed(0)
    model = randomize_batchnorm(PlainResidualNet()).double().eval()
    graph, state = trace(model, (3, 12, 12)), model.state_dict()
    inner, outer = [0, 5, 6, 11], [1, 7]
    policy = pruning_policy(graph, {"stem": outer, "conv2": outer, "conv1": inner})
    ours = shrink(graph, state, policy)
    for layer, channels in ((model.conv1, inner), (model.stem, outer)):
        dependencies = torch_pruning.DependencyGraph()
        dependencies.build_dependency(model, images(1).double())
        prune = torch_pruning.prune_conv_out_channels
        dependencies.get_pruning_group(layer, prune, idxs=channels).prune()
    x = images(4).double()
    assert (ours(x) - model(x)).abs().max() < 1e-12
    theirs = {name: value.shape for name, value in model.named_parameters()}
    assert {name: value.shape for name, value in ours.named_parameters()} == theirs


class WideShuffleNet(nn.Module):
    """A shuffle of so many channels that they are gathered by index."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 24)
        self.head = nn.Linear(24 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 4)
        shuffled = x.view(-1, 2, 12, 3, 3).transpose(1, 2).reshape(-1, 24, 3, 3)
        return self.head(shuffled.flatten(1))


def test_many_channels_in_another_order():
    torch.manual_seed(0)
    graph = trace(model := randomize_batchnorm(WideShuffleNet()).double().eval(), (3, 12, 12))
    x = images(3).double()
    policy = pruning_policy(graph, {"stem.0": [0, 3, 23]})
    module = shrink(graph, model.state_dict(), policy)
    with torch.no_grad():
        wanted = execute(graph, zeroed(graph, model.state_dict(), policy), x)
        torch.testing.assert_close(module(x), wanted)
    assert module.head.weight.shape == (5, 21 * 9)
    again = trace(module, (3, 12, 12))
    assert [layer.channels for layer in layers(again)] == [21, 5]
