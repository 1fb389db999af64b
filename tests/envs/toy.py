"""A task with a known optimum: quality is closeness to hidden settings."""

import numpy as np

from ajpq.evaluate import Bops, Costs, Metrics
from ajpq.policy import QuantizerSpec
from envs.actions import make_knobs
from envs.budget import Budget, reward
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
