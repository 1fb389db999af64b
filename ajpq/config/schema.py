"""What a run is asked to do, as one validated object."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from ajpq.config.paths import absolute, target_with_full_paths, with_full_path
from ajpq.finetune.recipe import SELF_DISTILLATION, Recipe
from ajpq.limits import Limit, parse_limit
from ajpq.policy import ACTIVATION_BITS, QuantizerSpec
from hw_models.errors import AjpqError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FinalRound(_Frozen):
    """One round of successive halving among the best candidates.

    Attributes:
        keep: how many candidates enter, the best of the round before.
        recipe: what each of them is fine-tuned with, from the uncompressed weights.
    """

    keep: int = Field(ge=1)
    recipe: Recipe


class ProblemConfig(_Frozen):
    """What every kind of run starts from: network, data, target, quantizer.

    Attributes:
        checkpoint: weights of the uncompressed network; ``public`` fetches the published ones,
            None trains the network first, with the recipe ``base``.
        search_images: validation images, augmented once, that rank candidates.
    """

    target: str = "edge-npu"
    model: str = "resnet8"
    data: str = "digits"
    checkpoint: str | None = None
    image_size: int | None = Field(default=None, ge=1, le=8192)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    criterion: str = "taylor"
    quantizer: QuantizerSpec = QuantizerSpec()
    search_images: int = Field(default=1000, ge=1)
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    base: Recipe = Recipe(name="none")

    @field_validator("target")
    @classmethod
    def _target_found_from_anywhere(cls, spec: str) -> str:
        return target_with_full_paths(spec)

    @field_validator("model", "data", "checkpoint")
    @classmethod
    def _found_from_anywhere(cls, spec: str | None) -> str | None:
        return None if spec is None else with_full_path(spec)

    @property
    def model_name(self) -> str:
        """The model as part of a file name."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.model.rpartition("/")[2]).strip("-")


class SearchSettings(ProblemConfig):
    """What a search is told: a problem, a budget, an agent, recipes.

    Attributes:
        latency_ratio: upper bound on latency relative to the unpruned int8 network.
        size_ratio: upper bound on packed bytes relative to the float32 network.
        limits: more bounds, on latency, size, flash, sram or energy, as ``70%`` of the unpruned
            int8 network (of the float32 network for size) or as ``0.5 ms``, ``128 kB``, ``20 uJ``;
            ``none`` takes a bound away; see :mod:`ajpq.limits`. One on latency or size replaces
            the ratio above.
        max_drop: points of validation top-1 that may be lost; given, the search looks for the
            cheapest policy that stays within it, otherwise for the most accurate one.
        budget_margin: share of the budget that projection leaves free, because fine-tuning
            changes the entropy of the codes a little.
        budget_mode: ``hard`` projects every proposal onto the budget, ``soft`` punishes excess.
        budget_range: the search serves all budgets from the bounds up to so many times as much.
        budgets: so many of them are asked for, equal factors apart.
        images: stop after candidates and sensitivities have taken so many images: shown to a
            network once, trained on three times.
        agent_from: a run whose agents and front the searcher goes on from.
        time_budget_s: stop proposing candidates after so many seconds of evaluation.
        fixed_bits: every kernel has this width or 0 (fixed-precision mode).
        kl_weight: the reward is top-1 (0..1) minus this times the KL divergence in nats.
        method: trains the finalists, in place of every ``straight_through`` stage of ``final``: a
            name that :func:`ajpq.config.files.load_method` knows. Recipes have it written in by
            :func:`ajpq.config.files.load_run`, and hold without it.
        workers: so many finalists of a round are fine-tuned side by side, each on its share of the
            threads; ``auto`` measures whether that is faster and remembers it for this run. Another
            run of the same seed may then measure otherwise, and the last bits depend on the threads
            of a training: a number is what repeats a result.
    """

    latency_ratio: float | None = Field(default=None, gt=0)
    size_ratio: float | None = Field(default=None, gt=0)
    limits: dict[str, str] = Field(default_factory=dict)
    max_drop: float | None = Field(default=None, ge=0)
    budget_mode: Literal["hard", "soft"] = "hard"
    budget_margin: float = Field(default=0.02, ge=0, lt=0.5)
    budget_range: float = Field(default=1.0, ge=1, allow_inf_nan=False)
    budgets: int = Field(default=3, ge=2)
    episodes: int = Field(default=60, ge=1)
    images: int | None = Field(default=None, ge=1)
    time_budget_s: float | None = Field(default=None, gt=0)
    agent: str = "ajpq"
    agent_from: str | None = None
    fixed_bits: int | None = Field(default=None, ge=2, le=8)
    max_sparsity: float = Field(default=0.75, ge=0, lt=1)
    kl_weight: float = Field(default=0.0, ge=0)
    method: str | None = None
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    candidate: Recipe = Recipe(name="none")
    final: tuple[FinalRound, ...] = Field(default=(), min_length=1)

    @property
    def full_recipe(self) -> Recipe:
        """What the winner was fine-tuned with."""
        return self.final[-1].recipe

    @property
    def bounds(self) -> dict[str, Limit]:
        """All bounds by cost."""
        given = {"latency": self.latency_ratio, "size": self.size_ratio}
        ratios = {cost: Limit(r, relative=True) for cost, r in given.items() if r is not None}
        found = ratios | {cost: parse_limit(cost, text) for cost, text in self.limits.items()}
        return {cost: limit for cost, limit in found.items() if limit is not None}

    @field_validator("agent", "method")
    @classmethod
    def _file_found_from_anywhere(cls, spec: str | None) -> str | None:
        return None if spec is None else with_full_path(spec)

    @field_validator("agent_from")
    @classmethod
    def _run_found_from_anywhere(cls, spec: str | None) -> str | None:
        return None if spec is None else str(absolute(spec))

    @field_validator("limits")
    @classmethod
    def _readable(cls, limits: dict[str, str]) -> dict[str, str]:
        for cost, text in limits.items():
            try:
                parse_limit(cost, text)
            except AjpqError as error:
                raise ValueError(str(error)) from error
        return limits

    @model_validator(mode="after")
    def _rounds_shrink(self) -> Self:
        keeps = [stage.keep for stage in self.final]
        if keeps != sorted(keeps, reverse=True):
            raise ValueError(f"the rounds of `final` must keep fewer and fewer, got {keeps}")
        return self


class SearchConfig(SearchSettings):
    """A search."""

    kind: Literal["search"] = "search"


class CompressConfig(ProblemConfig):
    """A compression without a search: a problem, the same width for every kernel, one recipe.

    Attributes:
        weight_bits, activation_bits: 32 leaves weights or activations as they are.
        outer_bits: width of the first and the last layer's weights, and the least width of the
            activations that these read; None treats them like the others.
        method: whose shipped settings these are (:func:`ajpq.config.files.load_method`); they hold
            without it.
        distill: all stages imitate the uncompressed network instead of learning from labels.
        epochs: length of the recipe's last stage.
    """

    kind: Literal["compress"]
    target: str = "size-only"
    weight_bits: int = 8
    activation_bits: int = 8
    outer_bits: int | None = None
    method: str | None = None
    distill: bool = False
    epochs: int | None = Field(default=None, ge=1)
    recipe: Recipe

    @field_validator("weight_bits", "activation_bits", "outer_bits")
    @classmethod
    def _known_width(cls, bits: int | None) -> int | None:
        if bits is not None and bits not in ACTIVATION_BITS:
            raise ValueError(f"expected one of {ACTIVATION_BITS}")
        return bits

    @model_validator(mode="after")
    def _something_to_compress(self) -> CompressConfig:
        widths = {self.weight_bits, self.outer_bits or self.weight_bits}
        if self.recipe.narrow_only and min(widths) >= 8:
            raise ValueError(
                f"{self.recipe.narrow_only[0]} compresses layers of less than 8 weight bits only, "
                f"got {self.weight_bits=}, {self.outer_bits=}"
            )
        return self

    @property
    def full_recipe(self) -> Recipe:
        """What the network is fine-tuned with."""
        recipe = self.recipe.imitating(SELF_DISTILLATION) if self.distill else self.recipe
        return recipe if self.epochs is None else recipe.lasting(self.epochs)


class ReplayConfig(ProblemConfig):
    """A policy that another run has found, on this network: no search, one recipe.

    Attributes:
        policy: hash of the policy, which is in the run folder.
    """

    kind: Literal["replay"] = "replay"
    policy: str
    recipe: Recipe

    @property
    def full_recipe(self) -> Recipe:
        """What the network was fine-tuned with."""
        return self.recipe


RunConfig = SearchConfig | CompressConfig | ReplayConfig
Run = TypeVar("Run", bound=ProblemConfig)
