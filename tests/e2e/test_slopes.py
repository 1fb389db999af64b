"""Candidates that are not trained, as in the shipped configs: the search ends by going downhill."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.e2e.commands import TINY, command, journal, lines_in_journal, start_and_kill

# A step shows a thousand images to two networks and passes gradients back; a candidate takes 60.
SLOPES, EPISODES = 4 * 1024, 16


@pytest.fixture
def config(tmp_path):
    settings = yaml.safe_load(Path(TINY).read_text())
    direct = [{"keep": 1, "recipe": "direct"}]
    settings |= {"agent": "ajpq", "episodes": EPISODES, "candidate": "direct", "final": direct}
    path = tmp_path / "direct.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def test_slopes_are_paid_for_and_a_search_killed_after_them_goes_on_alike(config, tmp_path):
    whole, run = tmp_path / "whole", tmp_path / "killed"
    assert command("search", "--config", config, "--run-dir", whole).returncode == 0
    spent = [line["spent"] for line in journal(whole) if line["kind"] == "candidate"]
    paid = [later - earlier >= SLOPES for earlier, later in pairwise(spent)]
    assert len(spent) == EPISODES
    first = paid.index(True) + 1
    start_and_kill("search", config, run, lambda folder: lines_in_journal(folder) > first)
    outcome = command("search", "--config", config, "--run-dir", run, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert journal(run) == journal(whole)
    assert (run / "policy.json").read_text() == (whole / "policy.json").read_text()
