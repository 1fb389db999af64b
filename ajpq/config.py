"""What a run is asked to do, as one validated object."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ajpq.finetune.recipe import SELF_DISTILLATION, Recipe, Stage
from ajpq.limits import Limit, parse_limit
from ajpq.policy import ACTIVATION_BITS, QuantizerSpec
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plain import clipped, parsed_yaml, read_text, shown


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def shipped(folder: str) -> dict[str, Path]:
    """Name -> file of the YAML files that come with the package under ``configs/folder``."""
    root = Path(str(importlib.resources.files("configs"))) / folder
    return {path.stem: path for path in sorted(root.glob("*.yaml"))}


def read_yaml(folder: str, what: str, name: str) -> dict[str, Any]:
    """Read ``configs/folder/name.yaml``, or the file ``name`` if it ends in ``.yaml``.

    Raises:
        UnknownNameError: no shipped file has this name.
        AjpqError: the file cannot be read or is no mapping.
    """
    known = shipped(folder)
    path = Path(name) if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise UnknownNameError(what, name, known)
    try:
        content = parsed_yaml(read_text(path))
    except OSError as error:
        raise AjpqError(f"cannot read the {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise AjpqError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise AjpqError(f"{path} holds no {what}: expected a mapping of keys to values")
    return content


def validated(model: type[BaseModel], content: dict[str, Any], source: str) -> Any:
    """``model`` built from ``content``; a misfit becomes one line that names key and value."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = clipped(".".join(str(part) for part in first["loc"])) or "value"
        got = "" if isinstance(first["input"], dict) else f", got {shown(first['input'])}"
        message = first["msg"].removeprefix("Value error, ")
        raise AjpqError(f"{source}: {where}: {message}{got}") from error


def with_full_path(spec: str) -> str:
    """``spec`` with the full path of the file or folder that it names, if it names one.

    A run folder then works from any directory.

    Raises:
        ValueError: a path begins with the home of a user who does not exist.
    """
    text = spec
    if text.startswith(_FOLDER):
        folder = text.removeprefix(_FOLDER)
        return f"{_FOLDER}{_absolute(folder)}" if folder else text
    location, colon, attribute = text.rpartition(":")
    if location.endswith(".py"):
        return f"{_absolute(location)}{colon}{attribute}"
    return str(_absolute(text)) if text.endswith(_FILES) or "/" in text else text


_FOLDER = "imagefolder:"
_FILES = (".yaml", ".yml", ".csv", ".safetensors", ".pt", ".pth", ".th", ".bin")
_CHANGE = re.compile(r"(,\s*\w+\s*=\s*)")


def target_with_full_paths(spec: str) -> str:
    """:func:`with_full_path` of a target and of the files in the changes behind it.

    Raises:
        ValueError: as there.
    """
    main, *changes = _CHANGE.split(spec)
    values = [with_full_path(value.strip()) for value in changes[1::2]]
    pairs = (key + value for key, value in zip(changes[::2], values, strict=True))
    return with_full_path(main) + "".join(pairs)


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # no home
        raise ValueError(f"{path}: {error}") from error


def load_recipe(name: str) -> Recipe:
    """A recipe from ``configs/recipes`` or from a YAML file."""
    content = read_yaml("recipes", "recipe", name)
    recipe: Recipe = validated(Recipe, {"name": Path(name).stem, **content}, f"recipe {name!r}")
    return recipe


def load_method(name: str) -> dict[str, Any]:
    """The settings of a compression by a method of ``configs/methods``: widths and recipe.

    Raises:
        UnknownNameError: no method has this name.
    """
    return {"method": name, **read_yaml("methods", "method", name)}


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
            name that :func:`load_method` knows. :func:`load_run` writes it into the recipes, which
            hold without it.
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
    agent: str = "td3"
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
        return None if spec is None else str(_absolute(spec))

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
        method: whose shipped settings these are, see :func:`load_method`; they hold without it.
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


_KINDS = ("search", "compress", "compare", "replay")
RunConfig = SearchConfig | CompressConfig | ReplayConfig
Run = TypeVar("Run", bound=ProblemConfig)


def load_run(kind: type[Run], name: str, overrides: dict[str, Any]) -> Run:
    """An experiment from ``configs/experiments`` or a YAML file, with ``overrides`` on top.

    Recipes may be given by name (``candidate: direct``) or written out. The method of a search is
    put into its recipes.
    """
    content = on_top(read_yaml("experiments", "config", name), overrides)
    config = validated_run(kind, content, f"config {name!r}")
    if not isinstance(config, SearchConfig) or config.method is None:
        return config
    return config.model_copy(update={"final": _trained_by(config, config.method)})


def _trained_by(config: SearchConfig, method: str) -> tuple[FinalRound, ...]:
    """The final rounds, with the method wherever compressed networks train.

    Raises:
        AjpqError: nowhere, or the method would not keep the widths that the search finds.
    """
    stage = method_stage(method)
    if not stage.keeps_widths:
        raise AjpqError(
            f"method {method!r} chooses widths or channels of its own, which leaves nothing to a "
            f"search: use python -m ajpq.compress --method {method}"
        )
    if config.full_recipe.keeps_full_precision:
        raise AjpqError(
            f"method {method!r} has nothing to train: the last recipe of `final`, "
            f"{config.full_recipe.name!r}, has no straight_through stage"
        )
    rounds = ((own, own.recipe.trained_by(stage, Path(method).stem)) for own in config.final)
    return tuple(own.model_copy(update={"recipe": recipe}) for own, recipe in rounds)


def method_stage(name: str) -> Stage:
    """The training of a method's shipped settings: the last stage of their recipe.

    Raises:
        AjpqError: no method has this name, or its file holds no settings of a compression.
    """
    content = {"kind": "compress", **load_method(name)}
    stages = validated_run(CompressConfig, content, f"method {name!r}").recipe.stages
    if not stages:
        raise AjpqError(f"method {name!r} trains nothing: its recipe has no stage")
    return stages[-1]


def width_keeping_methods() -> list[str]:
    """The shipped methods that a search can train its finalists by."""
    return [name for name in shipped("methods") if method_stage(name).keeps_widths]


def on_top(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``content`` with ``overrides``; limits replace those on the same cost only."""
    found = {**content, **overrides}
    if isinstance(content.get("limits"), dict) and "limits" in overrides:
        found["limits"] = {**content["limits"], **overrides["limits"]}
    return found


def load_search_config(name: str, overrides: dict[str, Any]) -> SearchConfig:
    """:func:`load_run` of a search."""
    return load_run(SearchConfig, name, overrides)


def load_compress_config(name: str, overrides: dict[str, Any]) -> CompressConfig:
    """:func:`load_run` of a compression."""
    return load_run(CompressConfig, name, overrides)


def validated_run(model: type[Run], content: dict[str, Any], source: str) -> Run:
    """``content`` with named recipes filled in, as the settings of this kind of run.

    Raises:
        AjpqError: a misfit, or settings of another kind of run.
    """
    (wanted,) = get_args(model.model_fields["kind"].annotation)
    found = content.get("kind", "search")
    # A comparison is of searches: their settings are settings of it too.
    if found in _KINDS and found != wanted and (found, wanted) != ("search", "compare"):
        hint = "" if "kind" in content else f"; if it should be one, add `kind: {wanted}`"
        raise AjpqError(f"{source} is for python -m ajpq.{found}, not for ajpq.{wanted}{hint}")
    filled = with_recipes({**content, "kind": wanted if found == "search" else found})
    config: Run = validated(model, filled, source)
    return config


def with_recipes(content: dict[str, Any]) -> dict[str, Any]:
    """``content`` with the recipes that it names in place of their names."""
    content = dict(content)
    for key in ("base", "candidate", "recipe"):
        if isinstance(content.get(key), str):
            content[key] = load_recipe(content[key])
    final = content.get("final")
    if isinstance(final, list):
        content["final"] = [
            {**entry, "recipe": load_recipe(entry["recipe"])}
            if isinstance(entry, dict) and isinstance(entry.get("recipe"), str)
            else entry
            for entry in final
        ]
    return content
