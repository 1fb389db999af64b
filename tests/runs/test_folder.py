"""Run folders: what goes in comes out, and who dominates whom."""

import pandas as pd
import pytest
import torch

from ajpq.compressed import CompressedWeights
from ajpq.config.schema import FinalRound, SearchConfig
from ajpq.finetune.recipe import Recipe
from ajpq.runs.folder import (
    check_new,
    check_resumable,
    create_run,
    load_config,
    load_weights,
    on_front,
    save_weights,
)
from ajpq.simulation.grids import ActivationRange
from hw_models.errors import AjpqError

CONFIG = SearchConfig(final=(FinalRound(keep=1, recipe=Recipe(name="none")),))


def test_the_configuration_comes_back(tmp_path):
    create_run(tmp_path / "run", CONFIG)
    assert load_config(tmp_path / "run") == CONFIG
    check_resumable(tmp_path / "run", CONFIG)
    with pytest.raises(AjpqError, match="another seed: 0, not 1"):
        check_resumable(tmp_path / "run", CONFIG.model_copy(update={"seed": 1}))
    with pytest.raises(AjpqError, match="add --resume"):
        check_new(tmp_path / "run")
    check_new(tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(AjpqError, match=r"cannot make the run folder .*file is a file"):
        check_new(tmp_path / "file" / "run")


def test_an_unknown_key_in_a_configuration_is_refused(tmp_path):
    create_run(tmp_path, CONFIG)
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text + "sede: 1\n")
    with pytest.raises(AjpqError, match="sede"):
        load_config(tmp_path)


def test_weights_come_back_bit_for_bit(tmp_path):
    weights = CompressedWeights(
        latent={"conv.weight": torch.randn(2, 3), "bn.running_mean": torch.randn(2)},
        buffers={"bn.running_mean": torch.randn(2)},
        ranges={"input": ActivationRange(1 / 3, True), "relu": ActivationRange(2.5, False)},
    )
    save_weights(tmp_path / "w.safetensors", weights)
    found = load_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(found.latent[name], weights.latent[name]) for name in weights.latent)
    assert torch.equal(found.buffers["bn.running_mean"], weights.buffers["bn.running_mean"])
    assert found.ranges == weights.ranges
    assert torch.equal(
        found.compressed_state["bn.running_mean"], weights.buffers["bn.running_mean"]
    )


def test_the_front_by_hand():
    table = pd.DataFrame(
        {
            "top1_val": [90.0, 90.0, 80.0, 85.0],
            "latency_s": [1.0, 2.0, 0.5, 1.5],
            "packed_bytes": [10, 10, 10, 5],
        }
    )
    assert on_front(table).tolist() == [True, False, True, True]


def test_targets_without_latency_still_have_a_front():
    table = pd.DataFrame(
        {"top1_val": [90.0, 80.0], "latency_s": [None, None], "packed_bytes": [10, 20]}
    )
    assert on_front(table).tolist() == [True, False]
