"""What ``benchmarks/peers.py`` asks for and what its bars mean."""

import pytest

from ajpq.config.files import load_search_config
from ajpq.models import build_model
from benchmarks import peers
from hw_models.registry import load_target


@pytest.mark.parametrize("rival", peers.RIVALS, ids=lambda rival: rival.tool)
def test_every_search_keeps_to_the_rules(rival):
    config = load_search_config("untrained", peers.settings_for(rival, quick=False))
    steps = [recipe.steps(45_000) for recipe in (config.candidate, config.full_recipe)]
    assert steps == [0, rival.steps]
    assert all(stage.batch_size == 128 for stage in config.full_recipe.stages)
    assert config.final[-1].keep == 1 or not rival.steps
    assert config.size_ratio * peers.FLOAT32_BYTES == pytest.approx(rival.most_bytes)


def test_the_size_is_that_of_the_public_network():
    model = build_model("resnet20", in_channels=3, classes=10, image_size=32)
    numbers = sum(v.numel() for v in model.state_dict().values() if v.is_floating_point())
    assert 4 * numbers == peers.FLOAT32_BYTES


def test_a_cycle_of_the_target_is_a_bit_operation():
    target = load_target(peers.BOPS_TARGET)
    assert (target.rows_per_tile, target.columns_per_tile, target.depth_per_tile) == (1, 1, 1)


def test_bars_on_bytes_accuracy_and_time_or_operations():
    untrained, trained = peers.RIVALS[0], peers.RIVALS[-1]
    ours = {"top1_test": 90.5, "bytes": 103_001, "gbops": 0.74, "cpu_seconds": 149.0}
    bars = peers.bars_of(untrained, ours)
    assert [bar["holds"] for bar in bars.values()] == [True, False, True]
    bars = peers.bars_of(trained, {**ours, "bytes": 69_000})
    assert [bar["holds"] for bar in bars.values()] == [True, True, True]
    assert not set(bars) & set(peers.bars_of(peers.RIVALS[2], ours))


def test_what_the_others_take_stands_beside_what_we_take():
    assert all(
        peers.row_of(rival)["cpu_seconds"] == rival.cpu_seconds > 0 for rival in peers.RIVALS
    )
