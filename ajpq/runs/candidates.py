"""The candidates of a search: assessed once, journalled, ranked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ajpq.evaluate import Metrics
from ajpq.policy import CompressionPolicy
from ajpq.runs.journal import Journal


class CandidateLog:
    """Asks the judge for every policy that neither the journal nor this run has seen."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.entries: list[dict[str, Any]] = []
        self._seen: dict[str, Metrics] = {}
        self._recorded: dict[str, Any] | None = None

    def assess(
        self, policy: CompressionPolicy, judge: Callable[[CompressionPolicy], Metrics]
    ) -> Metrics:
        """Metrics of ``policy``; equal policies share them."""
        recorded = self.journal.next_recorded(
            kind="candidate", index=len(self.entries), hash=policy.hash
        )
        if recorded is not None:
            metrics = Metrics.model_validate(recorded["metrics"])
        elif policy.hash in self._seen:
            metrics = self._seen[policy.hash]
        else:
            metrics = judge(policy)
        self._seen[policy.hash] = metrics
        self._recorded = recorded
        return metrics

    def keep(
        self, policy: CompressionPolicy, metrics: Metrics, reward: float, spent: int = 0
    ) -> None:
        """Journal the candidate that was assessed last.

        Args:
            spent: images that the search had taken before it asked for this one.
        """
        entry = self._recorded or self.journal.append(
            {
                "kind": "candidate",
                "index": len(self.entries),
                "hash": policy.hash,
                "policy": policy.model_dump(mode="json"),
                "metrics": metrics.model_dump(mode="json"),
                "reward": reward,
                "spent": spent,
            }
        )
        self.entries.append(entry)

    @property
    def seconds(self) -> float:
        """Time until the last candidate, in all lives of the run."""
        return sum(entry["seconds"] for entry in self.entries)

    @property
    def best(self) -> dict[str, Any]:
        """The entry with the largest reward, of those that were judged in full if there are any."""
        return max(
            self.entries,
            key=lambda entry: (not entry["metrics"].get("given_up", False), entry["reward"]),
        )

    @property
    def gains(self) -> list[tuple[float, ...]]:
        """What the training of different candidates has brought since each look at them."""
        unique = {entry["hash"]: entry["metrics"].get("gains") for entry in self.entries}
        return [tuple(found) for found in unique.values() if found]

    def placed(self, place: int, met: Callable[[Metrics], bool]) -> CompressionPolicy | None:
        """The policy that would come in this ``place`` (from 1) of :meth:`ranked`.

        None if not so many keep the budget.
        """
        order = self._order(met)
        if len(order) < place or not met(self._seen[order[place - 1]["hash"]]):
            return None
        return CompressionPolicy.model_validate(order[place - 1]["policy"])

    def ranked(self, met: Callable[[Metrics], bool]) -> list[CompressionPolicy]:
        """Different policies, those within the budget first, then those that were judged in full,
        then by reward."""
        return [CompressionPolicy.model_validate(entry["policy"]) for entry in self._order(met)]

    def _order(self, met: Callable[[Metrics], bool]) -> list[dict[str, Any]]:
        unique = {entry["hash"]: entry for entry in reversed(self.entries)}

        def place(entry: dict[str, Any]) -> tuple[bool, bool, float]:
            metrics = self._seen[entry["hash"]]
            return met(metrics), not metrics.given_up, entry["reward"]

        return sorted(unique.values(), key=place, reverse=True)
