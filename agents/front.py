"""The best candidate for every budget of a search, on disk, and one in between.

A search with two controllers leaves its front in ``agent/front.json``; a later one starts from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from agents.experience import Tried, best_of, learned_reward
from envs.episodes import settled
from envs.task import CompressionTask
from hw_models.errors import AjpqError
from hw_models.plain import clipped

FILE = "front.json"


class Point(BaseModel):
    """A budget's best candidate.

    Attributes:
        bounds: cost -> ratio to the reference.
        settings: ``[L][K]`` goals of the layers.
        shares: of each layer's channels.
        prior: ``[L][K]`` what single-layer measurements suggest for it; none in older fronts.
        knobs: what the columns of both are.
        reward: of the best.
        reward_warm: without what the controllers' own proposals added to the best so far, each
            when it came; None if the first was one of theirs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    bounds: dict[str, float]
    settings: list[list[float]]
    shares: list[list[float]]
    top1_val: float
    reward: float
    reward_warm: float | None
    prior: list[list[float]] = []
    knobs: tuple[str, ...] = ()


_FRONT = TypeAdapter(list[Point])


def points_of(tasks: Sequence[CompressionTask], tried: Sequence[Tried]) -> list[Point]:
    """Each budget's best candidate, and what controllers added to it."""
    points = []
    for task in tasks:
        after = best_of(tried, task)
        if after is not None:
            reward, learned = task.score(after.metrics), learned_reward(task, tried)
            points.append(
                Point(
                    bounds=dict(task.budget.bounds),
                    settings=after.settings.tolist(),
                    shares=[own.tolist() for own in after.shares],
                    top1_val=after.metrics.top1_val,
                    reward=reward,
                    reward_warm=None if learned is None else reward - learned,
                    prior=settled(task, task.prior).tolist(),
                    knobs=task.knobs.names,
                )
            )
    return points


def save_front(folder: Path, points: Sequence[Point]) -> None:
    """Write ``front.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [point.model_dump(mode="json") for point in points]
    (folder / FILE).write_text(json.dumps(rows) + "\n")


def load_front(folder: Path) -> list[Point]:
    """Read what :func:`save_front` wrote.

    Raises:
        AjpqError: there is none, or it is damaged.
    """
    try:
        return _FRONT.validate_json((folder / FILE).read_text())
    except OSError as error:
        raise AjpqError(
            f"no front in {folder}: only a run with --agent ajpq or ajpq-layers leaves one"
            f" ({error.strerror})"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(map(str, first["loc"])))
        raise AjpqError(f"{folder / FILE} is damaged: {where}: {first['msg']}") from error


def starts(points: Sequence[Point], task: CompressionTask) -> list[CompressionTask]:
    """``task`` with the candidates as priors that a front suggests for its budget, likeliest first.

    Between two budgets that lie around it first their mean, nearer to the nearer one, then each of
    them. Empty if the front is that of another network.
    """
    fitting = [point for point in points if _fits(point, task)]
    order = sorted(fitting, key=lambda point: _level(point.bounds, task))
    wanted = _level(task.budget.bounds, task)
    below = [point for point in order if _level(point.bounds, task) <= wanted][-1:]
    above = [point for point in order if _level(point.bounds, task) > wanted][:1]
    found = [_centred(task, *_content(point)) for point in [*below, *above]]
    if below and above:
        low, high = (_level(point.bounds, task) for point in (below[0], above[0]))
        share = (wanted - low) / (high - low)
        pairs = zip(_content(below[0]), _content(above[0]), strict=True)
        found.insert(0, _centred(task, *((1 - share) * a + share * b for a, b in pairs)))
    return found


def carried_over(points: Sequence[Point], task: CompressionTask) -> list[CompressionTask]:
    """``task`` with a prior that another network's front suggests: the best of the nearest budget.

    By how much its settings differ from that network's prior is laid over this one's, layers at the
    same share of the depth taking the same part. Empty if nothing is known or knobs are others.
    """
    known = [point for point in points if point.prior and point.knobs == task.knobs.names]
    if not known:
        return []
    wanted = _level(task.budget.bounds, task)
    nearest = min(known, key=lambda point: abs(_level(point.bounds, task) - wanted))
    moved = np.array(nearest.settings) - np.array(nearest.prior)
    depth, own = (np.linspace(0.0, 1.0, count) for count in (len(moved), len(task.prior)))
    laid = np.stack([np.interp(own, depth, column) for column in moved.T], axis=1)
    return [task.around(np.clip(settled(task, task.prior) + laid, 0.0, 1.0))]


def _level(bounds: Mapping[str, float], task: CompressionTask) -> float:
    """Mean logarithm of the bounds that the task has; those that a front lacks are loose."""
    return float(np.mean([np.log(bounds.get(name, 1.0)) for name in task.budget.bounds] or [0.0]))


def _fits(point: Point, task: CompressionTask) -> bool:
    channels = [len(scores) for scores in task.scores.values()]
    shares = [len(own) for own in point.shares]
    return np.shape(point.settings) == task.prior.shape and shares in ([], channels)


def _content(point: Point) -> tuple[np.ndarray, np.ndarray]:
    return np.array(point.settings), np.concatenate([*map(np.array, point.shares), np.zeros(0)])


def _centred(task: CompressionTask, settings: np.ndarray, shares: np.ndarray) -> CompressionTask:
    ends = np.cumsum([len(scores) for scores in task.scores.values()])[:-1]
    own = np.split(shares, ends) if len(shares) else []
    return task.with_shares(own).around(settings)
