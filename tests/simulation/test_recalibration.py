"""Statistics measured on codes, against the same network imitated with real numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from ajpq.apply import apply_policy, kept_by_policy
from ajpq.compressed import compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.graph.trace import trace
from ajpq.policy import uniform_policy
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.simulation.calibration import activation_ranges, recalibrate_batchnorm
from ajpq.simulation.grids import edge_grids
from ajpq.simulation.recalibration import recalibrate
from tests.modules import NETWORKS, images, random_policy, ranges, traced
from tests.simulation.test_ranking import every_way

torch.set_num_threads(1)
QUANTIZER = UniformQuantizer()


def case(name, widths, seed=0):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), widths)
    wide = {n: own.model_copy(update={"activation_bits": 8}) for n, own in policy.layers.items()}
    policy = policy.model_copy(update={"layers": wide})
    return graph, tensors, policy, ranges(graph, tensors, images(16)), QUANTIZER.quantize


def imitated(graph, tensors, policy, found, batches):
    """What training sees: masked rows of zeros, rounded real numbers."""
    bits = weight_bits(graph, policy)
    scales = fit_scales(graph, tensors, bits, QUANTIZER)
    view = compressed_view(graph, tensors, bits, scales, QUANTIZER)
    edges = quantize_edges(edge_grids(graph, policy, found))
    buffers = recalibrate_batchnorm(graph, view, batches, edges)
    return buffers, activation_ranges(graph, {**view, **buffers}, batches[:1], edges)


def largest_by_grid(graph, found):
    """Edges on one grid count as one."""
    largest = {}
    for edge, own in found.items():
        number = graph.grid_sets[edge]
        largest[number] = max(largest.get(number, 0.0), own.maximum)
    return largest


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("widths", [(4, 6, 8), (0, 6, 8, 8, 8, 8), (32,)])
@every_way
def test_it_finds_what_the_imitation_finds(name, widths, way):
    graph, tensors, policy, found, quantize = case(name, widths)
    batches = [images(64, seed) for seed in range(3)]
    buffers, own = recalibrate(
        graph,
        tensors,
        policy,
        found,
        quantize,
        batches,
        batchnorm_batches=3,
        range_batches=1,
        kernels=way,
    )
    wanted, wanted_ranges = imitated(graph, tensors, policy, found, batches)
    kept = kept_by_policy(graph, policy)
    for node in graph.nodes:
        for role in ("running_mean", "running_var"):
            if node.kind == "batchnorm":
                stays = torch.from_numpy(kept[node.output].copy())
                measured, expected = (b[node.parameters[role]][stays] for b in (buffers, wanted))
                assert float((measured - expected).norm()) <= 0.03 * float(expected.norm())
    alive = apply_policy(graph, tensors, policy, found, quantize).edges
    imitation = {edge: value for edge, value in wanted_ranges.items() if edge in alive}
    assert own.keys() == found.keys()
    assert all(own[edge].signed == value.signed for edge, value in imitation.items())
    expected = largest_by_grid(graph, imitation)
    measured = largest_by_grid(graph, {edge: own[edge] for edge in imitation})
    assert measured == pytest.approx(expected, rel=0.1)


def test_ranges_come_from_the_first_batches_alone():
    graph, tensors, policy, found, quantize = case("option_a", (4, 8))
    first, rest = images(8), [10 * images(8, 1), 10 * images(8, 2)]

    def measured(*batches):
        return recalibrate(
            graph,
            tensors,
            policy,
            found,
            quantize,
            batches,
            batchnorm_batches=len(batches),
            range_batches=1,
        )

    (alone, ranges_alone), (all_of_them, ranges_of_all) = measured(first), measured(first, *rest)
    assert ranges_alone == ranges_of_all
    assert any(not torch.equal(alone[name], all_of_them[name]) for name in alone)


def test_it_ends_where_it_is_told_to_and_knows_what_it_has_seen():
    """Batches that give ranges run last, and change nothing by that."""
    graph, tensors, policy, found, quantize = case("option_a", (4, 8))
    batches = [images(8, seed) for seed in range(4)]

    def measured(batches, go_on, **counts):
        order = []

        def asked(number, logits):
            order.append((number, logits))
            return go_on(number)

        results = recalibrate(
            graph, tensors, policy, found, quantize, batches, go_on=asked, **counts
        )
        return order, *results

    counts = {"batchnorm_batches": 4, "range_batches": 2}
    order, whole, ranges_whole = measured(batches, lambda number: True, **counts)
    assert [number for number, _ in order] == [2, 3, 0, 1]
    assert all(len(logits) == 8 for _, logits in order)
    order, part, ranges_part = measured(batches, lambda number: number != 2, **counts)
    assert [number for number, _ in order] == [2]
    single = {"batchnorm_batches": 1, "range_batches": 1}
    _, alone, ranges_alone = measured(batches[2:3], lambda number: True, **single)
    assert all(torch.allclose(part[name], alone[name], atol=1e-4) for name in alone)
    assert any(not torch.equal(part[name], whole[name]) for name in whole)
    assert {name: own.maximum for name, own in ranges_part.items()} == {
        name: own.maximum for name, own in found.items()
    }
    assert ranges_alone != ranges_part
    assert ranges_whole != ranges_part
    each = [measured([batch], lambda number: True, **single)[1] for batch in batches]
    for name, value in whole.items():
        mean = sum(own[name].float() for own in each) / 4
        assert torch.allclose(value.float(), mean, rtol=1e-3, atol=1e-3)
    more = {"batchnorm_batches": 1, "range_batches": 2}
    order, few, _ = measured(batches[:2], lambda number: True, **more)
    assert [number for number, _ in order] == [0, 1]
    assert all(torch.allclose(few[name], each[0][name]) for name in few)


def test_without_batches_for_statistics_they_stay():
    graph, tensors, policy, found, quantize = case("option_a", (4, 8))
    buffers, _ = recalibrate(
        graph, tensors, policy, found, quantize, [images(8)], batchnorm_batches=0, range_batches=1
    )
    for name, value in buffers.items():
        assert torch.equal(value, tensors[name])


def test_what_is_not_in_the_network_keeps_what_it_had():
    graph, tensors, policy, found, quantize = case("option_a", (0, 8, 8, 8), seed=1)
    buffers, own = recalibrate(
        graph, tensors, policy, found, quantize, [images(8)], batchnorm_batches=1, range_batches=1
    )
    gone = policy.layers["layer1.conv1"].bits == 0
    assert gone.any()
    name = "layer1.bn1.running_mean"
    assert torch.equal(buffers[name][gone], tensors[name][gone])
    assert not torch.equal(buffers[name][~gone], tensors[name][~gone])
    assert own.keys() == found.keys()


def test_a_bias_in_front_of_batchnorm_moves_the_mean_and_nothing_else():
    """However coarse the codes are that would have to hold it."""
    found = []
    for bias in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=bias),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(400, 5),
        )
        torch.manual_seed(1)
        with torch.no_grad():
            net[0].weight.normal_()
            net[4].weight.normal_()
            if bias:
                net[0].bias.copy_(torch.tensor([0.3, -0.07, 1.1, 0.013]))
        graph, tensors = trace(net, (3, 12, 12)), net.state_dict()
        policy = uniform_policy({"0": 4, "4": 5}, 2, 2)
        own = ranges(graph, tensors, images(16))
        for count in (2, 0):
            buffers, measured = recalibrate(
                graph,
                tensors,
                policy,
                own,
                QUANTIZER.quantize,
                [images(16), images(16, 1)],
                batchnorm_batches=count,
                range_batches=2,
            )
            largest = sorted(value.maximum for value in measured.values())
            found.append((buffers["1.running_mean"], largest))
    assert torch.allclose(found[2][0] - found[0][0], torch.tensor([0.3, -0.07, 1.1, 0.013]))
    assert found[2][1] == pytest.approx(found[0][1])


@pytest.mark.parametrize("bits", [2, 4])
def test_narrow_edges_have_the_mean_of_the_batches_and_wide_ones_the_largest(bits):
    """As the ranges of the uncompressed network have; every batch on its own is the oracle."""
    graph, tensors = traced("option_a")
    policy = uniform_policy({layer.name: layer.channels for layer in graph.layers}, 8, bits, 8)
    known = ranges(graph, tensors, images(16))
    batches = [images(16, seed) * factor for seed, factor in enumerate((1.0, 2.0, 0.5))]

    def found(*some):
        settings = {"batchnorm_batches": 0, "range_batches": len(some)}
        return recalibrate(graph, tensors, policy, known, QUANTIZER.quantize, some, **settings)[1]

    alone, together = [found(batch) for batch in batches], found(*batches)
    narrow = {name for name, edge in edge_grids(graph, policy, known).items() if edge.bits == bits}
    assert narrow & together.keys() < together.keys()
    for name, own in together.items():
        limits = [each[name].maximum for each in alone]
        expected = np.mean(limits) if name in narrow else max(limits)
        assert own.maximum == pytest.approx(expected, rel=1e-6)
