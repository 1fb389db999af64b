"""A task with a known optimum: quality is closeness to hidden settings."""

import dataclasses
import itertools

import numpy as np

from ajpq.evaluate import Bops, Costs, Metrics
from ajpq.policy import QuantizerSpec
from envs.actions import make_knobs
from envs.allocation import KernelTable
from envs.budget import Budget, reward
from envs.slopes import Slopes
from envs.task import CompressionTask, LayerFacts

NONE = Bops(fl32=0, fl8=0, all=0)


def toy_task(wanted_sparsity=(1.0, 0.0, 0.0), channels=8):
    """Three layers with one knob each; best prunes half of the first and nothing else."""
    names = [f"layer{index}" for index in range(len(wanted_sparsity))]
    knobs = make_knobs((0, 8), (8,), max_sparsity=0.5, fixed_bits=None)
    facts = tuple(
        LayerFacts(
            name, "conv", 8, channels, 3, 1, 64, False, False, 1 / 3, 1 / 3, 1 / 3, (0.5, 0.5)
        )
        for name in names
    )

    def costs(policy):
        live = sum(int((layer.bits > 0).sum()) for layer in policy.layers.values())
        return Costs(latency_s=live, packed_bytes=live, flash_bytes=None, bops=NONE, macs=live)

    def assess(policy):
        error = sum(
            abs(layer.sparsity - 0.5 * wanted)
            for layer, wanted in zip(policy.layers.values(), wanted_sparsity, strict=True)
        )
        return Metrics(**costs(policy).model_dump(), top1_val=100 - 100 * error, kl=0.0)

    budget = Budget({}, {"size": 1000.0}, None, 100.0)
    return CompressionTask(
        layers=facts,
        scores={name: np.arange(float(channels)) for name in names},
        leaders=tuple(range(len(names))),
        prior=np.full((len(names), len(knobs.names)), 0.5),
        unprunable=frozenset(),
        knobs=knobs,
        quantizer=QuantizerSpec(),
        budget=budget,
        packed_bytes=lambda policy: costs(policy).packed_bytes,
        price=costs,
        judge=lambda policy, budget: assess(policy),
        value=lambda metrics, budget: reward(metrics, budget, kl_weight=0, soft=False),
    )


SENSITIVITY = np.array([1.0, 0.1, 3.0, 0.03])  # nats without any channel
BYTES = np.array([100.0, 400.0, 200.0, 800.0])  # of an 8-bit channel
IMPORTANCE = np.array([0.1, 0.4, 1.0, 2.5])  # of the channels of every layer; their mean is 1


def joint_toy(size=0.5, max_sparsity=0.75, harm_images=0, **settings):
    """Four layers of four channels with knobs for sparsity, bits and spread, and a size budget.

    Harm and bytes of channels add up; ``size`` is a share of the 8-bit network's bytes.
    """
    names = [f"layer{index}" for index in range(len(BYTES))]
    shares = BYTES / BYTES.sum()
    facts = tuple(
        LayerFacts(name, "conv", 8, 4, 3, 1, 64, False, False, 0.25, share, 0.25, (0.5, 0.5))
        for name, share in zip(names, shares.tolist(), strict=True)
    )

    def harm(changes):
        return float(sum(layer_harm(names.index(n), layer.bits) for n, layer in changes.items()))

    def costs(policy):
        layers = zip(BYTES, policy.layers.values(), strict=True)
        stored = sum(each * layer.bits.sum() / 8 for each, layer in layers)
        return Costs(
            latency_s=None, packed_bytes=round(stored), flash_bytes=None, bops=NONE, macs=0
        )

    def assess(policy):
        kl = harm(policy.layers)
        return Metrics(**costs(policy).model_dump(), top1_val=100 - 100 * kl, kl=kl)

    task = CompressionTask(
        layers=facts,
        scores=dict.fromkeys(names, IMPORTANCE),
        leaders=tuple(range(len(names))),
        prior=np.full((len(names), 3), 0.5),
        unprunable=frozenset(),
        knobs=make_knobs(
            (0, 2, 3, 4, 5, 6, 7, 8), (8,), max_sparsity=max_sparsity, fixed_bits=None
        ),
        quantizer=QuantizerSpec(),
        budget=Budget({"size": size}, {"size": 4 * BYTES.sum()}, None, 100.0),
        packed_bytes=lambda policy: costs(policy).packed_bytes,
        price=costs,
        judge=lambda policy, budget: assess(policy),
        value=lambda metrics, budget: reward(metrics, budget, kl_weight=0, soft=False),
        harm=harm,
        harm_images=harm_images,
        margin=0.0,
        tables=tuple(layer_table(index) for index in range(len(names))),
    )
    return dataclasses.replace(task, **settings)


def with_slopes(task, images):
    """The joint toy with slopes that measuring would find if it were exact and certain.

    Less what the tables take for the risk of a step, so that the step is worth what it brings.
    """

    def slopes(policy):
        shapes = [(len(scores), 2) for scores in task.scores.values()]
        nats = [np.zeros(shape) for shape in shapes]
        for index, (name, layer) in enumerate(policy.layers.items()):
            bits, here = np.array(layer.weight_bits), task.harm({name: layer})
            for channel, way in itertools.product(np.flatnonzero(bits), (0, 1)):
                there = bits.copy()
                there[channel] = np.clip(bits[channel] + (-1, 1)[way], 2, 8)
                if there[channel] != bits[channel]:
                    moved = layer.model_copy(update={"weight_bits": tuple(there.tolist())})
                    table, at = task.tables[index].errors[channel], (bits[channel], there[channel])
                    risk = sum(table[width - 2] for width in at)
                    nats[index][channel, way] = task.harm({name: moved}) - here - risk
        return Slopes(tuple(nats), tuple(np.zeros(shape) for shape in shapes))

    return dataclasses.replace(task, slopes=slopes, slope_images=images)


def layer_table(layer):
    """What the channels of a layer lose and store at every width."""
    widths = np.arange(2, 9)
    errors = SENSITIVITY[layer] * np.outer(IMPORTANCE, 4.0**-widths) / 4
    return KernelTable(widths, errors, np.tile(BYTES[layer] * widths, (4, 1)))


def layer_harm(layer, bits):
    """Nats when the channels of a layer, ascending in importance, have these ``bits [4]``."""
    real = np.asarray(bits) == 32
    return SENSITIVITY[layer] * float((IMPORTANCE * np.where(real, 0.0, 4.0**-bits)).mean())


def best_of_joint_toy(size, sparsities=(0, 1, 2, 3)):
    """The largest reward of policies with one width per layer, by trying all of them."""
    harm, stored = np.zeros(1), np.zeros(1)
    for layer in range(len(BYTES)):
        options = [
            np.array([0] * pruned + [width] * (4 - pruned))
            for pruned in sparsities
            for width in range(2, 9)
        ]
        own = np.array([layer_harm(layer, bits) for bits in options])
        bytes_ = np.array([BYTES[layer] * bits.sum() / 8 for bits in options])
        harm = (harm[:, None] + own).ravel()
        stored = (stored[:, None] + bytes_).ravel()
    return -float(harm[stored <= size * 4 * BYTES.sum()].min())
