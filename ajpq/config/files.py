"""Settings from the YAML files of ``configs/`` or of a user, with options on top."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ajpq.config.schema import CompressConfig, FinalRound, Run, SearchConfig
from ajpq.finetune.recipe import Recipe, Stage
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plain import clipped, parsed_yaml, read_text, shown

_KINDS = ("search", "compress", "compare", "replay")


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
        AjpqError: nowhere, the method would not keep the widths that the search finds, or a later
            stage would undo it.
    """
    stage = method_stage(method).keeping_widths()
    if stage is None:
        raise AjpqError(
            f"method {method!r} does not end with the widths and channels that a search finds: use "
            f"python -m ajpq.compress --method {method}"
        )
    if config.full_recipe.keeps_full_precision:
        raise AjpqError(
            f"method {method!r} has nothing to train: the last recipe of `final`, "
            f"{config.full_recipe.name!r}, has no straight_through stage"
        )
    try:
        recipes = [own.recipe.trained_by(stage, Path(method).stem) for own in config.final]
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise AjpqError(
            f"method {method!r} does not fit the recipes of `final`: {message}"
        ) from error
    rounds = zip(config.final, recipes, strict=True)
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
    return [name for name in shipped("methods") if method_stage(name).keeping_widths() is not None]


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
