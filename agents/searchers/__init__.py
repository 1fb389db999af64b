"""Searchers by name: each proposes candidates in its own way until there is nothing left to ask.

A searcher is a function of a :class:`~agents.searchers.setup.Setup`; it ends with
:class:`~agents.trials.SearchOver` or by returning. A new one is one file here, one line below and
one file in ``configs/agents``.
"""

from __future__ import annotations

from collections.abc import Callable

from agents.searchers.evolution import evolution
from agents.searchers.greedy import greedy
from agents.searchers.milp import milp
from agents.searchers.nsga2 import nsga2
from agents.searchers.random_search import random_search
from agents.searchers.reinforcement import reinforcement
from agents.searchers.setup import Setup
from agents.searchers.tpe import tpe
from agents.searchers.two_controllers import two_controllers
from agents.searchers.uniform import uniform
from hw_models.errors import UnknownNameError

Searcher = Callable[[Setup], None]

SEARCHERS: dict[str, Searcher] = {
    "td3": reinforcement,
    "sac": reinforcement,
    "ddpg": reinforcement,
    "ppo": reinforcement,
    "random": random_search,
    "ajpq": two_controllers,
    "uniform": uniform,
    "greedy": greedy,
    "evolution": evolution,
    "tpe": tpe,
    "nsga2": nsga2,
    "milp": milp,
}

# These draw nothing: with another seed they find the same.
WITHOUT_CHANCE = frozenset({"uniform", "greedy", "milp"})

__all__ = ["SEARCHERS", "WITHOUT_CHANCE", "Searcher", "Setup", "searcher"]


def searcher(algorithm: str) -> Searcher:
    """The searcher of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if algorithm not in SEARCHERS:
        raise UnknownNameError("algorithm", algorithm, SEARCHERS)
    return SEARCHERS[algorithm]
