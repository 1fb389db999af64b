"""The uncompressed network: built, loaded or trained, and turned into a problem."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ajpq import data as ajpq_data
from ajpq.apply import apply_policy
from ajpq.checkpoints import load_checkpoint, load_tensors, public_checkpoint, save_tensors
from ajpq.config.schema import ProblemConfig
from ajpq.criteria import channel_scores, gradients
from ajpq.data.cache import cache_folder
from ajpq.evaluate import Images
from ajpq.finetune.recipe import Recipe
from ajpq.finetune.training import Snapshot, StageInputs, run_stage
from ajpq.graph.legality import illegal_layers
from ajpq.graph.structure import Graph, layers
from ajpq.graph.trace import trace
from ajpq.models import build_model
from ajpq.policy import CompressionPolicy, LayerPolicy, QuantizerSpec, check_policy
from ajpq.problem import Problem, augmented_images, float_logits, training_batches
from ajpq.quantizers import make_quantizer
from ajpq.runs.stages import load_snapshot, save_snapshot
from ajpq.simulation.calibration import activation_ranges, recalibrate_batchnorm
from hw_models.errors import AjpqError
from hw_models.network import Network
from hw_models.registry import load_target

_CALIBRATION_BATCHES = 4

OnStep = Callable[[int, int, float], None]
"""Called with step, total steps, loss."""


def build_problem(
    config: ProblemConfig,
    on_step: OnStep = lambda step, total, loss: None,
    policies: Sequence[CompressionPolicy] = (),
) -> Problem:
    """Load data, network and target; train the network first if there is no checkpoint.

    Args:
        on_step: progress of that training.
        policies: which must fit the network and the target; that is told before it is trained.

    Raises:
        AjpqError: anything in ``config`` that does not exist or does not fit together.
    """
    target = load_target(config.target)
    dataset = ajpq_data.load_data(
        config.data, mean=config.mean, std=config.std, image_size=config.image_size
    )
    split = ajpq_data.split(dataset, config.seed, config.validation_share)
    channels, height, width = dataset.image_shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = build_model(
            config.model, in_channels=channels, classes=len(dataset.classes), image_size=height
        )
    graph = trace(model, (channels, height, width))
    for policy in policies:
        check_policy(policy, {layer.name: layer.channels for layer in layers(graph)}, target)
    state = base_state(config, model, graph, dataset, split.train, on_step)
    _check_live(graph, state)
    images = calibration_images(dataset, split.train, config.seed)
    scores = channel_scores(
        config.criterion, graph, state, gradients(graph, state, F.cross_entropy, images)
    )
    return Problem(
        graph=graph,
        state=state,
        dataset=dataset,
        split=split,
        target=target,
        quantizer=config.quantizer,
        ranges=activation_ranges(graph, state, [batch for batch, _ in images]),
        scores=scores,
        search_sample=search_sample(config, dataset, split.validation, graph, state),
        seed=config.seed,
    )


def untrained_networks(
    name: str, image_size: int, classes: int, keep: Sequence[float] = (1.0,)
) -> list[Network]:
    """The int8 form of a model with random weights: for questions about its shape.

    Args:
        name: of the model.
        image_size: height and width of the images.
        classes: number of classes.
        keep: one network for each of these shares of all layers' channels; at least one of every
            layer stays, and all of the last. A share that cuts the network apart is left out.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(name, in_channels=3, classes=classes, image_size=image_size)
        images = torch.randn(2, 3, image_size, image_size)
    graph, state = trace(model, (3, image_size, image_size)), _floats(model)
    channels = {layer.name: layer.channels for layer in layers(graph)}
    ranges = activation_ranges(graph, state, [images])
    quantize = make_quantizer(QuantizerSpec()).quantize
    found = []
    for share in keep:
        policy = first_channels(channels, share)
        pruned = {layer: own.bits == 0 for layer, own in policy.layers.items()}
        if illegal_layers(graph, pruned):
            continue
        network = apply_policy(graph, state, policy, ranges, quantize)
        found.append(replace(network, name=f"{name}, {share:.0%} of the channels"))
    return found


def first_channels(channels: Mapping[str, int], share: float) -> CompressionPolicy:
    """8 bits for the first ``share`` of each layer's channels, 0 for the rest.

    At least one channel of every layer stays, and all of the last.
    """
    *inner, _ = channels
    counts = {name: max(1, round(share * channels[name])) for name in inner}
    return CompressionPolicy(
        layers={
            name: LayerPolicy(
                weight_bits=tuple(8 if i < counts.get(name, count) else 0 for i in range(count))
            )
            for name, count in channels.items()
        }
    )


def base_state(
    config: ProblemConfig,
    model: nn.Module,
    graph: Graph,
    dataset: ajpq_data.Dataset,
    train: np.ndarray,
    on_step: OnStep,
) -> dict[str, Tensor]:
    """Weights of the uncompressed network: from the checkpoint, the cache, or a training."""
    if config.checkpoint is not None:
        known = public_checkpoint(config.model) if config.checkpoint == "public" else None
        load_checkpoint(model, known or Path(config.checkpoint))
        return _floats(model)
    if not config.base.stages:
        raise AjpqError(
            f"no --checkpoint for model {config.model!r}, and the config has no `base` recipe"
        )
    _check_finite(config.model, _floats(model))
    parts = (
        config.model,
        [(n.kind, n.inputs, sorted(n.attributes.items()), dict(n.parameters)) for n in graph.nodes],
        {name: tuple(value.shape) for name, value in _floats(model).items()},
        ajpq_data.fingerprint(dataset),
        (config.seed, config.validation_share),
        config.base.model_dump_json(),
    )
    key = repr(parts)
    path = cache_folder("base") / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.safetensors"
    if path.exists():
        try:
            return load_tensors(path)[0]
        except AjpqError:
            path.unlink(missing_ok=True)
    part = path.with_suffix(".part")
    state = train_base(
        config.base, graph, _floats(model), dataset, train, config.seed, on_step, part
    )
    with contextlib.suppress(OSError):  # the cache only saves time
        save_tensors(path, state)
        part.unlink(missing_ok=True)
    return state


def _check_finite(model: str, state: Mapping[str, Tensor]) -> None:
    for name, value in state.items():
        if not bool(value.isfinite().all()):
            raise AjpqError(f"model {model!r}: {name} is not finite before any training")


def _check_live(graph: Graph, state: Mapping[str, Tensor]) -> None:
    weights = [state[layer.node.parameters["weight"]] for layer in layers(graph)]
    if not any(bool(weight.any()) for weight in weights):
        raise AjpqError("all weights of the network are zero: there is nothing to compress")


def train_base(
    recipe: Recipe,
    graph: Graph,
    state: dict[str, Tensor],
    dataset: ajpq_data.Dataset,
    train: np.ndarray,
    seed: int,
    on_step: OnStep,
    part: Path,
) -> dict[str, Tensor]:
    """Train the uncompressed network on the training part of the split.

    Args:
        part: where every epoch leaves a snapshot, from which an interrupted training continues.
    """
    first, snapshot = load_snapshot(part) or (0, None)
    for number, stage in enumerate(recipe.stages):
        if number < first:
            continue
        inputs = StageInputs(
            graph=graph,
            batches=training_batches(dataset, train, stage.batch_size, seed + number, stage.cutout),
            steps_per_epoch=stage.steps_per_epoch(len(train)),
        )
        total = stage.total_steps(len(train))
        report = functools.partial(_report, on_step, total)
        state = run_stage(
            stage,
            inputs,
            state,
            total_steps=total,
            resume=snapshot if number == first else None,
            on_epoch=functools.partial(_keep, part, number),
            on_step=report,
        )
    settings = recipe.calibration
    if settings.batchnorm_batches:  # the training's own statistics remember a dozen batches only
        images = augmented_images(
            dataset,
            train,
            seed,
            count=settings.batchnorm_batches,
            batch_size=settings.batch_size,
        )
        state |= recalibrate_batchnorm(graph, state, images, lambda edge, values: values)
    return state


def _keep(part: Path, number: int, snapshot: Snapshot) -> None:
    with contextlib.suppress(OSError):  # only a later resumption would miss it
        save_snapshot(part, number, snapshot)


def _report(on_step: OnStep, total: int, step: int, loss: float) -> None:
    on_step(step, total, loss)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().clone()
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }


def calibration_images(
    dataset: ajpq_data.Dataset, train: np.ndarray, seed: int, batch_size: int = 128
) -> list[tuple[Tensor, Tensor]]:
    """A few augmented training batches for ranges and gradients."""
    stream = training_batches(dataset, train, batch_size, seed + 15485863)(0)
    return [batch for _, batch in zip(range(_CALIBRATION_BATCHES), stream, strict=False)]


def search_sample(
    config: ProblemConfig,
    dataset: ajpq_data.Dataset,
    validation: np.ndarray,
    graph: Graph,
    state: dict[str, Tensor],
) -> Images:
    """Validation images that rank candidates: a seeded subset in random order, augmented once.

    Augmentation makes them harder than images that a public checkpoint may have been trained on.
    The order lets a candidate be given up after the first of them.
    """
    rng = np.random.default_rng((11, config.seed))
    count = min(config.search_images, len(validation))
    chosen = np.sort(rng.permutation(validation)[:count])
    pixels = ajpq_data.augment(dataset.train_images[chosen], dataset.augmentation, rng)
    order = rng.permutation(count)
    chosen, pixels = chosen[order], pixels[order]
    images = ajpq_data.normalize(pixels, dataset)
    labels = torch.from_numpy(np.array(dataset.train_labels[chosen]))
    return Images(images, labels, float_logits(graph, state, images))
