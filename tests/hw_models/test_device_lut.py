"""Tables of measured layers."""

import numpy as np
import pytest

from ajpq.base import untrained_networks
from hw_models.checks import checked_cost
from hw_models.device_lut import COLUMNS, KEYS, described, to_measure, unmatched
from hw_models.errors import AjpqError
from hw_models.registry import load_target
from hw_models.samples import (
    NetworkBuilder,
    conv_network,
    grouped_network,
    random_weights,
    resnet20_network,
)
from tests.e2e.commands import command


def written(folder, lines, latency):
    """The table with a latency for every line, from its columns."""
    path = folder / "board.csv"
    rows = [lines[0]]
    for line in lines[1:]:
        values = dict(zip(COLUMNS, line.split(","), strict=True))
        rows.append(line + str(latency({k: int(v) for k, v in values.items() if v.isdigit()})))
    path.write_text("\n".join(rows) + "\n")
    return path


def bilinear(row):
    """Linear in every axis, so that interpolation is exact: microseconds."""
    return row["height"] * row["in_channels"] * max(row["out_channels"], 1) * row["weight_bits"]


def test_between_the_measured_points_latency_is_linear(tmp_path):
    whole = resnet20_network()
    path = written(tmp_path, to_measure(whole, widths=(2, 4, 8)), bilinear)
    target = load_target(f"{path},fixed_latency_us=7")
    assert target.weight_bits == (0, 2, 3, 4, 5, 6, 7, 8)
    for network in (whole, resnet20_network(0.7), resnet20_network(0.7, bits=3)):
        cost = checked_cost(target, network)
        own = {layer.name: layer.latency_s for layer in cost.per_layer}
        for op in network.layers:
            source, out = network.edges[op.inputs[0]].shape, network.edges[op.output].shape
            height = out[1] if len(out) == 3 else 1
            expected = height * source[0] * out[0] * int(op.weights.bits[0])
            assert own[op.name] == pytest.approx(expected * 1e-6)
        assert cost.latency_s == pytest.approx(sum(own.values()) + 7e-6)


def test_depthwise_and_grouped_layers_have_rows_of_their_own(tmp_path):
    network = grouped_network()
    target = load_target(str(written(tmp_path, to_measure(network), bilinear)))
    assert checked_cost(target, network).latency_s > 0


@pytest.mark.parametrize(
    "model", ["mobilenet_v2_x0_5", "resnet8", "torchvision:shufflenet_v2_x0_5"]
)
def test_a_table_knows_what_pruning_leaves_of_its_network(tmp_path, model):
    """Down to one channel a layer, where depthwise and grouped layers become ordinary ones."""
    whole, *smaller = untrained_networks(model, 32, 10, (1.0, 0.75, 0.5, 0.0))
    path = written(tmp_path, to_measure(whole), bilinear)
    target = load_target(str(path))
    assert unmatched(target, [whole]) == ([], [])
    *inner, smallest = (whole, *smaller)
    for network in inner:  # no group is gone altogether: every layer lies between measured points
        expected = sum(by_formula(network, op) for op in network.operators)
        assert checked_cost(target, network).latency_s == pytest.approx(expected * 1e-6)
    assert 0 < target.cost(smallest).latency_s < target.cost(inner[-1]).latency_s


def by_formula(network, op):
    """:func:`bilinear` of what the network says itself."""
    if op.kind == "flatten":
        return 0
    inputs, out = network.edges[op.inputs[0]].shape, network.edges[op.output].shape
    free = op.weights is not None and op.attributes.get("groups", 1) == 1
    height = out[1] if len(out) == 3 else 1
    return height * inputs[0] * (out[0] if free else 1) * 8


def test_groups_that_pruning_removes_cost_no_longer(tmp_path):
    def network(groups):
        b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
        x = b.conv("input", 8 * groups, kernel=1)
        return b.build(b.conv(x, 4 * groups, groups=groups))

    lines = to_measure(network(4))
    asked = [line.split(",") for line in to_measure(network(4), channels=3) if ",8x4," in line]
    assert {int(line[COLUMNS.index("in_channels")]) % 8 for line in asked} == {0}
    assert any(line.startswith("conv,8,8,3,1,8x4,32,0,8") for line in lines)
    target = load_target(str(written(tmp_path, lines, bilinear)))
    costs = [target.cost(network(groups)).per_layer[1].latency_s for groups in (1, 2, 4)]
    assert costs == pytest.approx([costs[2] / 4, costs[2] / 2, costs[2]])


def test_what_pruning_leaves_is_found_where_the_table_reaches_far_enough(tmp_path):
    """With one group left, a layer of 16 channels looks like a plain one, of which 4 were seen."""

    def network(groups):
        b = NetworkBuilder((3, 8, 8), np.random.default_rng(0))
        x = b.conv(b.conv("input", 4, kernel=1), 4)
        x = b.conv(x, 16 * groups, kernel=1)
        return b.build(b.conv(x, 16 * groups, groups=groups))

    target = load_target(str(written(tmp_path, to_measure(network(4)), bilinear)))
    one, four = (target.cost(network(groups)).per_layer[-1].latency_s for groups in (1, 4))
    assert one == pytest.approx(four / 4)


def test_a_square_kernel_may_be_written_out(tmp_path):
    lines = [line.replace(",3,", ",3x3,", 1) for line in to_measure(conv_network())]
    lines = [line.replace("globalavgpool,1,1,4,", "globalavgpool,1,1,4x4,") for line in lines]
    target = load_target(str(written(tmp_path, lines, bilinear)))
    assert unmatched(target, [conv_network()]) == ([], [])


def test_rows_that_nothing_uses_and_operators_without_rows_are_named(tmp_path):
    lines = [
        line.replace("globalavgpool,1,1,4,", "globalavgpool,1,1,1,")
        for line in to_measure(conv_network())
    ]
    target = load_target(str(written(tmp_path, [s for s in lines if "linear" not in s], bilinear)))
    assert unmatched(target, [conv_network()]) == (["globalavgpool,1,1,1,1,1"], ["pool2"])


def test_fewer_channels_than_were_measured_cost_no_less(tmp_path):
    lines = to_measure(conv_network(channels=8), channels=1)
    target = load_target(str(written(tmp_path, lines, bilinear)))
    small, whole = (target.cost(conv_network(channels=c)) for c in (4, 8))
    assert small.latency_s == whole.latency_s


def refusal(path, network=None):
    with pytest.raises(AjpqError) as caught:
        load_target(str(path)).cost(network or conv_network())
    return str(caught.value)


def test_a_layer_that_was_not_measured_is_named(tmp_path):
    path = written(tmp_path, to_measure(conv_network()), bilinear)
    assert "layer 'conv0' has out_channels 12, the most that was measured is 8" in refusal(
        path, conv_network(channels=12)
    )
    assert "layer 'conv1' was not measured: no row with kind conv, height 32" in refusal(
        path, resnet20_network()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["kind,latency_us", "conv,1"], "no column 'height'"),
        (lambda lines: lines[:1], "expected rows with the columns"),
        (lambda lines: [*lines, lines[1]], "the layer was measured twice"),
        (lambda lines: [lines[0], lines[1] + "x"], "line 2: expected a number of 0 or more as lat"),
        (lambda lines: [lines[0], lines[1].replace(",3,", ",three,")], "'three'"),
        (lambda lines: [*lines[:2], "conv,8,8,3,1,1,3,8,8,"], "1 of 2 rows have no latency_us yet"),
        (lambda lines: [*lines[:6], *lines[7:]], "measure every combination"),
        (lambda lines: [lines[0], *(line.rpartition(",")[0] + ",-1" for line in lines[1:])], "-1"),
    ],
)
def test_a_table_with_a_mistake_in_it(tmp_path, change, message):
    path = written(tmp_path, to_measure(conv_network()), bilinear)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    assert message in refusal(path)


def test_a_table_that_is_not_there():
    assert "cannot read the table nowhere.csv: No such file" in refusal("nowhere.csv")


def test_the_command_writes_what_is_to_be_measured_and_keeps_what_was(tmp_path):
    path = tmp_path / "layers.csv"
    outcome = command("targets", "table", "resnet8", "--out", path)
    assert outcome.returncode == 0, outcome.stderr
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert f"{len(lines) - 1} layers to measure" in outcome.stdout
    again = command("targets", "table", "resnet8", "--out", path)
    assert again.returncode == 2
    assert "give another name" in again.stderr


def test_a_table_is_checked_on_the_network_that_it_was_made_for(tmp_path):
    assert command("targets", "table", "resnet8", "--out", tmp_path / "layers.csv").returncode == 0
    lines = (tmp_path / "layers.csv").read_text().splitlines()
    path = written(tmp_path, lines, bilinear)
    passed = command("targets", "check", path, "--model", "resnet8")
    assert passed.returncode == 0, passed.stdout
    assert "failed" not in passed.stdout
    short = tmp_path / "short.csv"
    short.write_text(
        "\n".join(line for line in path.read_text().splitlines() if "linear" not in line)
    )
    failed = command("targets", "check", short, "--model", "resnet8")
    assert failed.returncode == 1
    assert "was not measured" in failed.stdout


def test_long_and_tall_kernels_have_rows_of_their_own():
    b = NetworkBuilder((3, 9, 9), np.random.default_rng(0))
    tall = b.conv("input", 4, weights=random_weights((4, 3, 7, 1), b.rng))
    long = b.conv(tall, 4, weights=random_weights((4, 4, 1, 7), b.rng))
    keys = [described(b.build(long), operator)[0][0] for operator in b.operators]
    assert [key[KEYS.index("kernel")] for key in keys] == ["7x1", "1x7"]


def test_a_target_file_names_its_table_relative_to_itself(tmp_path):
    written(tmp_path, to_measure(conv_network()), bilinear)
    (tmp_path / "board.yaml").write_text("family: device-lut\ntable: board.csv\n")
    assert load_target(str(tmp_path / "board.yaml")).cost(conv_network()).latency_s > 0
