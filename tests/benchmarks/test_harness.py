"""Result files have the stated shape, and bars compare as they say."""

from __future__ import annotations

import getpass
import json
import math
import platform
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import (
    at_least,
    at_most,
    command_line,
    done_once,
    machine,
    versions,
    write_result,
)

SETTINGS = {"command": "python -m benchmarks.demo", "seed": 1, "seconds": 2.04, "quick": False}


def test_bars():
    assert at_least(2.0, 2.0) == {"value": 2.0, "bar": 2.0, "holds": True}
    assert at_most(2.0, 2.0)["holds"]
    assert not at_least(1.9, 2.0)["holds"]
    assert not at_most(2.1, 2.0)["holds"]
    assert not at_least(math.nan, 0.0)["holds"]
    assert not at_most(math.nan, 0.0)["holds"]


def test_the_file_has_the_stated_shape(tmp_path: Path):
    rows = [{"net": "a", "top1": np.float32(0.5), "bytes": np.int64(7), "ratio": math.inf}]
    bars = {"top1_at_least": at_least(np.float64(0.5), 0.4)}
    path = write_result("demo", rows=rows, bars=bars, folder=tmp_path, **SETTINGS)
    content = json.loads(path.read_text())
    assert path == tmp_path / "demo.json"
    assert list(tmp_path.iterdir()) == [path]
    keys = ["command", "seed", "versions", "machine", "seconds", "rows", "bars"]
    assert list(content) == keys
    assert content["rows"] == [{"net": "a", "top1": 0.5, "bytes": 7, "ratio": None}]
    assert content["bars"] == {"top1_at_least": {"value": 0.5, "bar": 0.4, "holds": True}}
    assert content["seconds"] == 2.0


def test_a_quick_result_leaves_the_full_one_alone(tmp_path: Path):
    full = write_result("demo", rows=[], bars={}, folder=tmp_path, **SETTINGS)
    before = full.read_text()
    settings = SETTINGS | {"quick": True, "seed": 2}
    quick = write_result("demo", rows=[], bars={}, folder=tmp_path, **settings)
    assert quick.name == "demo.quick.json"
    assert full.read_text() == before


@pytest.mark.parametrize(
    ("name", "rows", "bars", "error"),
    [
        ("Demo/x", [], {}, ValueError),
        ("demo", [{"nested": [1]}], {}, TypeError),
        ("demo", [], {"b": {"value": 1}}, ValueError),
    ],
)
def test_wrong_content_is_refused_and_nothing_written(tmp_path: Path, name, rows, bars, error):
    with pytest.raises(error):
        write_result(name, rows=rows, bars=bars, folder=tmp_path, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_machine_and_versions_are_complete_and_private():
    described = machine()
    assert described["cores"] >= 1
    assert all(described[key] for key in ("processor", "architecture", "instruction_set", "os"))
    assert versions()["python"] == platform.python_version()
    assert {"torch", "numpy", "gymnasium"} <= set(versions())
    text = json.dumps([described, versions()])
    assert str(Path.home()) not in text
    assert platform.node() not in (described["processor"], described["os"])
    assert getpass.getuser() not in described.values()


def test_commands_name_no_path_of_this_machine():
    weights = str(Path("/c") / "d.th")
    line = command_line("demo", True, data="imagefolder:x", checkpoint=weights, seed=0, note=None)
    assert line == (
        "python -m benchmarks.demo --data imagefolder:DIR --checkpoint d.th --seed 0 --quick"
    )
    assert command_line("demo", False, data="cifar10") == "python -m benchmarks.demo"
    assert "zoo/base/x" in command_line("demo", False, checkpoint="zoo/base/x")


def test_a_finished_part_is_not_done_again_but_under_other_settings(tmp_path: Path):
    asked = []

    def work():
        asked.append(1)
        return [{"what": "plain", "network": "resnet20", "value": len(asked), "unit": "s"}]

    file = tmp_path / "runs" / "part.json"
    first = done_once(file, {"seed": 0}, "part", work)
    assert done_once(file, {"seed": 0}, "part", work) == first
    assert len(asked) == 1
    assert done_once(file, {"seed": 1}, "part", work)["rows"][0]["value"] == 2
