"""Functions of policies that are asked the same again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ajpq.policy import CompressionPolicy

Answer = TypeVar("Answer")


def remembered(
    function: Callable[[CompressionPolicy], Answer], most: int
) -> Callable[[CompressionPolicy], Answer]:
    """``function`` asked once per policy, as long as not ``most`` others were asked since.

    The very same object is meant: :func:`envs.actions.decode` hands out one for equal settings,
    and comparing all widths would take longer than many an answer.
    """
    answers: dict[int, tuple[CompressionPolicy, Answer]] = {}

    def ask(policy: CompressionPolicy) -> Answer:
        known = answers.get(id(policy))
        if known is None or known[0] is not policy:
            known = answers[id(policy)] = policy, function(policy)
            if len(answers) > most:
                del answers[next(iter(answers))]
        return known[1]

    return ask


def remembered_by_structure(
    function: Callable[[CompressionPolicy], Answer], most: int
) -> Callable[[CompressionPolicy], Answer]:
    """The same for what depends on :func:`structure` alone."""
    answers: dict[bytes, Answer] = {}

    def ask(policy: CompressionPolicy) -> Answer:
        key = structure(policy)
        if key not in answers:
            answers[key] = function(policy)
            if len(answers) > most:
                del answers[next(iter(answers))]
        return answers[key]

    return ask


def structure(policy: CompressionPolicy) -> bytes:
    """What is pruned, and the widths of activations; not the widths of live channels."""
    layers = policy.layers.values()
    widths = b"".join(bytes(layer.weight_bits) for layer in layers)
    return widths.translate(_LIVE) + bytes(layer.activation_bits for layer in layers)


_LIVE = bytes([0, *[1] * 255])
