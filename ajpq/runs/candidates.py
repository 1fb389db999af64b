"""The candidates of a search: assessed once, journalled, ranked."""

from __future__ import annotations

import time
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
        self._pending: tuple[dict[str, Any] | None, float] = (None, 0.0)

    def assess(
        self, policy: CompressionPolicy, judge: Callable[[CompressionPolicy], Metrics]
    ) -> Metrics:
        """Metrics of ``policy``; the judge is a pure function, so equal policies share them."""
        started = time.monotonic()
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
        self._pending = recorded, time.monotonic() - started
        return metrics

    def keep(self, policy: CompressionPolicy, metrics: Metrics, reward: float) -> None:
        """Journal the candidate that was assessed last."""
        recorded, seconds = self._pending
        entry = recorded or {
            "kind": "candidate",
            "index": len(self.entries),
            "hash": policy.hash,
            "policy": policy.model_dump(mode="json"),
            "metrics": metrics.model_dump(mode="json"),
            "reward": reward,
            "seconds": round(seconds, 3),
        }
        if recorded is None:
            self.journal.append(entry)
        self.entries.append(entry)

    @property
    def seconds(self) -> float:
        """Time spent on all candidates, those of an earlier life of the run included."""
        return sum(entry["seconds"] for entry in self.entries)

    @property
    def best(self) -> dict[str, Any]:
        """The entry with the largest reward."""
        return max(self.entries, key=lambda entry: entry["reward"])

    def ranked(self, met: Callable[[Metrics], bool]) -> list[CompressionPolicy]:
        """Different policies, those within the budget first, then by reward."""
        unique = {entry["hash"]: entry for entry in reversed(self.entries)}
        order = sorted(
            unique.values(),
            key=lambda entry: (met(Metrics.model_validate(entry["metrics"])), entry["reward"]),
            reverse=True,
        )
        return [CompressionPolicy.model_validate(entry["policy"]) for entry in order]
