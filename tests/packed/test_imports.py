"""What reading and running a packed file needs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SEARCH = {
    "agents",
    "envs",
    "gymnasium",
    "stable_baselines3",
    "optuna",
    "sklearn",
    "pandas",
    "plotly",
    "tensorboard",
    "moocore",
    "tyro",
    "rich",
}
LOAD = "import ajpq.packed, sys; network = ajpq.packed.load(sys.argv[1])"
RUN = f"""{LOAD}
import torch
from ajpq.reference import simulate
assert simulate(network, torch.zeros(1, 3, 8, 8)).shape == (1, 5)
"""


@pytest.mark.parametrize("program", [LOAD, RUN])
def test_nothing_of_the_search_is_imported(program):
    told = "\nprint(*{name.split('.')[0] for name in sys.modules})"
    file = str(ROOT / "tests" / "golden" / "packed_v2.ajpq")
    command = [sys.executable, "-c", program + told, file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {"ajpq", "numpy", "pydantic", "constriction"} <= imported
    assert not imported & SEARCH
