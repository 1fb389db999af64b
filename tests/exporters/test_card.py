"""The model card: its front matter keeps the convention, its figures are those of the run."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import pytest
import yaml

from ajpq import api
from ajpq.config.files import load_compress_config
from ajpq.exporters import EXPORTERS
from ajpq.exporters.card import front_matter, model_card, write_card
from ajpq.exporters.check import inspect
from ajpq.exporters.pricing import Price, prices
from ajpq.exporters.source import PACKED_FILE, Source, check_result
from ajpq.exporters.write import write_files
from ajpq.packed import load, save
from hw_models.base import NetworkCost
from hw_models.errors import AjpqError
from tests.exporters.calibrated_builder import Builder
from tests.exporters.samples import POLICY, small_network, source

COSTS = {
    "latency_s": 0.0006,
    "packed_bytes": 4321,
    "flash_bytes": 5432,
    "peak_activation_bytes": 777,
    "energy_j": None,
    "bops": {"fl32": 3_000_000, "fl8": 2_000_000, "all": 1_000_000},
    "macs": 40_000,
    "top1_val": 88.5,
}
RESULT = {
    "baseline": {**COSTS, "top1_test": 91.25, "packed_bytes": 98765},
    "found": {**COSTS, "top1_test": 90.75, "top1_test_full_precision": 91.125},
    "seed": 3,
    "versions": {"python": "3.11.9", "torch": "2.14.1"},
}


@pytest.fixture
def run() -> Source:
    config = load_compress_config(
        "compress",
        {
            "data": "imagefolder:/someone/private/cifar10",
            "checkpoint": "/someone/private/net.safetensors",
            "model": "/someone/private/mine.py:build",
            "target": "edge-npu",
        },
    )
    return dataclasses.replace(source(), config=config, result=RESULT)


def front_of(text: str) -> dict:
    begin, front, _ = text.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(front)


def test_the_front_matter_has_what_the_convention_asks(run):
    front = front_of(model_card(run, [], None))
    assert front == front_matter(run, None)
    assert front["license"] == "unknown"
    assert front["library_name"] == "ajpq"
    assert front["datasets"] == ["cifar10"]
    assert front["metrics"] == ["accuracy"]
    assert "edge-npu" in front["tags"]
    (model,) = front["model-index"]
    assert model["name"] == "mine.py:build"
    (result,) = model["results"]
    assert result["task"]["type"] == "image-classification"
    assert {"type", "name"} <= result["dataset"].keys()
    assert [metric["value"] for metric in result["metrics"]] == [90.75, 91.125]
    assert {metric["type"] for metric in result["metrics"]} == {"accuracy"}


def test_the_figures_are_those_of_the_result(run):
    text = model_card(run, [], None)
    assert "| top-1, test images | 91.25 % | 90.75 % |" in text
    assert "91.12 %" in text  # the same weights at full precision
    assert "| latency | 600 µs | 600 µs |" in text
    assert "98.77 kB | 4.321 kB |" in text
    assert "energy" not in text.partition("## Policy")[0].partition("## Costs")[2].split("\n\n")[1]
    assert POLICY.hash in text
    assert "| conv | 8 | 0 % | 4.00 | 8 x 4 bit | 8 |" in text
    assert "torch 2.14.1" in text


def test_no_folder_of_the_machine_is_told(run):
    assert "private" not in model_card(run, [], None)


def test_the_licence_is_what_was_stated_or_unknown(run):
    assert "ask whoever gave you the checkpoint" in model_card(run, [], None)
    stated = model_card(run, [], "apache-2.0")
    assert front_of(stated)["license"] == "apache-2.0"
    assert "ask whoever" not in stated


def test_prices_stand_in_a_table(run):
    found = NetworkCost(latency_s=0.001, flash_bytes=2000)
    text = model_card(run, [Price("bismo", found, NetworkCost(latency_s=0.004))], None)
    assert "| bismo | 1 ms | 4 ms | 2 kB | n/a | n/a |" in text


def test_only_targets_that_can_store_the_network_price_it():
    found = {price.target: price for price in prices(small_network(), small_network())}
    assert {"edge-npu", "ethos-u55-128", "bismo", "size-only"} <= found.keys()
    assert "host-cpu" not in found  # it measures
    assert all(price.found == price.baseline for price in found.values())
    net = Builder()
    real = net.classifier(net.layer("conv", "input", 8, widths=(32,), bits=32))
    assert [price.target for price in prices(real, None)] == ["size-only"]


def test_tables_keep_their_columns(run):
    text = model_card(run, [], None)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_every_file_is_listed_with_its_size_and_how_to_load_it(run, tmp_path):
    paths = write_files(run, EXPORTERS, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    for path in paths:
        assert re.search(rf"\| `{path.name}` \| [\w-]+ \| {path.stat().st_size:,} \|", text)
    for word in ("ajpq.packed", "onnxruntime", "ai_edge_litert", "load_policy"):
        assert word in text
    assert "fit" in inspect(paths[0]).integrity


def test_an_export_that_fails_leaves_nothing(run, tmp_path):
    def fails(network, policy, folder):
        raise AjpqError("the second one fails")

    with pytest.raises(AjpqError, match="second"):
        write_files(run, {"onnx": EXPORTERS["onnx"], "other": fails}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("baseline", None, None),
        ("found", None, []),
        ("found", "top1_test", None),
        ("baseline", "top1_val", "high"),
        ("found", "bops", 3),
        ("found", "bops", {"fl32": 1, "fl8": None, "all": 1}),
    ],
)
def test_a_result_that_lacks_something_is_told(part, key, value):
    check_result(RESULT)
    changed = {**RESULT, part: value if key is None else {**RESULT[part], key: value}}
    with pytest.raises(AjpqError, match=f"result.json.*{part}"):
        check_result(changed)
    del changed[part]
    with pytest.raises(AjpqError, match=f"no entry '{part}'"):
        check_result(changed)


def test_a_packed_file_alone_is_exported_and_its_card_goes_along(run, tmp_path):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    save(run.network, zoo / PACKED_FILE)
    write_card(zoo, run, {"packed": zoo / PACKED_FILE}, [], "mit")
    onnx_file, packed_file = api.export(zoo, ["onnx", "packed"], tmp_path / "out")
    assert packed_file.read_bytes() == (zoo / PACKED_FILE).read_bytes()
    assert inspect(onnx_file).stated["network"] == "built"
    text = (tmp_path / "out" / "README.md").read_text()
    assert front_of(text)["license"] == "mit"
    assert "90.75 %" in text
    assert text.count("## Files") == 1
    assert "`model.onnx`" in text
    assert {path.name for path in zoo.iterdir()} == {PACKED_FILE, "README.md"}


def zoo_of(run, folder):
    """A packed file with its card, whose licence is MIT."""
    folder.mkdir()
    save(run.network, folder / PACKED_FILE)
    write_card(folder, run, {"packed": folder / PACKED_FILE}, [], "mit")
    return folder


def test_a_card_states_what_its_files_are(run, tmp_path):
    zoo = zoo_of(run, tmp_path / "zoo")
    digest = hashlib.sha256((zoo / PACKED_FILE).read_bytes()).hexdigest()
    assert f"| `{digest}` |" in (zoo / "README.md").read_text()


def swap(zoo):
    net = Builder(seed=1)
    save(net.classifier(net.layer("conv", "input", 8, widths=(4,))), zoo / PACKED_FILE)


def disown(zoo):
    (zoo / "README.md").write_text("accuracy 90.75 %, by someone else")


def bloat(zoo):
    with (zoo / "README.md").open("a") as card:
        card.write("x" * (1 << 21))
    text = (zoo / "README.md").read_text()
    (zoo / "README.md").write_text(text.replace("## Files", "x" * (1 << 20) + "\n## Files"))


@pytest.mark.parametrize("change", [swap, disown, bloat])
def test_a_card_of_another_file_is_not_carried(change, run, tmp_path):
    zoo, notes = zoo_of(run, tmp_path / "zoo"), []
    change(zoo)
    api.export(zoo, ["packed"], tmp_path / "out", note=notes.append)
    text = (tmp_path / "out" / "README.md").read_text()
    assert "90.75 %" not in text
    assert "model-index" not in front_of(text)
    assert any("is not taken along" in note for note in notes)


def test_a_licence_that_is_stated_goes_into_a_carried_card(run, tmp_path):
    zoo = zoo_of(run, tmp_path / "zoo")
    api.export(zoo, ["packed"], tmp_path / "out", license="apache-2.0")
    text = (tmp_path / "out" / "README.md").read_text()
    assert front_of(text)["license"] == "apache-2.0"
    assert "Licence of the checkpoint: apache-2.0." in text
    assert "90.75 %" in text
    assert "mit" not in text.partition("## Files")[0].replace("permit", "").split()


def test_a_name_stays_a_name(tmp_path):
    name = "a\n\n## Accuracy 99 %\n\x1b[2J<img src=x> `b` [link](http://x)" + 500 * "x"
    network = dataclasses.replace(small_network(), name=name)
    text = model_card(Source(network), [], None)
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if "Accuracy 99 %" in line and "# a" in line]
    assert len(line) < 400
    assert not any(line.startswith("## Accuracy") for line in text.splitlines())
    assert "\\<img" in line
    assert "\\[link" in line


def test_a_packed_file_by_name_says_what_is_not_known(tmp_path):
    path = save(small_network(), tmp_path / "some.ajpq")
    (again,) = api.export(str(path), ["packed"], str(tmp_path / "out"))
    assert load(again).name == "built"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "not known" in text
    assert "model-index" not in front_of(text)


def test_a_packed_file_holds_no_policy(tmp_path):
    path = save(small_network(), tmp_path / PACKED_FILE)
    with pytest.raises(AjpqError, match="'policy' needs the run"):
        api.export(tmp_path, ["policy"], tmp_path / "out")
    assert path.exists()


def test_a_readme_of_someone_else_stays(tmp_path):
    save(small_network(), tmp_path / PACKED_FILE)
    (tmp_path / "README.md").write_text("precious")
    with pytest.raises(AjpqError, match="no model card of ours"):
        api.export(tmp_path, ["packed"], tmp_path)
    assert (tmp_path / "README.md").read_text() == "precious"
