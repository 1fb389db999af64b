"""What a search with two controllers has learned serves another budget and another device."""

import json

import pytest

from agents.front import load_front
from ajpq.config.schema import SearchConfig
from ajpq.runs.folder import load_config
from tests.e2e.commands import command, journal, search


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A search for budgets from 0.1 to 0.3."""
    run = tmp_path_factory.mktemp("decode") / "wide"
    outcome = search(run, "--agent", "ajpq", "--budget-range", "3")
    assert outcome.returncode == 0, outcome.stderr
    return run


def candidates(run):
    return [line for line in journal(run) if line["kind"] == "candidate"]


def test_a_budget_in_between_is_decoded_from_a_finished_run(wide, tmp_path):
    run = tmp_path / "between"
    outcome = command("decode", wide, "--size-ratio", "0.14", "--episodes", "5", "--run-dir", run)
    assert outcome.returncode == 0, outcome.stderr
    config = load_config(run)
    assert isinstance(config, SearchConfig)
    assert (config.size_ratio, config.budget_range, config.agent_from) == (0.14, 1.0, str(wide))
    assert len(candidates(run)) == 5
    result = json.loads((run / "result.json").read_text())
    assert result["found"]["packed_bytes"] <= 0.14 * result["baseline"]["packed_bytes"]
    (point,) = load_front(run / "agent")
    assert point.bounds == {"size": 0.14}
    # It went on from the front: that is what the first candidates were.
    assert point.reward_warm is not None


def test_a_search_on_another_device_goes_on_from_a_run(wide, tmp_path):
    run = tmp_path / "bismo"
    outcome = search(
        run, "--agent", "ajpq", "--agent-from", wide, "--target", "bismo", "--episodes", "3"
    )
    assert outcome.returncode == 0, outcome.stderr
    assert len(candidates(run)) == 3
    (point,) = load_front(run / "agent")
    assert point.reward_warm is not None
    assert json.loads((run / "result.json").read_text())["target"] != "size-only"


def test_what_cannot_be_decoded_is_told_in_one_line(wide, tmp_path):
    refused = command("decode", wide)
    assert (refused.returncode, "give the new budget" in refused.stderr) == (2, True)
    refused = command("decode", tmp_path / "none", "--size-ratio", "0.1")
    assert refused.returncode == 2
