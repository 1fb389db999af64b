"""The files that tell of a comparison, from outcomes made up here."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from ajpq.reporting import write_comparison
from ajpq.reporting.compare_charts import front_series, reward_series
from ajpq.reporting.compare_table import cells, headings
from tests.comparing.test_standings import comparison, outcome, policy

EVIL = "</script><script>alert(1)</script>|$x_"


@pytest.fixture
def found():
    curve = ((100.0, -0.5), (400.0, -0.1))
    return comparison(
        outcome("td3", 0, policy(80.0, 0.1, (True, True)), curve=curve),
        outcome("td3", 1, policy(84.0, 0.2, (False, True)), curve=curve),
        outcome(EVIL, 0, policy(70.0, 0.1, (True, True)), policy(75.0, 0.2, (False, True))),
        outcome(EVIL, 1, curve=()),
    )


def test_the_table_has_one_row_per_searcher(found):
    titles = headings(found)
    assert titles[4:6] == ["top-1 % at size 0.1", "top-1 % at size 0.2"]
    (td3, evil) = cells(found)
    assert td3[:3] == ["td3", "10", "1,000"]
    assert td3[4:6] == ["none", "82.00"]
    assert evil[4:6] == ["none", "none"]


def test_the_files_hold_the_same_numbers(found, tmp_path):
    (tmp_path / "command.txt").write_text("python -m ajpq.compare </pre>\n")
    write_comparison(tmp_path, found)
    lines = (tmp_path / "compare.md").read_text().splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]}) == 1
    rows = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [(row["agent"], row["seed"]) for row in rows][:2] == [("td3", "0"), ("td3", "1")]
    assert float(rows[0]["hypervolume"]) == pytest.approx(10 * 0.9)
    assert rows[1]["best_top1 size 0.1"] == ""
    with Image.open(tmp_path / "compare.png") as picture:
        assert picture.size[0] > 1000
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_the_page_is_whole_and_safe(found, tmp_path):
    write_comparison(tmp_path, found)
    page = (tmp_path / "compare.html").read_text()
    assert EVIL not in page
    assert "&lt;/script&gt;" in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)
    figures = re.findall(r'data-plot="plot-(\w+)">(.*?)</script>', page, re.DOTALL)
    assert [name for name, _ in figures] == ["front", "rewards"]
    assert all(json.loads(figure)["data"] for _, figure in figures)


def test_bands_run_from_the_worst_to_the_best_seed(found):
    td3, evil = front_series(found)
    np.testing.assert_allclose(td3.x, [0.2])
    assert (td3.low[0], td3.middle[0], td3.high[0]) == (80, 82, 84)
    assert len(evil.x) == 0  # one seed has nothing: there is no median to draw
    assert len(evil.points) == 2
    rewards = reward_series(found)[0]
    np.testing.assert_allclose(rewards.x, [100, 400, 1000])
    np.testing.assert_allclose(rewards.middle, [-0.5, -0.1, -0.1])
