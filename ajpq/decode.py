"""``python -m ajpq.decode``: a policy for another budget from a search that has finished."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro

from ajpq import api, cli
from ajpq.cli import Bound, Limits, option
from ajpq.config.files import on_top, validated_run
from ajpq.config.schema import SearchConfig
from ajpq.runs.finished import load_finished
from hw_models.errors import AjpqError


def main(
    run: Annotated[Path, tyro.conf.Positional],
    latency_ratio: Bound = None,
    size_ratio: Bound = None,
    limit: Limits = (),
    episodes: Annotated[int, option("N", "36")] = 36,
    run_dir: Annotated[Path | None, option("DIR", "")] = None,
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Decode a policy for a budget that the search was not asked for.

    The agents of a run with --agent ajpq or ajpq-layers know its budgets and what was best for
    each. For a budget in between they propose a few dozen candidates more, beginning with what that
    run's front and sensitivities suggest; the best are fine-tuned as there, the winner is measured,
    and everything lands in a run folder of its own.

    Args:
        run: folder of a finished run with --agent ajpq or ajpq-layers.
        latency_ratio: at most this share of the unpruned int8 network's latency; "none" takes the
            run's bound away.
        size_ratio: at most this share of the float32 network's bytes; or "none".
        limit: more bounds, such as flash=128kB sram=64KiB latency=0.5ms energy=80%.
        episodes: candidates to try.
        run_dir: where results go; default runs/<model>-<time>.
        resume: continue in --run-dir after an interruption.
    """
    config = load_finished(run).config
    if not isinstance(config, SearchConfig):
        raise AjpqError(f"{run} is no search, so there is nothing to decode")
    overrides: dict[str, Any] = {
        **cli.bounds_given(latency_ratio=latency_ratio, size_ratio=size_ratio),
        **cli.limits_given(limit),
    }
    if not overrides:
        raise AjpqError("give the new budget: --latency-ratio, --size-ratio or --limit")
    settings = validated_run(
        SearchConfig,
        {
            **on_top(config.model_dump(), overrides),
            "agent_from": str(run),
            "budget_range": 1.0,
            "episodes": episodes,
        },
        f"run folder {run}",
    )
    cli.perform(api.search, settings, run_dir, resume)


if __name__ == "__main__":
    cli.run(main, prog="python -m ajpq.decode")
