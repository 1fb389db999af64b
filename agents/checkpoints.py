"""Agents on disk: safetensors for the networks, JSON for the rest, nothing pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from agents.config import AgentConfig
from ajpq.checkpoints import load_tensors, save_tensors
from hw_models.errors import AjpqError

_SEPARATOR = "|"


def save_agent(agent: BaseAlgorithm, config: AgentConfig, folder: Path) -> None:
    """Write ``agent.safetensors`` and ``agent.json`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for name, content in agent.get_parameters().items():
        _flatten(content, name, tensors, values)
    save_tensors(folder / "agent.safetensors", tensors)
    description = {"config": config.model_dump(mode="json"), "values": values}
    (folder / "agent.json").write_text(json.dumps(description, indent=1) + "\n")


def load_agent(agent: BaseAlgorithm, folder: Path) -> None:
    """Restore what :func:`save_agent` wrote into an agent built from the same config.

    Raises:
        AjpqError: a file is missing or does not fit this agent.
    """
    try:
        values = json.loads((folder / "agent.json").read_text())["values"]
        tensors, _ = load_tensors(folder / "agent.safetensors")
        parameters = {name: _unflatten(name, tensors, values) for name in agent.get_parameters()}
        agent.set_parameters(parameters, exact_match=True)
    except (AjpqError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise AjpqError(f"cannot load the agent in {folder}: {error}") from error


def _flatten(
    content: Any, path: str, tensors: dict[str, torch.Tensor], values: dict[str, Any]
) -> None:
    """Spread a nested state dict over named tensors and JSON values."""
    if isinstance(content, torch.Tensor):
        tensors[path] = content.detach()
    elif isinstance(content, dict):
        values[path] = {"keys": [[type(key).__name__, str(key)] for key in content]}
        for key, value in content.items():
            _flatten(value, f"{path}{_SEPARATOR}{key}", tensors, values)
    elif isinstance(content, list | tuple):
        values[path] = {"length": len(content)}
        for index, value in enumerate(content):
            _flatten(value, f"{path}{_SEPARATOR}{index}", tensors, values)
    else:
        values[path] = {"value": content}


def _unflatten(path: str, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> Any:
    """The inverse; the stored structure decides, because optimizer state grows with training."""
    if path in tensors:
        return tensors[path]
    stored = values[path]
    if "keys" in stored:
        kinds = {"int": int, "str": str}
        return {
            kinds[kind](key): _unflatten(f"{path}{_SEPARATOR}{key}", tensors, values)
            for kind, key in stored["keys"]
        }
    if "length" in stored:
        return [
            _unflatten(f"{path}{_SEPARATOR}{index}", tensors, values)
            for index in range(stored["length"])
        ]
    return stored["value"]
