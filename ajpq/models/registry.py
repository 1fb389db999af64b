"""Models by name, by torchvision name, and from the user's own code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn

from ajpq.models.mobilenet_cifar import cifar_mobilenet_v2
from ajpq.models.resnet8 import ResNet8
from ajpq.models.resnet_cifar import CifarResNet, projection_shortcut
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.plugins import call_with_accepted, is_object_spec, load_object

OWN_MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet8": ResNet8,
    "resnet20": partial(CifarResNet, 3),
    "resnet32": partial(CifarResNet, 5),
    "resnet32_projection": partial(CifarResNet, 5, shortcut=projection_shortcut),
    "resnet44": partial(CifarResNet, 7),
    "resnet56": partial(CifarResNet, 9),
    "resnet110": partial(CifarResNet, 18),
    "mobilenet_v2": partial(cifar_mobilenet_v2, 1.0),
    "mobilenet_v2_x0_5": partial(cifar_mobilenet_v2, 0.5),
}
_MOBILENET_WIDTH = re.compile(r"mobilenet_v2_x(\d+)_(\d+)")
_TORCHVISION_PREFIX = "torchvision:"
# Auxiliary heads are a training device that returns tuples; the network without them is meant.
_NO_AUXILIARY_HEADS = {"aux_logits": False, "init_weights": True}
_TORCHVISION_EXTRAS = {"googlenet": _NO_AUXILIARY_HEADS, "inception_v3": _NO_AUXILIARY_HEADS}


def model_names() -> tuple[str, ...]:
    """Names that :func:`build_model` knows, torchvision's classifiers included."""
    return (*OWN_MODELS, *(name for name in _torchvision_names() if name not in OWN_MODELS))


def build_model(spec: str, *, in_channels: int, classes: int, image_size: int) -> nn.Module:
    """Make a network with fresh weights, drawn from torch's global generator.

    Args:
        spec: a name of :func:`model_names`; ``mobilenet_v2_xA_B`` for the width A.B;
            ``torchvision:NAME`` where this package has its own model of that name; or
            ``module:function`` / ``path.py:function``, called with those of ``in_channels``,
            ``classes`` and ``image_size`` that it accepts.
        in_channels: channels of the images.
        classes: number of logits.
        image_size: height and width of the images, in pixels.

    Returns:
        A module in training mode that maps ``[N, in_channels, image_size, image_size]`` to
        ``[N, classes]``; that it does has been tried.

    Raises:
        UnknownNameError: no such model.
        AjpqError: the model does not take such images, or does not give one tensor of logits.
    """
    own = _own_builder(spec)
    if own is not None:
        model = own(in_channels=in_channels, classes=classes)
    elif spec.removeprefix(_TORCHVISION_PREFIX) in _torchvision_names():
        model = _from_torchvision(spec, in_channels, classes, image_size)
    elif is_object_spec(spec) and not spec.startswith(_TORCHVISION_PREFIX):
        model = _from_user(spec, in_channels, classes, image_size)
    else:
        raise UnknownNameError("model", spec, _known_like(spec))
    _try_forward(model, spec, (1, in_channels, image_size, image_size), classes)
    return model.train()


def _own_builder(spec: str) -> Callable[..., nn.Module] | None:
    width = _MOBILENET_WIDTH.fullmatch(spec)
    if width and float(f"{width[1]}.{width[2]}") > 0:
        return partial(cifar_mobilenet_v2, float(f"{width[1]}.{width[2]}"))
    return OWN_MODELS.get(spec)


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models)


def _known_like(spec: str) -> tuple[str, ...]:
    """The names to suggest from; without a near one, the list stays short enough for a line."""
    if spec.startswith(_TORCHVISION_PREFIX):
        return tuple(_TORCHVISION_PREFIX + name for name in _torchvision_names())
    if difflib.get_close_matches(spec, model_names(), n=1, cutoff=0.5):
        return model_names()
    return (*OWN_MODELS, "a torchvision name", "module:function", "path.py:function")


def _from_torchvision(spec: str, in_channels: int, classes: int, image_size: int) -> nn.Module:
    name = spec.removeprefix(_TORCHVISION_PREFIX)
    if in_channels != 3:
        raise AjpqError(f"model {spec!r} takes images with 3 channels, the data has {in_channels}")
    extras: dict[str, Any] = dict(_TORCHVISION_EXTRAS.get(name, {}))
    if name.startswith("vit_"):
        extras["image_size"] = image_size
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=classes, **extras)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _does_not_take(spec, (in_channels, image_size, image_size), error) from error


def _from_user(spec: str, in_channels: int, classes: int, image_size: int) -> nn.Module:
    function = load_object(spec, "model")
    if not callable(function):
        raise AjpqError(f"model {spec!r} is not callable: {type(function).__name__}")
    model = call_with_accepted(
        f"model {spec!r}",
        function,
        in_channels=in_channels,
        classes=classes,
        image_size=image_size,
    )
    if not isinstance(model, nn.Module):
        raise AjpqError(f"model {spec!r} gave a {type(model).__name__}, expected a torch.nn.Module")
    return model


def _try_forward(model: nn.Module, spec: str, shape: tuple[int, ...], classes: int) -> None:
    """One black image in evaluation mode, which leaves parameters, buffers and generators alone."""
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(shape))
    except Exception as error:  # any module may fail in any way on a shape that it cannot take
        raise _does_not_take(spec, shape[1:], error) from error
    if not isinstance(logits, torch.Tensor):
        found = type(logits).__name__
        raise AjpqError(f"model {spec!r} gives a {found}, expected one tensor of {classes} logits")
    if logits.shape != (1, classes):
        found = "x".join(map(str, logits.shape[1:]))
        raise AjpqError(f"model {spec!r} gives outputs of shape {found}, expected {classes} logits")


def _does_not_take(spec: str, shape: tuple[int, ...], error: Exception) -> AjpqError:
    size = "x".join(map(str, shape))
    reason = " ".join(str(error).split()) or type(error).__name__
    return AjpqError(f"model {spec!r} does not take {size} images: {reason}")
