import numpy as np
import pytest
import torch
from torch import nn

from ajpq.apply import apply_policy, apply_unshrunk
from ajpq.graph.execute import execute, mask_pruned
from ajpq.graph.structure import layers
from ajpq.graph.trace import trace
from ajpq.policy import LayerPolicy
from ajpq.reference import prepare, simulate
from ajpq.simulation.grids import edge_grids, fake_quantize
from hw_models.network import Edge, Network, Operator, Weights
from tests import oracle
from tests.modules import NETWORKS, images, minmax, pruning_policy, random_policy, ranges, traced

torch.set_num_threads(1)


def compressed(name, seed=0, widths=(2, 3, 4, 6, 8)):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), widths)
    found = ranges(graph, tensors, images(16))
    return graph, tensors, policy, found, apply_policy(graph, tensors, policy, found, minmax)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", [0, 1])
def test_simulation_equals_a_slow_integer_simulation(name, seed):
    network = compressed(name, seed)[-1]
    x = images(4, seed)
    assert np.array_equal(simulate(network, x).numpy(), oracle.simulate(network, x.numpy()))


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_size_threads_and_layout_change_no_bit(name):
    network = compressed(name)[-1]
    x = images(130)
    expected = simulate(network, x)
    run = prepare(network)
    assert torch.equal(torch.cat([run(part) for part in x.split(7)]), expected)
    assert torch.equal(run(x.contiguous(memory_format=torch.channels_last)), expected)
    before = x.clone()
    torch.set_num_threads(2)
    try:
        assert torch.equal(run(x), expected)
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(run(x), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_num_threads(1)
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NETWORKS)
def test_fake_quantized_execution_is_close(name):
    graph, tensors, policy, found, network = compressed(name, 3, (0, 4, 6, 8, 8, 8, 8, 8))
    grids = edge_grids(graph, policy, found)
    rows = {key: torch.from_numpy(own.bits) for key, own in policy.layers.items()}

    masked = mask_pruned(graph, tensors, {key: (own > 0).float() for key, own in rows.items()})
    steps = scales_of_the_network(graph, masked, policy, found)

    def weight(layer, values):
        codes, _ = minmax(values, rows[layer].clamp(min=2))
        shape = (-1,) + (1,) * (values.dim() - 1)
        return codes * steps[layer].view(shape) * (rows[layer] > 0).view(shape)

    def edge(key, values):
        if key not in grids:  # an entry that no layer needs
            return values
        grid = grids[key]
        return fake_quantize(values, grid.bits, grid.signed, grid.scale)

    x = images(200)
    masked |= biases_on_the_accumulator_grid(graph, masked, policy, found)
    faked = execute(graph, masked, x, weight=weight, edge=edge)
    exact = simulate(network, x)
    assert (faked.argmax(1) == exact.argmax(1)).float().mean() > 0.98
    # a value that falls on another code for its last bit moves a logit by one step of the input
    assert (faked - exact).abs().mean() < 0.01 * exact.abs().max()


def scales_of_the_network(graph, masked, policy, found):
    """Steps of weights in front of BatchNorm that fold into the 16-bit scales of the network."""
    network = apply_unshrunk(graph, masked, policy, found, minmax)
    scales = {op.name: torch.from_numpy(op.weights.scales) for op in network.layers}
    for layer in layers(graph):
        if layer.batchnorm is not None:
            names = layer.batchnorm.parameters
            variance = masked[names["running_var"]] + layer.batchnorm.attributes["eps"]
            factor = masked[names["weight"]] / variance.sqrt()
            scales[layer.name] = scales[layer.name] / torch.where(factor == 0, 1.0, factor)
    return scales


def biases_on_the_accumulator_grid(graph, masked, policy, found):
    """Offsets that fold into the biases which the applied network really has."""
    network = apply_unshrunk(graph, masked, policy, found, minmax)
    biases = {op.name: torch.from_numpy(op.weights.bias) for op in network.layers}
    moved = {}
    for layer in layers(graph):
        if layer.batchnorm is None:
            if "bias" in layer.node.parameters:
                moved[layer.node.parameters["bias"]] = biases[layer.name]
            continue
        names = layer.batchnorm.parameters
        deviation = (masked[names["running_var"]] + layer.batchnorm.attributes["eps"]).sqrt()
        mean = masked[names["running_mean"]]
        if "bias" in layer.node.parameters:
            mean = mean - masked[layer.node.parameters["bias"]]
        moved[names["bias"]] = biases[layer.name] + mean * masked[names["weight"]] / deviation
    return moved


@pytest.mark.parametrize("name", NETWORKS)
def test_untouched_networks_give_the_float_outputs(name):
    graph, tensors = traced(name)
    policy = pruning_policy(graph, {})
    real = {
        layer.name: LayerPolicy(weight_bits=(32,) * layer.channels, activation_bits=32)
        for layer in layers(graph)
    }
    policy = policy.model_copy(update={"layers": real})
    network = apply_policy(graph, tensors, policy, ranges(graph, tensors, images(8)), minmax)
    x = images(8)
    torch.testing.assert_close(
        simulate(network, x), execute(graph, tensors, x), rtol=1e-4, atol=1e-4
    )


def test_long_sums_stay_exact():
    """Partial sums beyond 2**24, which float32 would round."""
    count = 3000
    rng = np.random.default_rng(0)
    codes = rng.choice([-127, 126, 127], (4, count)).astype(np.int8)
    codes[0] = 127
    weights = Weights(
        codes, np.ones(4, np.float32), np.full(4, 8, np.uint8), np.zeros(4, np.float32)
    )
    edges = {
        "input": Edge("input", (count, 1, 1), 8, True, 1.0),
        "flat": Edge("flat", (count,), 8, True, 1.0),
        "out": Edge("out", (4,)),
    }
    operators = (
        Operator("flat", "flatten", ("input",), "flat"),
        Operator("out", "linear", ("flat",), "out", {}, weights),
    )
    network = Network("long", "input", "out", edges, operators)
    x = torch.from_numpy(rng.choice([-127.0, 125.0, 127.0], (8, count, 1, 1))).float()
    x[0] = 127
    expected = (x.double().flatten(1) @ torch.from_numpy(codes).double().T).float()
    assert expected.abs().max() > 2**24
    assert torch.equal(simulate(network, x), expected)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_average_pooling_counts_like_pytorch(include, ceil):
    attributes = {
        "kernel": (3, 2), "stride": (2, 2), "padding": (1, 1), "ceil_mode": ceil,
        "count_include_pad": include,
    }  # fmt: skip
    pool = torch.nn.AvgPool2d((3, 2), 2, 1, ceil, include)
    x = torch.randint(-127, 128, (2, 3, 6, 7)).float()
    expected = pool(x)
    edges = {
        "input": Edge("input", (3, 6, 7), 8, True, 1.0),
        "pool": Edge("pool", tuple(expected.shape[1:])),
        "out": Edge("out", (int(expected[0].numel()),)),
    }
    operators = (
        Operator("pool", "avgpool", ("input",), "pool", attributes),
        Operator("out", "flatten", ("pool",), "out"),
    )
    network = Network("pool", "input", "out", edges, operators)
    torch.testing.assert_close(simulate(network, x), expected.flatten(1))


def test_it_is_exact_where_pytorch_has_no_onednn_too():
    """Other backends convolve 3 x 3 kernels by Winograd's transform, whose fractions round."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1))
    graph = trace(model.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()), (3, 32, 32))
    x = torch.randn(16, 3, 32, 32)
    state = model.state_dict()
    network = apply_policy(graph, state, pruning_policy(graph, {}), ranges(graph, state, x), minmax)
    exact = simulate(network, x)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(simulate(network, x), exact)
