"""Candidates of a search, each judged on as many images as it takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ajpq.config import SearchConfig
from ajpq.evaluate import Metrics
from ajpq.fidelity import Rival
from ajpq.judge import judge_against, shared_by_candidates
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.runs.candidates import CandidateLog


def contest(
    config: SearchConfig, problem: Problem, log: CandidateLog, met: Callable[[Metrics], bool]
) -> Callable[[CompressionPolicy], Metrics]:
    """A judge that gives a candidate up when it clearly will not be fine-tuned.

    With a bound on the drop a candidate has to keep it against the uncompressed network; otherwise
    to beat the last of those that are in the finals at present. Rewards of more than accuracy
    cannot be told early, and so nothing is given up there.

    Args:
        met: does a candidate keep all bounds on costs?
    """
    told_by_accuracy = config.kl_weight == 0 and config.budget_mode == "hard"
    right: dict[str, Tensor] = {}
    sample, recipe = problem.search_sample, config.candidate
    shared = shared_by_candidates(problem, recipe)

    def known(policy: CompressionPolicy) -> Tensor:
        if policy.hash not in right:  # judged before an interruption
            right[policy.hash] = judge_against(problem, recipe, policy, None, shared)[1]
        return right[policy.hash]

    def rival() -> Rival | None:
        if not told_by_accuracy:
            return None
        if config.max_drop is not None:
            assert sample.float_logits is not None
            return Rival(sample.float_logits.argmax(1) == sample.labels, config.max_drop)
        last = log.placed(config.final[0].keep, met)
        return None if last is None else Rival(known(last))

    def judged(policy: CompressionPolicy) -> Metrics:
        gains = log.gains if told_by_accuracy else None
        metrics, answers = judge_against(problem, recipe, policy, rival(), shared, gains)
        if len(answers) == len(sample.labels):
            right[policy.hash] = answers
        return metrics

    return lambda policy: log.assess(policy, judged)
