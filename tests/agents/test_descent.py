"""Steps downhill, on a network whose true divergence is known."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.descent import downhill, shrunk
from agents.experience import Tried, learned_reward
from agents.searchers.opening import descend
from agents.trials import Trials
from envs.layer_control import sharing
from envs.slopes import Slopes
from tests.envs.toy import joint_toy, with_slopes

WIDTHS = range(2, 9)


def candidate(task, level=0.5):
    """All layers alike, nothing pruned, on the budget."""
    wanted = np.full((len(task.layers), len(task.knobs.names)), level)
    wanted[:, 0] = 0.0
    settings = task.projected(wanted)
    policy = task.policy(settings)
    return Tried(settings, task.shares, task.assess(policy), policy.hash)


def slopes_of(task, one, worth=0.0, error=0.0, at=()):
    """None but those ``at`` (layer, channel, 0 for narrower or 1 for wider, nats)."""
    shapes = [(len(scores), 2) for scores in task.scores.values()]
    nats = [np.full(shape, worth) for shape in shapes]
    for layer, channel, way, value in at:
        nats[layer][channel, way] = value
    return Slopes(tuple(nats), tuple(np.full(shape, error) for shape in shapes))


def widths(task, settings):
    return np.array([layer.weight_bits for layer in task.policy(settings).layers.values()])


def test_where_a_step_saves_much_it_is_taken_and_the_budget_is_kept():
    task = sharing(joint_toy(0.5))
    one = candidate(task)
    before = widths(task, one.settings)
    at = [(1, 2, 1, -9.0), (2, 0, 0, -9.0)]
    moved, found = downhill(task, one, slopes_of(task, one, at=at), 1.0)
    after = widths(moved, found)
    assert after[1, 2] > before[1, 2]
    assert after[2, 0] < before[2, 0]
    assert task.budget.met(task.price(moved.policy(found)))


def test_no_channel_leaves_its_neighbourhood_before_the_budget_is_used_up():
    task = sharing(joint_toy(0.5))
    one = candidate(task)
    rng = np.random.default_rng(0)
    at = [(i, c, w, rng.normal()) for i in range(4) for c in range(4) for w in range(2)]
    moved, found = downhill(task, one, slopes_of(task, one, at=at), 0.0)
    apart = widths(moved, found) - widths(task, one.settings)
    assert np.abs(apart).max() <= 2  # one down by choice, one up to use what is left
    ratio = task.budget.ratios(task.price(moved.policy(found)))["size"]
    assert 0.45 < ratio <= 0.5


def test_what_may_be_chance_moves_nothing():
    task = sharing(joint_toy(0.5))
    one = candidate(task)
    rng = np.random.default_rng(0)
    at = [(i, c, w, -1e-4 * rng.random()) for i in range(4) for c in range(4) for w in range(2)]
    flat, unsure = slopes_of(task, one), slopes_of(task, one, error=1.0, at=at)
    ends = [downhill(task, one, own, 1.0) for own in (flat, unsure)]
    assert np.array_equal(*(widths(*end) for end in ends))


def test_true_slopes_lead_to_better_candidates_again_and_again():
    """Slopes of the toy's exact divergence, from layers whose widths are wrongly shared out."""
    task = sharing(joint_toy(0.5))
    one = candidate(task)

    asking = with_slopes(task, images=30)
    trials = Trials(judge=lambda task, policy: task.assess(policy), cost=lambda metrics: 100)
    tried = [one]
    rewards = [task.score(one.metrics)]
    for _ in range(4):
        descend(trials, [asking], tried, (1.0,), set())
        rewards.append(max(task.score(own.metrics) for own in tried))
    # Up to three steps at once, one where it does not help.
    assert 4 * 30 <= trials.images <= 12 * 30
    assert rewards[1] > rewards[0]
    assert rewards[-1] >= rewards[1]
    assert rewards[-1] > 0.6 * rewards[0]  # rewards are below zero


def test_nobody_pays_twice_for_the_same_slopes_of_what_its_settings_stand_for():
    """The best is a policy that its settings give only nearly, as one of the integer program; what
    they give is worse, and its slopes are asked for once."""
    task = sharing(joint_toy(0.5))
    asking = with_slopes(task, images=30)
    one = candidate(task)
    ahead = one.metrics.model_copy(update={"top1_val": 100.0, "kl": 0.0})
    tried, left = [dataclasses.replace(one, metrics=ahead, hash="of another")], set()
    trials = Trials(judge=lambda task, policy: task.assess(policy), cost=lambda metrics: 0)
    descend(trials, [asking], tried, (1.0,), left)
    assert trials.images == 30
    assert {name for _, name in left} == {"of another", one.hash}
    descend(trials, [asking], tried[1:2], (1.0,), left)
    assert trials.images == 30


def test_nobody_pays_twice_for_the_same_slopes():
    task = sharing(joint_toy(0.5))
    asking = with_slopes(task, images=30)
    trials = Trials(judge=lambda task, policy: task.assess(policy), cost=lambda metrics: 0)
    tried, left, spent = [candidate(task)], set(), []
    for _ in range(12):
        descend(trials, [asking], tried, (1.0,), left)
        spent.append(trials.images)
    assert spent[0] > 0
    assert spent[-1] == spent[-2]  # the best is where it was, and so are its slopes
    assert trials.images == 30 * len(left)
    descend(trials, [asking], tried, (1.0,), set())
    assert trials.images > spent[-1]


@settings(max_examples=60, deadline=None)
@given(
    nats=st.floats(-2, 2).filter(lambda value: abs(value) > 1e-6),
    error=st.floats(0, 2),
    caution=st.floats(0, 3),
)
def test_slopes_shrink_towards_zero_and_never_beyond(nats, error, caution):
    own = shrunk(np.array([nats]), np.array([error]), caution)[0]
    assert 0 <= own / nats <= 1
    if caution * error == 0:
        assert own == pytest.approx(nats)
    if caution * error >= abs(nats):
        assert own == 0


def test_only_what_controllers_propose_counts_as_learned():
    task = sharing(joint_toy(0.5))
    drawn = np.random.default_rng(0).random((3, len(task.layers), len(task.knobs.names)))
    found = [task.projected(own) for own in drawn]
    tried = [Tried(own, task.shares, task.assess(task.policy(own)), "") for own in found]
    tried.sort(key=lambda own: task.score(own.metrics))
    low, middle, high = (task.score(own.metrics) for own in tried)
    assert low < middle < high
    second = [tried[0], dataclasses.replace(tried[1], learned=True), tried[2]]
    assert learned_reward(task, second) == pytest.approx(middle - low)
    last = [tried[1], tried[0], dataclasses.replace(tried[2], learned=True)]
    assert learned_reward(task, last) == pytest.approx(high - middle)
    assert learned_reward(task, tried) == 0.0
    assert learned_reward(task, [dataclasses.replace(tried[0], learned=True)]) is None
