"""What a comparison may be told, and what it tells its searches."""

import pytest

from ajpq.comparing.arena import mean_ratio
from ajpq.comparing.config import CompareConfig, label_of
from ajpq.config.files import load_run, shipped
from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Bops, Costs
from ajpq.runs.folder import check_resumable, create_run, load_config, stored_config
from envs.budget import Budget
from hw_models.errors import AjpqError


def loaded(**overrides):
    return load_run(CompareConfig, "digits", overrides)


@pytest.mark.parametrize("name", ["digits", "default", "cifar10-resnet20"])
def test_the_settings_of_a_search_are_settings_of_a_comparison(name):
    assert name in shipped("experiments")
    config = load_run(CompareConfig, name, {})
    assert (config.seeds, config.reference_drop, config.reference_ratio) == ((0, 1, 2), 20.0, 1.0)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"seeds": [1]}, "two or more different seeds: one shows no spread"),
        ({"seeds": [1, 1]}, "two or more different seeds"),
        ({"seeds": [-1, 1]}, "0 <= seed"),
        ({"agents": []}, "agents"),
        ({"agents": ["td3", "td3"]}, "different names"),
        ({"agents": ["mine/td3.yaml", "td3"]}, "different names"),
        ({"size_ratio": None, "latency_ratio": None}, "needs bounds on costs"),
        ({"max_drop": 1.0}, "leave no max_drop"),
        ({"time_budget_s": 60}, "leave no time_budget_s"),
        ({"reference_drop": 0}, "reference_drop"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(overrides, expected):
    with pytest.raises(AjpqError, match=expected) as caught:
        loaded(**overrides)
    assert "\n" not in str(caught.value)


def test_other_kinds_are_sent_to_their_commands():
    with pytest.raises(AjpqError, match=r"is for python -m ajpq\.compress, not for ajpq\.compare"):
        load_run(CompareConfig, "compress", {})
    with pytest.raises(AjpqError, match=r"is for python -m ajpq\.compare, not for ajpq\.search"):
        load_run(SearchConfig, "digits", {"kind": "compare"})


def test_searches_differ_in_the_agent_only():
    config = loaded(agents=["td3", "random"], budget_range=3, budgets=4, measured=5)
    one, other = (config.search_by(agent, 1000, 99) for agent in config.agents)
    assert one.model_copy(update={"agent": "random"}) == other
    assert (one.agent, one.images, one.episodes, one.final[0].keep) == ("td3", 1000, 99, 5)
    assert (one.budget_range, one.budgets, one.seed) == (3, 4, config.seed)
    assert [label_of(agent) for agent in ("td3", "mine/fast.yaml")] == ["td3", "fast"]


def test_its_folder_is_no_run_folder(tmp_path):
    config = loaded()
    create_run(tmp_path, config)
    assert stored_config(tmp_path) == config
    check_resumable(tmp_path, config)
    with pytest.raises(AjpqError, match="another seeds"):
        check_resumable(tmp_path, loaded(seeds=[4, 5]))
    with pytest.raises(AjpqError, match="comparison"):
        load_config(tmp_path)


def test_only_bounded_costs_count():
    costs = Costs(
        latency_s=0.5,
        packed_bytes=30,
        flash_bytes=20,
        bops=Bops(fl32=0, fl8=0, all=0),
        macs=0,
    )
    reference = {"latency": 1.0, "size": 100.0, "flash": 200.0}
    for bounds, expected in (
        ({"size": 0.4}, 0.3),
        ({"flash": 0.4}, 0.1),
        ({"latency": 0.9, "size": 0.4}, 0.4),
    ):
        budget = Budget(bounds, reference, None, 90.0)
        assert mean_ratio(budget, costs) == pytest.approx(expected)
