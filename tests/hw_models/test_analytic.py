"""Analytic cost models against their formulas, written out row by row and tile by tile."""

import math
from dataclasses import replace

import numpy as np
import pytest

from hw_models.analytic.base import AnalyticTarget, Prices
from hw_models.analytic.work import joined, work_of
from hw_models.checks import checked_cost
from hw_models.errors import AjpqError
from hw_models.liveness import edge_bytes
from hw_models.registry import load_target
from hw_models.samples import (
    NetworkBuilder,
    conv_network,
    random_weights,
    resnet20_network,
    with_widths,
)
from hw_models.size_only import SizeOnly, stored_bytes
from hw_models.trials import with_activations

NAMES = ("bismo", "bitfusion", "mpic", "ne16", "roofline")
BIT_FLEXIBLE_INPUTS = ("bismo", "bitfusion", "mpic", "roofline")


WIDTHS = (0, 2, 3, 4, 5, 8)
SLOW_BUS = {"bus_bits_per_cycle": 8}


def varied():
    """Strides, kernels of 1, 3 and 5, a grouped and a depthwise convolution, a linear layer."""
    b = NetworkBuilder((3, 13, 11), np.random.default_rng(5))
    x = b.conv("input", 40)
    x = b.conv(x, 40, groups=40, stride=2)
    x = b.conv(x, 70, kernel=1)
    x = b.conv(x, 64, kernel=5, bits=4)
    x = b.conv(x, 32, groups=4)
    return b.build(b.head(x, 10), "varied")


def cases():
    rng = np.random.default_rng(7)
    mixed = [with_widths(network, rng, WIDTHS, "mixed") for network in (varied(), conv_network())]
    return [conv_network(), varied(), *mixed]


class Layer:
    """One layer as the formulas call things."""

    def __init__(self, network, op):
        shape = op.weights.codes.shape
        self.h, self.w = (*network.edges[op.output].shape[1:], 1, 1)[:2]
        self.kh, self.kw = (*shape[2:], 1, 1)[:2]
        self.k2, self.inputs = self.kh * self.kw, shape[1]
        self.rows = [int(bits) for bits in op.weights.bits]
        self.group_count = int(op.attributes.get("groups", 1))
        read, written = network.edges[op.inputs[0]], network.edges[op.output]
        self.a, self.read, self.written = read.bits, edge_bytes(read), edge_bytes(written)
        self.macs_per_row = self.h * self.w * self.k2 * self.inputs

    def products(self):
        """(width, rows) of every matrix product: groups and widths apart; equal split of rows."""
        size = len(self.rows) // self.group_count
        groups = [self.rows[at : at + size] for at in range(0, len(self.rows), size)]
        for width in sorted(set(self.rows) - {0}):
            holding = [group for group in groups if width in group]
            for _ in holding:  # the models spread the rows of a width evenly over its groups
                yield width, math.ceil(self.rows.count(width) / len(holding))


def width_class(bits):
    return 2 if bits <= 2 else 4 if bits <= 4 else 8


def mpic_s(layer, target):
    cycles = sum(
        layer.macs_per_row / target.macs_per_cycle[width_class(layer.a)][width_class(bits)]
        for bits in layer.rows
        if bits
    )
    return cycles / target.clock_hz


def bismo_s(layer, target):
    n, k = math.ceil(layer.h * layer.w / 8), math.ceil(layer.inputs * layer.k2 / 256)
    cycles = sum(bits * layer.a * math.ceil(m / 8) * n * k for bits, m in layer.products())
    return cycles / target.clock_hz


def bitfusion_s(layer, target):
    compute = 0
    for bits, count in layer.products():
        p = (8 // max(layer.a, 2)) * (8 // max(bits, 2))
        tiles = math.ceil(count / 32) * math.ceil(layer.inputs / (16 * p))
        compute += layer.h * layer.w * layer.k2 * tiles
    weights = sum(layer.rows) * layer.k2 * layer.inputs
    inputs = 8 * layer.read
    again = math.ceil(inputs / (8 * target.input_buffer_bytes))
    other = math.ceil(weights / (8 * target.weight_buffer_bytes))
    moved = min(weights * max(1, again) + inputs, weights + inputs * max(1, other))
    memory = math.ceil((moved + 8 * layer.written) / target.bus_bits_per_cycle)
    return max(compute, memory) / target.clock_hz


def ne16_s(layer, target):
    squares = (layer.kh // 3) * (layer.kw // 3)
    points = layer.kh * layer.kw - 9 * squares
    cycles = 0
    depthwise = layer.group_count > 1 and layer.inputs == 1
    for bits, count in layer.products():
        while count > 0:
            k = min(32, count)
            count -= k  # noqa: PLW2901
            per_square = 31 + 6 + (6 + k * bits) + 2
            per_point = 19 + 6 + (6 + k) + 2
            inputs, rest = math.ceil(layer.inputs / 16), (9 + k) + 13
            cycles += points * (inputs * per_point + rest)
            cycles += 0 if depthwise else squares * (inputs * per_square + rest)
    if depthwise:
        for bits in sorted(set(layer.rows) - {0}):
            count = layer.rows.count(bits)
            while count > 0:
                k = min(16, count)
                count -= k
                cycles += squares * (31 + (6 + k) + (6 + k * bits) + 2 + (9 + k) + 13)
    return math.ceil(layer.h / 3) * math.ceil(layer.w / 3) * cycles / target.clock_hz


def roofline_s(layer, target):
    rates = target.macs_per_s
    compute = sum(
        layer.macs_per_row / (rates[4] if max(bits, layer.a) <= 4 else rates[8])
        for bits in layer.rows
        if bits
    )
    moved = sum(layer.rows) * layer.k2 * layer.inputs / 8
    if layer.read + layer.written > target.sram_bytes:
        moved += layer.read + layer.written
    return max(compute, moved / target.dram_bytes_per_s)


ORACLES = {
    "bismo": bismo_s,
    "bitfusion": bitfusion_s,
    "mpic": mpic_s,
    "ne16": ne16_s,
    "roofline": roofline_s,
}


def check_against_formula(name, network, target):
    cost = checked_cost(target, network)
    wanted = {op.name: ORACLES[name](Layer(network, op), target) for op in network.layers}
    found = {layer.name: layer.latency_s for layer in cost.per_layer}
    assert found == pytest.approx(wanted, rel=1e-9, abs=0)
    assert cost.latency_s == pytest.approx(sum(wanted.values()), rel=1e-9, abs=0)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", range(4))
def test_latency_by_the_formula(name, index):
    network = cases()[index]
    if name in BIT_FLEXIBLE_INPUTS and index % 2:
        network = with_activations(network, 4)
    check_against_formula(name, network, load_target(name))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "bitfusion",
            {"weight_buffer_bytes": 500, "input_buffer_bytes": 100, "bus_bits_per_cycle": 8},
        ),
        (
            "bitfusion",
            {"weight_buffer_bytes": 100, "input_buffer_bytes": 500, "bus_bits_per_cycle": 8},
        ),
        ("bitfusion", {"bus_bits_per_cycle": 1}),
        ("roofline", {"dram_bytes_per_s": 1e15}),
        ("roofline", {"dram_bytes_per_s": 1e9}),
        ("roofline", {"sram_bytes": 100, "dram_bytes_per_s": 1e9}),
    ],
)
def test_what_decides_changes_with_the_memory(name, changes):
    target = load_target(name)
    narrow = replace(target, **changes)
    changed = [
        check_against_formula(name, network, narrow) != check_against_formula(name, network, target)
        for network in cases()
    ]
    assert any(changed)


def test_depthwise_layers_pay_for_the_widths_that_their_groups_hold():
    """40 groups of one row: 20 at 8 and 20 at 2 bits cost half of each alone; zero rows nothing."""
    b = NetworkBuilder((40, 9, 9), np.random.default_rng(0))
    network = b.build(b.conv("input", 40, groups=40))

    def seconds(name, bits):
        (op,) = network.operators
        weights = replace(op.weights, bits=np.array(bits, np.uint8))
        return load_target(name).cost(replace(network, operators=(replace(op, weights=weights),)))

    for name in ("bismo", "bitfusion", "mpic"):
        wide, narrow, mixed, half = (
            seconds(name, bits).latency_s
            for bits in ([8] * 40, [2] * 40, [8] * 20 + [2] * 20, [8] * 20 + [0] * 20)
        )
        if name != "bitfusion":
            assert mixed == pytest.approx((wide + narrow) / 2)
        assert half == pytest.approx(wide / 2)
        assert mixed <= wide


@pytest.mark.parametrize("name", NAMES)
def test_flash_is_what_size_only_counts(name):
    for network in (*cases(), residual_with_affine()):
        cost = load_target(name).cost(network)
        assert cost.flash_bytes == SizeOnly().cost(network).flash_bytes
        assert [layer.flash_bytes for layer in cost.per_layer] == [
            stored_bytes(op) for op in network.layers
        ]


def residual_with_affine():
    b = NetworkBuilder((3, 6, 6), np.random.default_rng(0))
    x = b.conv("input", 8)
    factors = random_weights((8, 1, 1, 1), b.rng)
    x = b.add("affine", (x,), b.like(x, "affine", (8, 6, 6)), weights=factors)
    return b.build(b.head(x, 3), "affine")


def test_a_layer_that_one_policy_removes_costs_nothing_there():
    whole = conv_network()
    b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
    only = b.conv("input", 8)
    short = replace(b.build(only), operators=whole.operators[:1], edges=whole.edges)
    for name in NAMES:
        target = load_target(name)
        together = target.cost_batch(joined([short, whole]))
        alone = [target.cost(network) for network in (short, whole)]
        assert together.latency_s.tolist() == pytest.approx([c.latency_s for c in alone], abs=0)
        assert together.flash_bytes.tolist() == [c.flash_bytes for c in alone]


def test_networks_that_do_not_belong_together_are_refused():
    with pytest.raises(AjpqError, match="layer 'conv0' is"):
        joined([conv_network(), varied()])
    with pytest.raises(AjpqError, match="at least one"):
        joined([])


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_costs_what_its_members_cost(name):
    rng = np.random.default_rng(1)
    forms = [resnet20_network(keep, 4, rng) for keep in (1.0, 0.6, 0.3)]
    forms += [with_widths(resnet20_network(0.5), rng, WIDTHS, "mixed")]
    target = load_target(name)
    together = target.cost_batch(joined(forms))
    for index, network in enumerate(forms):
        alone = target.cost(network)
        assert together.latency_s[index] == pytest.approx(alone.latency_s, rel=1e-12, abs=0)
        assert together.flash_bytes[index] == alone.flash_bytes
        assert together.peak_activation_bytes[index] == alone.peak_activation_bytes
        if alone.energy_j is not None:
            assert together.energy_j[index] == pytest.approx(alone.energy_j)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_channels_and_fewer_bits_never_cost_more(name):
    target = load_target(name)
    for bits in (8, 4, 2):
        times = [target.cost(resnet20_network(keep, bits)).latency_s for keep in (1, 0.75, 0.5)]
        assert times == sorted(times, reverse=True)
    by_bits = [target.cost(resnet20_network(1.0, bits)).latency_s for bits in range(8, 1, -1)]
    assert by_bits == sorted(by_bits, reverse=True)
    assert by_bits[0] > by_bits[-1]


def test_zero_rows_cost_no_time():
    """But Bit Fusion writes them; here that is hidden behind the computation."""
    b = NetworkBuilder((8, 6, 6), np.random.default_rng(0))
    weights = random_weights((32, 8, 3, 3), b.rng)
    bits = np.array([8] * 20 + [0] * 12, np.uint8)
    padded = b.build(b.conv("input", 32, weights=replace(weights, bits=bits)))
    b = NetworkBuilder((8, 6, 6), np.random.default_rng(0))
    short = b.build(b.conv("input", 20))
    for name in NAMES:
        target = load_target(name)
        assert target.cost(padded).latency_s == target.cost(short).latency_s


def test_bismo_peaks_at_the_published_rate():
    """8 x 8 x 256 at 200 MHz: 6.5 binary TOPS when every tile is full."""
    b = NetworkBuilder((256, 16, 16), np.random.default_rng(0))
    network = b.build(b.conv("input", 64, kernel=1, bits=4))
    binary_operations = 2 * 256 * 64 * 256 * 4 * 8
    seconds = load_target("bismo").cost(network).latency_s
    assert binary_operations / seconds == pytest.approx(6.55e12, rel=1e-3)


@pytest.mark.parametrize(
    ("activation", "weight", "rate"), [(8, 8, 2.1), (8, 4, 2.3), (4, 2, 3.9), (2, 2, 6.5)]
)
def test_mpic_reaches_its_table_and_its_power(activation, weight, rate):
    b = NetworkBuilder((16, 8, 8), np.random.default_rng(0))
    network = with_activations(b.build(b.conv("input", 16, bits=weight)), activation)
    cost = load_target("mpic").cost(network)
    assert 64 * 9 * 16 * 16 / cost.latency_s == pytest.approx(rate * 250e6)
    assert cost.energy_j == pytest.approx(cost.latency_s * 5.38e-3)


def test_widths_that_the_device_lacks_are_named_alone_and_in_a_batch():
    real = conv_network(bits=32)
    narrow = with_activations(conv_network(), 4)
    for name, network, complaint in (
        ("mpic", real, "layer 'conv0' has 32"),
        ("ne16", narrow, r"activations of \(8,\) bits, layer 'conv0' has 4"),
    ):
        with pytest.raises(AjpqError, match=complaint):
            load_target(name).cost(network)
        with pytest.raises(AjpqError, match=complaint):
            load_target(name).cost_batch(joined([conv_network(), network]))


class Wrong(AnalyticTarget):
    name = "wrong"

    def __init__(self, values):
        self.values = values

    def price(self, work):
        return Prices(self.values(work.inputs.shape))


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (lambda shape: np.zeros(shape[1]), r"latency_s of shape \(1, 3\), got \(3,\)"),
        (lambda shape: np.array([[0.0, np.nan, 0.0]]), "layer 'conv1'.*nan"),
        (lambda shape: np.array([[0.0, 0.0, -1.0]]), "layer 'logits'.*-1"),
    ],
)
def test_a_formula_that_goes_wrong_is_named(values, complaint):
    with pytest.raises(AjpqError, match=complaint):
        Wrong(values).cost(conv_network())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("family: ne16\nclock_hz: 1.0e+8\nsource: {}\n", "board.yaml: no source for 'clock_hz'"),
        ("family: ne16\nclock_hz: 1.0e+8\nsource: {clock_hz: x, mass: y}\n", "'mass', which is no"),
        ("family: ne16\nclock_hz: -1\nsource: {clock_hz: x}\n", "clock_hz"),
        (
            "family: mpic\nclock_hz: 1\npower_w: 1\nmacs_per_cycle: {8: {8: 1}}\n"
            "source: {clock_hz: x, power_w: x, macs_per_cycle: x}\n",
            "no rate for 2-bit activations",
        ),
        (
            "family: roofline\nmacs_per_s: {4: 1.0}\ndram_bytes_per_s: 1\nsram_bytes: 1\n"
            "source: {macs_per_s: x, dram_bytes_per_s: x, sram_bytes: x}\n",
            "no rate for 8 bits",
        ),
    ],
)
def test_incomplete_descriptions_are_refused(tmp_path, text, complaint):
    path = tmp_path / "board.yaml"
    path.write_text(text)
    with pytest.raises(AjpqError, match=complaint):
        load_target(str(path))


def test_work_counts_rows_by_width():
    network = with_widths(varied(), np.random.default_rng(3), WIDTHS, "mixed")
    work = work_of(network)
    for index, op in enumerate(network.layers):
        assert work.rows[0, index].sum() == len(op.weights.bits)
        wanted = int(op.weights.bits.astype(int).sum()) * math.prod(op.weights.codes.shape[1:])
        assert work.weight_bits[0, index] == wanted
