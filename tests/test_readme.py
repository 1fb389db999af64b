"""The README says what is true: its tables, its first commands, its example."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme
from hw_models.base import Target
from hw_models.network import Edge, Network, Operator, Weights

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
RESULT = {
    "command": "python -m benchmarks.demo",
    "seed": 3,
    "versions": {},
    "machine": {"processor": "A|B", "cores": 2, "instruction_set": "AVX2"},
    "seconds": 1234.5,
    "rows": [{"net": "x|y", "top1_test": 91.25}, {"net": "z", "top1_test": None, "bytes": 12345}],
    "bars": {"top1_at_least": {"value": 91.25, "bar": 91.5, "holds": False}},
}
MARKED = "before\n<!-- begin demo -->\nold\n<!-- end demo -->\nafter\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "demo.json").write_text(json.dumps(RESULT))
    return tmp_path


def test_the_tables_are_up_to_date():
    assert readme.main(["--check"]) == 0


def test_the_first_two_commands():
    commands = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert commands == ["make search", "make test"]


def test_the_files_that_it_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    missing = [link for link in links if "://" not in link and not (ROOT / link).is_file()]
    assert missing == []


def test_the_example_device_prices_a_network():
    namespace: dict[str, type] = {}
    exec(blocks("python")[0], namespace)
    device = namespace["MyDevice"]()
    assert isinstance(device, Target)
    weights = Weights(
        codes=np.ones((3, 5), np.int8),
        scales=np.ones(3, np.float32),
        bits=np.array([4, 8, 0], np.uint8),
        bias=np.zeros(3, np.float32),
    )
    edges = {"input": Edge("input", (5,), bits=8), "fc": Edge("fc", (3,))}
    layer = Operator("fc", "linear", ("input",), "fc", weights=weights)
    cost = device.cost(Network("tiny", "input", "fc", edges, (layer,)))
    assert cost.flash_bytes == 8  # (4 + 8) bits x 5 inputs = 60 bits
    assert cost.latency_s == pytest.approx(15 / 2e9)


def test_a_table_is_rendered_between_its_markers(results: Path):
    shown = readme.regenerate(MARKED, results)
    assert shown == (
        "before\n<!-- begin demo -->\n"
        "| net | top1 test | bytes |\n"
        "| --- | ---: | ---: |\n"
        "| x\\|y | 91.25 | – |\n"  # noqa: RUF001
        "| z | – | 12,345 |\n"  # noqa: RUF001
        "\n"
        "| bar | measured | set | holds |\n"
        "| --- | ---: | ---: | --- |\n"
        "| top1 at least | 91.25 | 91.5 | ✗ |\n"
        "\n"
        "`python -m benchmarks.demo` (seed 3) took 1,234 s on 2 cores, A|B, AVX2.\n"
        "<!-- end demo -->\nafter\n"
    )
    assert readme.regenerate(shown, results) == shown


def test_check_tells_and_does_not_write(results: Path, capsys: pytest.CaptureFixture[str]):
    page = results / "README.md"
    page.write_text(MARKED)
    options = ["--readme", str(page), "--results", str(results)]
    assert readme.main(["--check", *options]) == 1
    assert page.read_text() == MARKED
    assert "make readme" in capsys.readouterr().out
    assert readme.main(options) == 0
    assert readme.main(["--check", *options]) == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- begin absent -->\n<!-- end absent -->", "absent.json"),
        ("<!-- begin demo -->\n", "no partner"),
        ("<!-- end demo -->\n", "no partner"),
        ("<!-- begin demo -->\n<!-- end other -->", "no partner"),
        ("<!-- begin demo -->\n<!-- begin demo -->\n<!-- end demo -->", "no partner"),
        (MARKED + MARKED, "twice"),
    ],
)
def test_wrong_markers_are_errors(
    results: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
):
    page = results / "README.md"
    page.write_text(text)
    assert readme.main(["--readme", str(page), "--results", str(results)]) == 2
    assert complaint in capsys.readouterr().err
    assert page.read_text() == text


def test_a_missing_readme_and_a_broken_result_are_errors(results: Path):
    absent = ["--readme", str(results / "none.md"), "--results", str(results)]
    assert readme.main(absent) == 2
    (results / "demo.json").write_text("{")
    (results / "README.md").write_text(MARKED)
    assert readme.main(["--readme", str(results / "README.md"), "--results", str(results)]) == 2
