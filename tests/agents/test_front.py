"""A search's front on disk, what it suggests for other budgets, searches that go on from it."""

import numpy as np
import pytest

from agents.front import Point, carried_over, load_front, save_front, starts
from envs.episodes import settled
from envs.layer_control import sharing
from hw_models.errors import AjpqError
from tests.agents.searching import best, searched
from tests.envs.toy import joint_toy


def point_of(task, size, level):
    return Point(
        bounds={"size": size},
        settings=np.full(task.prior.shape, level).tolist(),
        shares=[[level] * len(scores) for scores in task.scores.values()],
        top1_val=90.0,
        reward=-0.1,
        reward_warm=None,
    )


def test_a_front_comes_back(tmp_path):
    points = [point_of(sharing(joint_toy()), size, size) for size in (0.3, 0.6)]
    save_front(tmp_path / "agent", points)
    assert load_front(tmp_path / "agent") == points


def test_no_front_and_a_damaged_one_are_told(tmp_path):
    with pytest.raises(AjpqError, match="only a run with --agent ajpq or ajpq-layers leaves one"):
        load_front(tmp_path)
    (tmp_path / "front.json").write_text('[{"bounds": {}}]')
    with pytest.raises(AjpqError, match=r"damaged: 0\.settings"):
        load_front(tmp_path)


def test_between_two_budgets_the_mean_comes_first_nearer_to_the_nearer():
    task = sharing(joint_toy(0.4))
    points = [point_of(task, size, level) for size, level in ((0.8, 0.75), (0.2, 0.25))]
    mean, below, above = starts(points, task)
    assert mean.prior == pytest.approx(0.5)  # 0.4 is the geometric mean of 0.2 and 0.8
    assert np.concatenate(mean.shares) == pytest.approx(0.5)
    assert (below.prior.max(), above.prior.min()) == (0.25, 0.75)
    assert [start.prior.max() for start in starts(points, task.at(4))] == [0.75]
    assert [start.prior.max() for start in starts(points, task.at(0.25))] == [0.25]


def test_the_front_of_another_network_suggests_nothing():
    task = sharing(joint_toy())
    odd = point_of(task, 0.5, 0.5)
    odd = odd.model_copy(update={"settings": odd.settings[:-1]})
    assert starts([odd], task) == []


def test_what_another_network_has_learned_is_laid_over_by_depth():
    task = sharing(joint_toy())
    own = settled(task, task.prior)
    prior = np.full((5, own.shape[1]), 0.5)
    moved = np.linspace(-0.2, 0.2, 5)[:, None] + np.zeros(own.shape[1])
    other = point_of(task, 0.5, 0.5)
    settings = (prior + moved).tolist()
    fields = {"settings": settings, "prior": prior.tolist(), "knobs": task.knobs.names}
    near = other.model_copy(update=fields)
    level = task.budget.bounds["size"]
    far = near.model_copy(update={"bounds": {"size": 9 * level}, "settings": prior.tolist()})
    (start,) = carried_over([far, near], task)
    expected = own + np.linspace(-0.2, 0.2, len(own))[:, None]
    assert start.prior == pytest.approx(np.clip(expected, 0.0, 1.0))
    older = near.model_copy(update={"prior": []})
    assert carried_over([older], task) == []
    others = near.model_copy(update={"knobs": ("sparsity", "activation")})
    assert carried_over([others], task) == []


def test_on_another_network_its_own_measurements_are_asked_first(tmp_path):
    task, folder = joint_toy(0.4), tmp_path / "agent"
    alone = {"pruning": [], "floor": 0, "channel_rounds": 0}
    searched("ajpq", [task], tmp_path, hyperparameters=alone, most_candidates=12)
    points = load_front(folder)
    assert np.shape(points[0].prior) == np.shape(points[0].settings)
    deeper = [
        point.model_copy(
            update={
                "settings": [row for row in point.settings for _ in range(2)],
                "prior": [row for row in point.prior for _ in range(2)],
            }
        )
        for point in points
    ]
    save_front(folder, deeper)
    asked, _ = searched(
        "ajpq",
        [task],
        tmp_path / "second",
        hyperparameters=alone,
        origin=folder,
        most_candidates=12,
    )
    own = sharing(task)
    (carried,) = carried_over(load_front(folder), own)
    for each, start in zip(asked, (own, carried), strict=False):
        assert each.policy == start.policy(settled(start, start.prior))


def test_a_budget_in_between_is_decoded_from_what_was_learned(tmp_path):
    learned, decoded = tmp_path / "learned", tmp_path / "decoded"
    searched("ajpq", [joint_toy(0.3), joint_toy(0.6)], learned, most_candidates=60)
    task = joint_toy(0.42)
    found, _ = searched("ajpq", [task], decoded, origin=learned / "agent", most_candidates=8)
    assert len(found) == 8
    alone, _ = searched("ajpq", [task], tmp_path / "alone", most_candidates=60)
    assert best(found) > best(alone) - 0.001  # a tenth of a point
    assert load_front(decoded / "agent")[0].bounds == {"size": 0.42}


def test_agents_of_another_kind_are_refused(tmp_path):
    searched("ajpq", [joint_toy()], tmp_path, most_candidates=8)
    (tmp_path / "agent" / "layer" / "agent.safetensors").write_bytes(b"nonsense")
    with pytest.raises(AjpqError, match="cannot load the agent"):
        searched("ajpq", [joint_toy()], tmp_path, origin=tmp_path / "agent", most_candidates=8)
