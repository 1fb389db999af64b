"""Searchers compared: all that is left behind, equal problems, and going on after a kill."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.commands import command, journal, lines_in_journal, start_and_kill

TINY = str(Path(__file__).with_name("tiny_compare.yaml"))
SEARCHES = ["td3-0", "td3-1", "random-0", "random-1"]


def compare(folder, *arguments):
    return command("compare", "--config", TINY, "--run-dir", folder, *arguments)


def told(folder):
    """``compare.json`` without what depends on the clock."""
    content = json.loads((folder / "compare.json").read_text())
    for part in [*content["searches"], *content["standings"]]:
        del part["seconds"]
    return content


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "all"
    outcome = compare(folder)
    assert outcome.returncode == 0, outcome.stderr
    return folder, outcome.stdout


def test_a_comparison_leaves_one_folder(finished):
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    files = {f"compare.{suffix}" for suffix in ("json", "csv", "md", "html", "png")}
    assert names == {"config.yaml", "command.txt", *SEARCHES, *files}
    assert "hypervolume" in printed
    assert all((folder / name / "journal.jsonl").exists() for name in SEARCHES)
    assert not list(Path().glob("**/test_ledger.jsonl"))  # no test image was looked at


def test_all_searches_cost_the_same_and_are_of_the_same_problem(finished):
    content = told(finished[0])
    assert [f"{found['agent']}-{found['seed']}" for found in content["searches"]] == SEARCHES
    assert content["images"] == 20 * (64 + 60)
    for name, found in zip(SEARCHES, content["searches"], strict=True):
        lines = journal(finished[0] / name)
        candidates = [line for line in lines if line["kind"] == "candidate"]
        assert len(candidates) == found["candidates"]
        # What a candidate costs is known afterwards: the last may go beyond.
        assert content["images"] <= found["images"] < content["images"] + 64 + 60
        last = candidates[-1]  # given up during its calibration, it was not shown the sample
        assert found["images"] == last["spent"] + 64 + last["metrics"]["images"]
        assert candidates[0]["spent"] == 960  # the sensitivities, measured once, paid by each
        assert [line["hash"] for line in lines if line["kind"] == "measured"] == [
            policy["hash"] for policy in found["measured"]
        ]
    first = [journal(finished[0] / name)[0]["hash"] for name in SEARCHES]
    assert len(set(first)) == 4  # the seeds reach the searchers


def test_the_best_few_within_each_budget_are_measured(finished):
    content = told(finished[0])
    sizes = [budget["size"] for budget in content["budgets"]]
    assert sizes == pytest.approx([0.08, 0.16])
    for found in content["searches"]:
        assert sum(policy["within"][0] for policy in found["measured"]) >= 2
        assert len(found["measured"]) <= 4
        assert all(policy["within"][1] for policy in found["measured"])
        for policy in found["measured"]:
            assert policy["drop"] == pytest.approx(content["baseline_top1"] - policy["top1"])


def is_measuring(folder):
    path = folder / SEARCHES[0] / "journal.jsonl"
    return path.exists() and '"measured"' in path.read_text()


def is_in_the_third_search(folder):
    return lines_in_journal(folder / SEARCHES[2]) >= 5


@pytest.mark.parametrize("reached", [is_measuring, is_in_the_third_search])
def test_a_killed_comparison_resumes_to_the_same_result(finished, tmp_path, reached):
    folder = tmp_path / "killed"
    start_and_kill("compare", TINY, folder, reached)
    assert not (folder / "compare.json").exists()
    done = {path: path.read_bytes() for path in folder.glob("*/search.json")}
    outcome = compare(folder, "--resume")
    assert outcome.returncode == 0, outcome.stderr
    assert told(folder) == told(finished[0])
    assert all(path.read_bytes() == content for path, content in done.items())
    for name in SEARCHES:
        assert journal(folder / name) == journal(finished[0] / name)


def test_searches_by_a_searcher_with_other_settings_are_not_taken(finished, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(finished[0], folder)
    (folder / "compare.json").unlink()
    file = folder / SEARCHES[0] / "searcher.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "warmup_episodes": 77}))
    outcome = compare(folder, "--resume")
    assert outcome.returncode == 2
    assert "was begun with another warmup_episodes of the agent: 77, not" in outcome.stderr
    file.write_text(json.dumps(settings))
    assert compare(folder, "--resume").returncode == 0


def test_a_finished_comparison_is_taken_as_it_is(finished):
    folder = finished[0]
    before = (folder / "compare.json").read_bytes()
    (folder / "compare.html").unlink()
    assert compare(folder, "--resume").returncode == 0
    assert (folder / "compare.json").read_bytes() == before
    assert (folder / "compare.html").exists()
    assert "no run folder but a comparison" in command("replay", folder).stderr
    assert "add --resume" in compare(folder).stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--agents", "td3", "randm"), "unknown agent 'randm'; did you mean 'random'"),
        (("--seeds", "3"), "one shows no spread"),
        (("--size-ratio", "none", "--latency-ratio", "none"), "needs bounds on costs"),
        (("--candidates", "2"), "ends before its first candidate"),
        (("--size-ratio", "0.001"), "smallest reachable"),
        (("--limit", "flash"), "expected COST=BOUND"),
    ],
)
def test_unusable_options(tmp_path, arguments, expected):
    outcome = compare(tmp_path / "run", *arguments)
    assert outcome.returncode == 2
    assert expected in outcome.stderr
    assert not (tmp_path / "run").exists()
