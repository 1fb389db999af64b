"""What a comparison of searchers is asked to do, as one validated object."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ajpq.config.paths import with_full_path
from ajpq.config.schema import FinalRound, SearchConfig, SearchSettings


class CompareConfig(SearchSettings):
    """Several searchers on the same problem: the settings of a search, and what differs.

    The config's ``seed`` is that of the problem: network, data split and images are the same for
    all. ``agent``, ``episodes``, ``final`` and ``method`` of a search have no meaning here.

    Attributes:
        agents: shipped names or YAML files.
        seeds: each searcher searches once with each of them, one that draws nothing with the first.
        candidates: what every search may cost, as the images of so many plain candidates:
            calibrated, and ranked by all search images. Early decisions leave room for more.
        images: the same as a number of images, in place of ``candidates``.
        measured: so many of the best candidates within a budget are measured on the whole
            validation split by the exact reference.
        between: of so many budgets between one budget and the next, which no searcher is asked for,
            the best candidate is measured too: it makes the front, and so the hypervolume.
        reference_drop: points of top-1, and
        reference_ratio: mean ratio of the bounded costs, beyond which a policy adds nothing to the
            hypervolume.
    """

    kind: Literal["compare"]
    agents: tuple[str, ...] = Field(default=("td3", "random"), min_length=1)
    seeds: tuple[int, ...] = (0, 1, 2)
    candidates: int = Field(default=300, ge=1)
    measured: int = Field(default=3, ge=1)
    between: int = Field(default=3, ge=0)
    reference_drop: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    reference_ratio: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    @field_validator("agents")
    @classmethod
    def _different_agents(cls, specs: tuple[str, ...]) -> tuple[str, ...]:
        labels = [label_of(spec) for spec in specs]
        if len(set(labels)) < len(labels):
            raise ValueError("expected agents of different names")
        return tuple(with_full_path(spec) for spec in specs)

    @field_validator("seeds")
    @classmethod
    def _seeds_with_a_spread(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or len(seeds) < 2:
            raise ValueError("expected two or more different seeds: one shows no spread")
        if not all(0 <= seed < 2**32 for seed in seeds):
            raise ValueError("expected 0 <= seed < 2**32")
        return seeds

    @model_validator(mode="after")
    def _most_accurate_within_bounds(self) -> Self:
        if not self.bounds:
            raise ValueError("a comparison needs bounds on costs, such as size_ratio 0.1")
        for name in ("max_drop", "time_budget_s"):
            if getattr(self, name) is not None:
                raise ValueError(f"equal cost and budgets for all searchers leave no {name}")
        return self

    def search_by(self, agent: str, images: int, most_candidates: int) -> SearchConfig:
        """One of the searches; as many candidates reach its finals as are measured here.

        Args:
            agent: one of ``agents``.
            images: what it may cost.
            most_candidates: that it may ask for; those that it repeats cost no images.
        """
        shared = {name: getattr(self, name) for name in SearchSettings.model_fields}
        own = {
            "agent": agent,
            "images": images,
            "episodes": most_candidates,
            "method": None,
            "final": (FinalRound(keep=self.measured, recipe=self.candidate),),
        }
        return SearchConfig.model_validate({**shared, **own})


def label_of(agent: str) -> str:
    """An agent's name in tables and folders."""
    return Path(agent).stem if agent.endswith((".yaml", ".yml")) else agent
