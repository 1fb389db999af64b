"""Weights on disk: safetensors of our own, foreign checkpoints, and the public ones."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.error import URLError

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ajpq.files import write_atomically
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plain import parsed_json

PUBLIC_CHECKPOINTS_URL = (
    "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
)
# The part behind the dash is the start of the file's SHA-256, which torch.hub checks.
PUBLIC_CHECKPOINTS = {
    "resnet20": "resnet20-12fca82f.th",
    "resnet32": "resnet32-d509ac18.th",
    "resnet44": "resnet44-014dd654.th",
    "resnet56": "resnet56-4bfd9763.th",
    "resnet110": "resnet110-1d1ed7c2.th",
}
_METADATA_KEY = "ajpq"
# What the library raises on a file that is none, or whose header describes impossible tensors.
_DAMAGED = (
    safetensors.SafetensorError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
_WRAPPERS = ("state_dict", "model")


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically; equal content gives equal bytes.

    Raises:
        OSError: the disk is full or the folder cannot be written; an older file stays as it was.
    """
    own_storage = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    # One entry, because the library writes several in an order that changes between processes.
    header = {_METADATA_KEY: json.dumps(dict(metadata or {}), sort_keys=True)}
    write_atomically(path, safetensors.torch.save(own_storage, metadata=header))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors and the metadata that :func:`save_tensors` stored.

    Raises:
        AjpqError: no such file, or not a sound safetensors file.
    """
    _require_file(path)
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, parsed_json(header.get(_METADATA_KEY, "{}"))
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200]
        raise AjpqError(f"weights {str(path)!r}: damaged safetensors file: {reason}") from error


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load a trained network's weights into ``model``.

    Args:
        model: receives the values; unchanged when the checkpoint does not fit.
        path: safetensors (by its suffix), or a ``torch.save`` file with a state dict, bare or
            under the key ``state_dict`` or ``model``. The prefix ``module.`` that data-parallel
            training leaves is dropped.

    Raises:
        AjpqError: no such file; a damaged one; one that would have to be unpickled; one that
            does not fit, with the first key that is missing, unexpected or of another shape.
    """
    read = _read_safetensors if Path(path).suffix == ".safetensors" else _read_torch_file
    state = _without_prefix(read(path))
    misfit = _first_misfit(model.state_dict(), state)
    if misfit:
        raise AjpqError(f"checkpoint {str(path)!r} does not fit the model: {misfit}")
    model.load_state_dict(state, strict=False)  # only batch counters may be missing by now


def public_checkpoint(name: str) -> Path:
    """The published CIFAR-10 checkpoint of a ResNet, downloaded into torch.hub's folder.

    A file that is already there is used if its hash is right and replaced if it is not. The
    networks expect images normalised with the ImageNet mean and standard deviation.

    Raises:
        UnknownNameError: there is no public checkpoint for this model.
        AjpqError: the download failed or arrived with another hash.
    """
    if name not in PUBLIC_CHECKPOINTS:
        raise UnknownNameError("public checkpoint", name, PUBLIC_CHECKPOINTS)
    file_name = PUBLIC_CHECKPOINTS[name]
    prefix = Path(file_name).stem.rpartition("-")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / file_name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(prefix):
        return path
    os.makedirs(path.parent, exist_ok=True)
    url = PUBLIC_CHECKPOINTS_URL + file_name
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix)
    except (URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError) as e:
        reason = " ".join(str(e).split())
        raise AjpqError(
            f"cannot download {url} ({reason}); give the weights with --checkpoint FILE"
        ) from e
    return path


def _require_file(path: str | Path) -> None:
    if not Path(path).is_file():
        raise AjpqError(f"no weights file {str(path)!r}")


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    return load_tensors(path)[0]


def _read_torch_file(path: str | Path) -> dict[str, Tensor]:
    _require_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AjpqError(
            f"checkpoint {str(path)!r} holds more than tensors and is not unpickled; "
            "save model.state_dict() alone, with safetensors or torch.save"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AjpqError(f"checkpoint {str(path)!r} is damaged: {reason}") from error
    return _only_tensors(content, path)


def _only_tensors(content: object, path: str | Path) -> dict[str, Tensor]:
    """The state dict in a loaded file, out of its wrapper if it has one."""
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise AjpqError(f"checkpoint {str(path)!r} holds no state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            found = type(value).__name__
            raise AjpqError(f"checkpoint {str(path)!r}: {key!r} is a {found}, expected a tensor")
    return content


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop ``module.`` where every key has it; a submodule of that name has not every key."""
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)


def _first_misfit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    for key, tensor in expected.items():
        if key not in found:
            if not key.endswith("num_batches_tracked"):  # older files lack it, nothing reads it
                return f"{key!r} is missing"
        elif found[key].shape != tensor.shape:
            return f"{key!r} has shape {_shape(found[key])}, the model wants {_shape(tensor)}"
        elif not torch.isfinite(found[key]).all():
            return f"{key!r} holds values that are not finite"
    return _first_unexpected(expected, found)


def _first_unexpected(expected: Iterable[str], found: Iterable[str]) -> str | None:
    known = set(expected)
    unexpected = next((key for key in found if key not in known), None)
    return None if unexpected is None else f"{unexpected!r} is unexpected"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
