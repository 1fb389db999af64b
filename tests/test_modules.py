"""The compressed network as an ordinary module."""

import copy
import pickle

import numpy as np
import pytest
import torch

from ajpq.apply import apply_policy, apply_unshrunk
from ajpq.modules import as_module
from ajpq.reference import simulate
from tests.hw_models.zoo import ZOO
from tests.modules import NETWORKS, images, minmax, random_policy, ranges, traced

torch.set_num_threads(1)


def compressed(name, apply=apply_policy, widths=(0, 2, 3, 4, 6, 8)):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(1), widths)
    return apply(graph, tensors, policy, ranges(graph, tensors, images(16)), minmax)


def batch(network, count):
    shape = network.edges[network.input].shape
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("apply", [apply_policy, apply_unshrunk])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_module_gives_the_bits_of_the_reference(name, apply):
    network, x = compressed(name, apply), images(20)
    assert torch.equal(as_module(network)(x), simulate(network, x))


@pytest.mark.parametrize("name", ZOO)
def test_every_kind_of_operator(name):
    network = ZOO[name]()
    x = batch(network, 5)
    assert torch.equal(as_module(network)(x), simulate(network, x))


@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_program_gives_the_bits_at_any_batch_size(name, tmp_path):
    network = compressed(name)
    dynamic = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(as_module(network), (images(2),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    for count in (1, 7, 40):
        assert torch.equal(loaded(images(count)), simulate(network, images(count)))


@pytest.mark.parametrize("name", NETWORKS)
def test_symbolic_tracing_keeps_the_bits(name):
    network, x = compressed(name), images(6)
    assert torch.equal(torch.fx.symbolic_trace(as_module(network))(x), simulate(network, x))


def test_the_state_holds_codes_as_int8_and_can_be_copied_and_loaded():
    network, other, x = compressed("option_a"), compressed("option_a"), images(6)
    module, expected = as_module(network), simulate(network, x)
    state = module.state_dict()
    convolutions = [op for op in network.layers if op.kind == "conv"]
    for op in convolutions:
        stored = state[f"{op.name.replace('.', '_')}.codes"]
        assert stored.dtype == torch.int8
        assert np.array_equal(stored.numpy(), op.weights.codes)
    assert torch.equal(copy.deepcopy(module)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(module)).to("cpu")(x), expected)
    blank = as_module(other)
    for value in blank.state_dict().values():
        value.zero_()
    assert not torch.equal(blank(x), expected)
    blank.load_state_dict(state)
    assert torch.equal(blank(x), expected)


def test_changing_the_module_leaves_the_network_alone():
    network, x = compressed("grouped"), images(3)
    expected = simulate(network, x)
    module = as_module(network)
    for value in module.state_dict().values():
        value.zero_()
    assert torch.equal(simulate(network, x), expected)
    before = x.clone()
    as_module(network)(x)
    assert torch.equal(x, before)


def test_no_parameter_asks_for_a_gradient_and_pruned_channels_are_gone():
    network = compressed("option_a")
    module = as_module(network)
    assert list(module.parameters()) == []
    stored = sum(value.numel() for name, value in module.state_dict().items() if "codes" in name)
    assert stored == sum(op.weights.codes.size for op in network.operators if op.weights)
    whole = as_module(compressed("option_a", apply_unshrunk))
    assert stored < sum(v.numel() for n, v in whole.state_dict().items() if "codes" in n)
