"""Candidates of a search, each judged on as many images as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.runs.candidates import CandidateLog
from ajpq.selection.fidelity import Answers, Rival
from ajpq.selection.judge import judge_against, shared_by_candidates


class Bounds(Protocol):
    """What is asked of a budget here."""

    def met(self, costs: Metrics) -> bool:
        """Does a candidate keep all bounds on costs?"""


def contest(
    config: SearchConfig, problem: Problem, log: CandidateLog
) -> Callable[[CompressionPolicy, Bounds], Metrics]:
    """A judge that gives a candidate up when it clearly will not be fine-tuned.

    With a bound on the drop a candidate has to keep it against the uncompressed network; otherwise
    to beat the last of those that would be in the finals of its budget at present. Rewards of more
    than accuracy cannot be told early, and so nothing is given up there.
    """
    told_by_accuracy = config.kl_weight == 0 and config.budget_mode == "hard"
    answers: dict[str, Answers] = {}
    sample, recipe = problem.search_sample, config.candidate
    shared = shared_by_candidates(problem, recipe)

    def known(policy: CompressionPolicy) -> Answers:
        if policy.hash not in answers:  # judged before an interruption
            answers[policy.hash] = judge_against(problem, recipe, policy, None, shared)[1]
        return answers[policy.hash]

    def rival(budget: Bounds) -> Rival | None:
        if not told_by_accuracy:
            return None
        if config.max_drop is not None:
            assert sample.float_logits is not None
            right = sample.float_logits.argmax(1) == sample.labels
            return Rival(Answers(right), config.max_drop)
        last = log.placed(config.final[0].keep, budget.met)
        return None if last is None else Rival(known(last))

    def judged(policy: CompressionPolicy, budget: Bounds) -> Metrics:
        gains = log.gains if told_by_accuracy else None
        metrics, found = judge_against(problem, recipe, policy, rival(budget), shared, gains)
        if len(found.right) == len(sample.labels):
            answers[policy.hash] = found
        return metrics

    return lambda policy, budget: log.assess(policy, lambda asked: judged(asked, budget))
