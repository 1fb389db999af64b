"""One choice per row, the least sum of harm under bounds on sums of costs, solved exactly.

The multiple-choice knapsack that mixed-precision toolkits solve, as in HAWQ-V3 (arXiv 2011.10680,
equation 5); by HiGHS through :func:`scipy.optimize.milp`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

# Far more than such programs take; unlike a time limit it ends at the same place every time.
_MOST_NODES = 200_000


def cheapest(
    kl: Sequence[np.ndarray], costs: Sequence[np.ndarray], bounds: np.ndarray
) -> np.ndarray | None:
    """The choices that do the least harm within the bounds.

    Args:
        kl: per row ``[C]`` nats of each of its choices, 0 or more.
        costs: per row ``[C, B]`` costs of each of its choices, in any unit, of any sign.
        bounds: ``[B]`` what the sums of costs must not exceed.

    Returns:
        ``[R]`` int64, the index of the choice per row; None if no choices keep the bounds.
    """
    harm = np.concatenate(kl)
    counts = [len(row) for row in kl]
    rows = np.repeat(np.arange(len(kl)), counts)
    one_each = coo_array((np.ones(len(harm)), (rows, np.arange(len(harm)))))
    constraints = [LinearConstraint(one_each, 1, 1)]
    if len(bounds):
        table = np.concatenate(costs).T  # [B, choices]
        unit = np.maximum(np.abs(table).max(axis=1), 1e-300)  # HiGHS takes tolerances as absolute
        constraints.append(LinearConstraint(table / unit[:, None], -np.inf, bounds / unit))
    found = milp(
        harm / max(harm.max(), 1e-300),
        integrality=np.ones(len(harm)),
        bounds=Bounds(0, 1),
        constraints=constraints,
        # Its presolve saves nothing here and writes to the terminal (jump-dev/HiGHS.jl issue 318).
        options={"mip_rel_gap": 0.0, "node_limit": _MOST_NODES, "presolve": False},
    )
    if found.x is None:
        return None
    ends = np.cumsum(counts)[:-1]
    return np.array([int(part.argmax()) for part in np.split(found.x, ends)], dtype=np.int64)
