"""The report page and the picture, from a small run folder made up here."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.reporting import search_figure, write_report
from ajpq.reporting.page import headline
from ajpq.reporting.record import read_run, width_counts
from ajpq.reporting.style import duration, points_change, quantity, ratio
from ajpq.runs.journal import encode_line
from hw_models.errors import AjpqError

EVIL = "</script><script>alert(1)</script>"
LAYERS = ("conv1", *(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)))
BASELINE = {
    "top1_val": 92.5,
    "top1_test": 91.72,
    "latency_s": 0.000857,
    "packed_bytes": 1079000,
    "flash_bytes": 301000,
    "bops": {"fl32": 41_500_000_000, "fl8": 41_500_000_000, "all": 41_500_000_000},
    "macs": 40_551_040,
}
FOUND = {
    **BASELINE,
    "top1_val": 91.9,
    "top1_test": 91.36,
    "top1_test_full_precision": 91.5,
    "latency_s": 0.000571,
    "packed_bytes": 99_500,
    "flash_bytes": 88_000,
    "bops": {"fl32": 3e9, "fl8": 1.3e9, "all": 1.1e9},
    "macs": 30_000_000,
}


def make_policy(rng, names) -> CompressionPolicy:
    sizes = [16 * (1 + place // 7) for place in range(len(names))]
    widths = [rng.choice([0, 2, 3, 4, 5, 8], size).tolist() for size in sizes]
    pairs = zip(names, widths, strict=True)
    return CompressionPolicy(layers={name: LayerPolicy(weight_bits=w) for name, w in pairs})


def make_run(folder, names=LAYERS, count=60):
    """A finished run of random candidates."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = ["hash,top1_val,kl,latency_s,packed_bytes,flash_bytes,macs,bops_fl32,reward,on_front"]
    lines = []
    for index in range(count):
        policy = make_policy(rng, names)
        size, latency = rng.uniform(60e3, 200e3), rng.uniform(4e-4, 8e-4)
        top1 = 92 - 2e9 / size**2 - 1e-6 / latency**2 / 5 * rng.uniform(0.5, 1.5)
        reward = top1 / 100 + index / 300
        metrics = {"top1_val": top1, "latency_s": latency, "packed_bytes": size}
        rows.append(f"{policy.hash},{top1},0.1,{latency},{size},1,2,3,{reward},{index % 5 // 4}")
        entry = {"kind": "candidate", "index": index, "hash": policy.hash, "metrics": metrics}
        lines.append(encode_line({**entry, "reward": reward, "seconds": 1 + rng.uniform()}))
    lines.append(encode_line({"kind": "finalist", "round": 0, "hash": "x"}))
    (folder / "pareto.csv").write_text("\n".join(rows) + "\n")
    (folder / "journal.jsonl").write_text("".join(lines))
    (folder / "config.yaml").write_text("model: resnet20\nseed: 0\n")
    (folder / "command.txt").write_text("python -m ajpq.search --target edge-npu\n")
    make_policy(rng, names).save(folder / "policy.json")
    result = {"baseline": BASELINE, "found": FOUND, "target": "edge-npu", "seed": 7}
    latencies = {name: 1e-5 * (place + 1) for place, name in enumerate(names)} | {"tiny": 1e-9}
    result["layer_latencies_s"] = {
        "baseline": latencies,
        "found": {name: 0.5 * latency for name, latency in latencies.items()},
    }
    result |= {"seconds": 3000, "versions": {"torch": "2.14.1"}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "cifar-run")


def charts(page: str) -> dict[str, dict]:
    """The figures that a page holds, by their names."""
    pattern = r'<script type="application/json" data-plot="plot-(\w+)">(.*?)</script>'
    return {name: json.loads(text) for name, text in re.findall(pattern, page, re.DOTALL)}


def test_headline_numbers(run_dir):
    rows = {row.label: (row.baseline, row.found, row.change) for row in headline(read_run(run_dir))}
    assert rows["Top-1, test images"] == ("91.72 %", "91.36 %", "-0.36 points")
    assert rows["… same weights at full precision"] == ("91.72 %", "91.50 %", "-0.22 points")
    assert rows["Latency on the device"] == ("857 µs", "571 µs", "1.5x less")
    assert rows["Packed file"] == ("1.079 MB", "99.5 kB", "10.8x less")
    assert rows["BOPs, first and last layer at 8 bit"] == ("41.5 G", "1.3 G", "31.9x less")
    assert rows["MACs"] == ("40.55 M", "30 M", "1.35x less")


def test_page_is_complete_and_offline(run_dir):
    page = write_report(run_dir).read_text()
    assert page.count("plotly.js v") >= 1
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page.split("plotly.js v")[0])
    for text in ("cifar-run", "10.8x less", "edge-npu", "50 min 0 s", "model: resnet20", "2.14.1"):
        assert text in page
    assert set(charts(page)) == {"size", "latency", "widths", "layers", "reward", "seconds"}


def test_charts_show_the_data(run_dir):
    found = charts(write_report(run_dir).read_text())
    traces = {trace["name"]: trace for trace in found["size"]["data"]}
    assert set(traces) == {"candidate", "front", "baseline", "found"}
    assert len(traces["front"]["x"]) == 12
    assert traces["found"]["x"] == [99.5]
    assert traces["found"]["y"] == [91.9]
    hashes = {point.hash for point in read_run(run_dir).points}
    assert set(traces["front"]["customdata"]) <= hashes
    best = found["reward"]["data"][1]["y"]
    assert best == sorted(best)
    before, after = found["layers"]["data"]
    assert before["y"] == list(LAYERS[1:])  # conv1 takes less than a hundredth
    assert (before["x"][0], after["x"][0]) == (pytest.approx(20), pytest.approx(10))
    counts = {trace["name"]: trace["x"] for trace in found["widths"]["data"]}
    assert next(iter(counts)) == "pruned"
    assert [sum(column) for column in zip(*counts.values(), strict=True)][:8] == [16] * 7 + [32]


def test_width_counts():
    layers = {
        "a": LayerPolicy(weight_bits=(0, 4, 4, 32)),
        "b": LayerPolicy(weight_bits=(2, 4)),
    }
    assert width_counts(CompressionPolicy(layers=layers)) == {
        0: [1, 0],
        2: [0, 1],
        4: [2, 1],
        32: [1, 0],
    }


def test_names_from_files_cannot_become_markup(tmp_path):
    folder = make_run(tmp_path / "run<b>", names=("conv1", EVIL), count=3)
    (folder / "command.txt").write_text(EVIL)
    (folder / "config.yaml").write_text(f"model: '{EVIL}'")
    result = json.loads((folder / "result.json").read_text())
    result |= {"target": EVIL, "versions": {EVIL: EVIL}}
    (folder / "result.json").write_text(json.dumps(result))
    page = write_report(folder).read_text()
    assert "<script>alert" not in page
    assert "run<b>" not in page
    assert charts(page)["widths"]["data"][0]["y"][1].startswith("&lt;/script&gt;")


@pytest.mark.parametrize(
    "missing",
    [
        ("result.json", "policy.json"),
        ("pareto.csv",),
        ("journal.jsonl",),
        ("pareto.csv", "journal.jsonl", "result.json", "policy.json", "config.yaml", "command.txt"),
    ],
)
def test_unfinished_runs_have_a_page(tmp_path, missing):
    folder = make_run(tmp_path / "run", count=3)
    for name in missing:
        (folder / name).unlink()
    page = write_report(folder).read_text()
    assert ("has not finished" in page) == ("result.json" in missing)
    assert ("widths" in charts(page)) == ("policy.json" not in missing)
    assert ("reward" in charts(page)) == ("journal.jsonl" not in missing)
    assert search_figure(folder).exists()


def test_a_target_without_latency(tmp_path):
    folder = make_run(tmp_path / "run", count=3)
    (folder / "pareto.csv").write_text("hash,top1_val,latency_s,packed_bytes\na,90,,1000\n")
    (folder / "result.json").write_text(
        json.dumps({"baseline": {**BASELINE, "latency_s": None}, "found": {"top1_test": 90}})
    )
    page = write_report(folder).read_text()
    assert "latency" not in charts(page)
    assert "size" in charts(page)


@pytest.mark.parametrize(
    ("name", "text"),
    [("result.json", "{"), ("result.json", "[]"), ("pareto.csv", "hash,top1_val\na,b\n")],
)
def test_damaged_files_are_named(tmp_path, name, text):
    folder = make_run(tmp_path / "run", count=1)
    (folder / name).write_text(text)
    with pytest.raises(AjpqError, match=re.escape(name)):
        write_report(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(AjpqError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_picture(run_dir, tmp_path):
    path = search_figure(run_dir, tmp_path / "picture.png")
    with Image.open(path) as image:
        width, height = image.size
        assert width > 2 * height > 1000
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (quantity(999, "B"), "999 B"),
        (quantity(1000, "B"), "1 kB"),
        (quantity(None, "B"), "n/a"),
        (quantity(12, ""), "12"),
        (duration(0.0000214), "21.4 µs"),
        (duration(303), "5 min 3 s"),
        (ratio(1, 2), "2x more"),
        (ratio(0, 2), "n/a"),
        (points_change(90, 91.5), "+1.50 points"),
    ],
)
def test_number_formats(shown, text):
    assert shown == text
