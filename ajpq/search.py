"""``python -m ajpq.search``: find a policy for a network and a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ajpq import api, cli
from ajpq.cli import Bound, Count, Limits, Text, option
from ajpq.config.files import width_keeping_methods
from ajpq.config.schema import SearchConfig

Number = Annotated[float | None, option("POINTS")]
Minutes = Annotated[float | None, option("MINUTES")]
Workers = Annotated[int | Literal["auto"] | None, option("N|auto")]
TRAINERS = (
    f"what trains the finalists: {', '.join(width_keeping_methods())}, or a YAML file as "
    "python -m ajpq.compress --method takes it; length and schedule are the config's."
)
Trainer = Annotated[str | None, option("NAME", about=TRAINERS)]
Mode = Annotated[Literal["hard", "soft"] | None, option("hard|soft")]


def main(
    target: Text = None,
    model: Text = None,
    data: Text = None,
    checkpoint: Text = None,
    latency_ratio: Bound = None,
    size_ratio: Bound = None,
    limit: Limits = (),
    max_drop: Number = None,
    budget_mode: Mode = None,
    episodes: Count = None,
    time_budget: Minutes = None,
    agent: Text = None,
    agent_from: Text = None,
    budget_range: Annotated[float | None, option("FACTOR")] = None,
    criterion: Text = None,
    quantizer: Trainer = None,
    fixed_bits: Count = None,
    image_size: Count = None,
    workers: Workers = None,
    seed: Count = None,
    run_dir: Annotated[Path | None, option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    config: Annotated[str | None, option("NAME", "")] = None,
) -> None:
    """Search how many channels each layer keeps and how many bits each channel gets.

    Learns a compression policy for a network and a device, fine-tunes the best candidates,
    measures the winner and leaves everything in a run folder. Without options it compresses a
    small network for scikit-learn's digits. Options override the config.

    Args:
        target: device: a name that python -m ajpq.targets lists, a YAML file, a table of layers
            (.csv), or your own module:Class or path.py:Class.
        model: network: resnet8, resnet20 .. resnet110, mobilenet_v2, a torchvision name, or your
            own module:function or path.py:function.
        data: digits, cifar10, cifar100, imagefolder:DIR (train/ and test/ with a folder per
            class), or module:function.
        checkpoint: trained weights (safetensors, or a .pt/.th state dict); "public" downloads the
            published CIFAR-10 ResNets. Without it the network is trained first.
        latency_ratio: at most this share of the unpruned int8 network's latency; "none" takes the
            config's bound away.
        size_ratio: at most this share of the float32 network's bytes; or "none".
        limit: more bounds, such as flash=128kB sram=64KiB latency=0.5ms energy=80%, with % of the
            unpruned int8 network.
        max_drop: look for the cheapest policy that loses at most so many points of top-1; the
            config's latency and size ratios then no longer hold, unless they are given too.
        budget_mode: hard: every candidate meets the budget; soft: excess is punished.
        episodes: number of candidates to try.
        time_budget: stop trying candidates after so many minutes.
        agent: what proposes candidates: td3, sac, ddpg, ppo (reinforcement learning), ajpq
            (two controllers), ajpq-layers (one of them, kernels by tables), random, uniform,
            greedy, evolution, tpe, nsga2, milp, or a YAML file.
        agent_from: a run folder whose trained agents go on here (--agent ajpq or
            ajpq-layers), on the same network or another, the same device or another.
        budget_range: search for all budgets from the bounds up to so many times as much at once.
        criterion: importance of channels: taylor, l1, l2, batchnorm.
        fixed_bits: give every kernel this width or prune it.
        image_size: resize the images of an imagefolder.
        workers: fine-tune so many finalists side by side; auto: if that is measured to be faster.
        seed: the same seed gives the same policy.
        run_dir: where results go; default runs/<model>-<time>.
        resume: continue the run in --run-dir after an interruption.
        config: what the options override: a shipped experiment (digits, default,
            cifar10-resnet20) or a YAML file. Without it digits, or default for other data.
    """
    overrides = cli.given(
        target=target,
        model=model,
        data=data,
        checkpoint=checkpoint,
        max_drop=max_drop,
        budget_mode=budget_mode,
        episodes=episodes,
        time_budget_s=None if time_budget is None else 60 * time_budget,
        agent=agent,
        agent_from=agent_from,
        budget_range=budget_range,
        criterion=criterion,
        method=quantizer,
        fixed_bits=fixed_bits,
        image_size=image_size,
        workers=workers,
        seed=seed,
    )
    if max_drop is not None:
        overrides |= {"latency_ratio": None, "size_ratio": None}
    overrides |= cli.bounds_given(latency_ratio=latency_ratio, size_ratio=size_ratio)
    overrides |= cli.limits_given(limit)
    settings = cli.settings_of(
        SearchConfig,
        overrides,
        run_dir=run_dir,
        resume=resume,
        config=config,
        default="digits" if data in (None, "digits") else "default",
    )
    cli.perform(api.search, settings, run_dir, resume)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.search")
