"""Parts of ``benchmarks/methods.py`` whose answers are known."""

import math

import numpy as np
import pytest

from benchmarks import methods, methods_table
from benchmarks.methods_figure import methods_figure
from hw_models.errors import UnknownNameError
from hw_models.network import Edge, Network, Operator, Weights, bops, bops_sparse


def network(codes, bits):
    edges = {
        "x": Edge("x", (2, 3, 3), 4, False, 0.1),
        "y": Edge("y", (2, 3, 3)),
    }
    rows = np.asarray(codes, np.int8).reshape(2, 2, 1, 1)
    weights = Weights(rows, np.ones(2, np.float32), np.asarray(bits, np.uint8), np.zeros(2))
    attributes = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    return Network("n", "x", "y", edges, (Operator("a", "conv", ("x",), "y", attributes, weights),))


def test_bit_operations_of_nonzero_weights_by_hand():
    dense = network([1, -1, 1, 1], [2, 3])
    assert bops_sparse(dense) == bops(dense)["all"] == 9 * 4 * (2 * 2 + 2 * 3)
    assert bops_sparse(network([0, 0, 0, 1], [2, 3])) == 9 * 4 * 3


def test_levels_are_counted_not_the_codes_that_name_them():
    three = network([-90, 0, 127, 90], [8, 8])  # 0 and two magnitudes: 3 bits
    found = methods_table.with_level_widths(three)
    assert bops_sparse(found) == 9 * 4 * 3 * 3
    assert bops_sparse(three) == 9 * 4 * 3 * 8
    uniform = network([-3, 2, 1, 0], [3, 3])
    assert bops_sparse(methods_table.with_level_widths(uniform)) == bops_sparse(uniform)
    pruned = network([0, 0, 127, 127], [0, 8])
    assert bops_sparse(methods_table.with_level_widths(pruned)) == 9 * 4 * 2 * 2


def row(method, bits, top1, **more):
    values = {"bops_sparse_percent": 10.0, "times_smaller": 8.0, "top1_test_full_precision": None}
    base = {"network": "resnet20", "baseline_top1_test": 91.73}
    return {"method": method, "bits": bits, "top1_test": top1, **base, **values, **more}


def test_bars_take_the_best_row_that_qualifies():
    rows = [
        row("lsq", "W4A4", 91.5),
        row("ewgs", "W4A4", 91.7),
        row("codeq", "90 %", 91.2, bops_sparse_percent=6.0),
        row("codeq", "95 %", 90.5, bops_sparse_percent=4.0),
        row("ptq", "ternary", 88.6, times_smaller=41.0),
        row("psg", "W4", 91.0, top1_test_full_precision=91.4),
        row("gwk", "0.6 bit", 95.0, times_smaller=40.0, network="resnet56"),
    ]
    found = methods_table.bars(rows)
    assert found["best_top1_at_w4a4_at_least"] == {"value": 91.7, "bar": 91.6, "holds": True}
    assert found["codeq_top1_at_5_percent_of_bops_sparse_at_least"]["value"] == 90.5
    assert found["ptq_top1_at_40_times_smaller_at_least"]["holds"]
    assert found["psg_points_below_full_precision_at_most"]["holds"]
    assert math.isnan(found["gwk_top1_at_35_times_smaller_at_least"]["value"])


def test_rows_are_chosen_by_name():
    assert [r.name for r in methods.chosen(["lsq-w2a2"])] == ["lsq-w2a2"]
    assert len({r.name for r in methods.ROWS}) == len(methods.ROWS)
    with pytest.raises(UnknownNameError, match="did you mean 'lsq-w2a2'"):
        methods.chosen(["lsq-w2a"])


def test_rows_of_a_width_learn_equally_long_and_w2a2_twice_as_long():
    shared = {"data": "digits", "seed": 0, "distill": True, "checkpoint": "public"}
    for own in methods.ROWS:
        (stage,) = methods.config_of(own, shared, quick=False).full_recipe.stages
        assert stage.epochs == (40 if own.bits == "W2A2" else 20)


def test_every_row_is_a_run_that_can_be_started_and_shortened():
    shared = {"data": "digits", "epochs": 4, "seed": 0, "distill": True, "checkpoint": "public"}
    for own in methods.ROWS:
        config = methods.config_of(own, shared, quick=False)
        assert config.full_recipe.stages[-1].epochs == 4
        assert all(stage.distillation for stage in config.full_recipe.stages)
        short = methods.config_of(own, shared, quick=True)
        assert sum(s.steps for s in short.full_recipe.stages) <= 3 * len(short.recipe.stages)


def test_the_picture_takes_a_table_with_some_rows_only(tmp_path):
    rows = [row("lsq", "W4A4", 91.5), row("ptq", "ternary", 88.6, times_smaller=41.0)]
    assert methods_figure(rows, tmp_path / "m.png").stat().st_size > 10_000
