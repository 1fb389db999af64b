"""What a stage lowers: the loss of one batch, compiled where that pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ajpq.compressed import State, with_weights
from ajpq.finetune.precision import compiled_where_it_pays, training_precision
from ajpq.finetune.quantized import Quantized
from ajpq.finetune.recipe import Distillation, Stage
from ajpq.graph.execute import Hook, batch_statistics, channels_last, execute, frozen_batchnorm
from ajpq.graph.structure import Graph, layers

# What is differentiated twice holds several times the memory of a training step.
_IMAGES_OF_A_MOMENT = 64

Loss = Callable[[State, Tensor, Tensor], Tensor]
"""(state, images, labels) -> loss of the batch."""


def loss_function(
    stage: Stage, graph: Graph, network: Quantized | None, teacher: State | None, images: int
) -> Loss:
    """The loss of a stage that trains on so many images in all.

    Args:
        network: what is trained; None: the plain network.
        teacher: weights of the uncompressed network, for distillation.
    """
    depthwise = any(
        layer.node.attributes.get("groups", 1) == layer.channels > 1 for layer in layers(graph)
    )
    run = compiled_where_it_pays(_run, images, depthwise=depthwise)
    taught = compiled_where_it_pays(execute, images, depthwise=depthwise)

    def loss_of(state: State, images: Tensor, labels: Tensor) -> Tensor:
        with training_precision():
            view = state if network is None else network.view(state)
            logits = run(graph, view, images, network).float()
            if stage.distillation is None or teacher is None:
                return F.cross_entropy(logits, labels)
            with torch.no_grad():
                wanted = taught(graph, teacher, images, batchnorm=frozen_batchnorm).float()
        return distillation_loss(logits, wanted, labels, stage.distillation)

    return loss_of


def _run(graph: Graph, view: State, images: Tensor, network: Quantized | None) -> Tensor:
    if network is None:
        return execute(graph, view, images, batchnorm=batch_statistics)
    return execute(graph, view, images, edge=network.hook(view), batchnorm=batch_statistics)


def plain_loss(
    stage: Stage,
    network: Quantized,
    teacher: State | None,
    state: State,
    batch: Callable[[], tuple[Tensor, Tensor]],
) -> Callable[[Mapping[str, Tensor], Hook], Tensor]:
    """The same loss of given layer weights and with a given hook: float32, not compiled.

    Running statistics stay as they are.

    Args:
        batch: images and labels, asked for when a loss is.
    """

    def loss_of(weights: Mapping[str, Tensor], edge: Hook) -> Tensor:
        images, labels = (part[:_IMAGES_OF_A_MOMENT] for part in batch())
        images, graph = channels_last(images), network.graph
        moved = {name: v.clone() for name, v in state.items() if "running_" in name}
        view = with_weights(graph, {**state, **moved}, network.goal.bits, weights)
        logits = execute(graph, view, images, edge=edge, batchnorm=batch_statistics)
        if stage.distillation is None or teacher is None:
            return F.cross_entropy(logits, labels)
        with torch.no_grad():
            wanted = execute(graph, teacher, images, batchnorm=frozen_batchnorm)
        return distillation_loss(logits, wanted, labels, stage.distillation)

    return loss_of


def distillation_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, settings: Distillation
) -> Tensor:
    """Hinton's loss, arXiv 1503.02531: soft targets at a temperature, and the labels."""
    t = settings.temperature
    soft = F.kl_div(
        F.log_softmax(logits / t, dim=1),
        F.log_softmax(teacher_logits / t, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    loss = settings.weight * t * t * soft
    if settings.weight < 1:
        loss = loss + (1 - settings.weight) * F.cross_entropy(logits, labels)
    return loss
