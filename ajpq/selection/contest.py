"""Candidates of a search, each judged on as many images as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ajpq.config.schema import SearchConfig
from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from ajpq.problem import Problem
from ajpq.runs.candidates import CandidateLog
from ajpq.selection.answers import Answers, answers_to
from ajpq.selection.fidelity import Rival
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
    to beat the reward of the last of those that would be in the finals of its budget at present, of
    candidates that have seen all images. Soft budgets reward low costs too, of which images tell
    nothing, so nothing is given up there. A candidate that is trained first is looked at in the
    midst of that where accuracy alone is rewarded.
    """
    hard = config.budget_mode == "hard"
    gains_tell = hard and config.kl_weight == 0
    answers: dict[str, Answers] = {}
    sample, recipe = problem.search_sample, config.candidate
    shared = shared_by_candidates(problem, recipe)

    def known(policy: CompressionPolicy) -> Answers:
        if policy.hash not in answers:  # judged before an interruption
            answers[policy.hash] = judge_against(problem, recipe, policy, None, shared)[1]
        return answers[policy.hash]

    def rival(budget: Bounds) -> Rival | None:
        if not hard:
            return None
        if config.max_drop is not None:
            assert sample.float_logits is not None
            return Rival(Answers(answers_to(sample, sample.float_logits)), config.max_drop)
        last = log.placed(config.final[0].keep, lambda m: budget.met(m) and not m.given_up)
        return None if last is None else Rival(known(last), kl_weight=config.kl_weight)

    def judged(policy: CompressionPolicy, budget: Bounds) -> Metrics:
        gains = log.gains if gains_tell else None
        metrics, found = judge_against(problem, recipe, policy, rival(budget), shared, gains)
        if config.max_drop is not None:  # the same is lost whoever asks, and may be regained
            metrics = metrics.model_copy(update={"given_up": False})
        if len(found.sample) == len(sample.labels):
            answers[policy.hash] = found
        return metrics

    return lambda policy, budget: log.assess(policy, lambda asked: judged(asked, budget))
