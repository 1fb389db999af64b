"""Candidates of a journal as a comparison ranks them."""

from types import SimpleNamespace

from ajpq.comparing.comparison import asked_of
from ajpq.config.files import load_recipe
from ajpq.evaluate import Bops, Metrics
from envs.budget import Budget, reward


def entry(name, top1, given_up):
    metrics = Metrics(
        latency_s=None,
        packed_bytes=50,
        flash_bytes=None,
        bops=Bops(fl32=1, fl8=1, all=1),
        macs=1,
        top1_val=top1,
        kl=0.0,
        images=10,
        given_up=given_up,
    )
    return {"hash": name, "spent": 0, "metrics": metrics.model_dump(mode="json")}


def test_estimates_count_only_for_budgets_that_nobody_was_asked_for():
    wide, tight = (Budget({"size": bound}, {"size": 100}, None, 90.0) for bound in (0.6, 0.4))
    arena = SimpleNamespace(
        recipe=load_recipe("direct"),
        problem=SimpleNamespace(split=SimpleNamespace(train=range(1000))),
        budgets=(tight, wide),
        between=(wide, tight),
        task=SimpleNamespace(value=lambda m, budget: reward(m, budget, kl_weight=0, soft=False)),
    )
    judged, estimated = asked_of([entry("a", 80.0, False), entry("b", 85.0, True)], arena)
    assert judged.rewards == (None, -0.1)
    assert judged.between == (-0.1, None)
    assert estimated.rewards == (None, None)
    assert estimated.between == (-0.05, None)
