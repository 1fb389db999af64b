"""Files that earlier versions wrote stay readable; see tests/golden/README.md."""

import hashlib
from pathlib import Path

import pytest

from ajpq.config.schema import CompressConfig, SearchConfig
from ajpq.policy import load_policy
from ajpq.runs.folder import load_config

GOLDEN = Path(__file__).with_name("golden")

# The canonical JSON of policy-1.json: sorted keys, no spaces.
CANONICAL = (
    '{"layers":{"conv1":{"activation_bits":8,"weight_bits":[8,0,4,32]},'
    '"linear":{"activation_bits":6,"weight_bits":[2,3,5]}},'
    '"quantizer":{"name":"uniform","params":{"granularity":"tensor","scale":"minmax"},"version":1},'
    '"schema_version":1}'
)


def test_policy_1():
    policy = load_policy(GOLDEN / "policy-1.json")
    widths = {name: layer.weight_bits for name, layer in policy.layers.items()}
    assert widths == {"conv1": (8, 0, 4, 32), "linear": (2, 3, 5)}
    assert policy.layers["linear"].activation_bits == 6
    assert policy.quantizer.params == {"scale": "minmax", "granularity": "tensor"}
    assert policy.hash == hashlib.sha256(CANONICAL.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("folder", "kind", "recipe", "stages"),
    [
        ("run-search-0.1.0", SearchConfig, "digits-full", 2),
        ("run-compress-0.1.0", CompressConfig, "psg-digits", 1),
    ],
)
def test_configurations_of_runs(folder, kind, recipe, stages):
    config = load_config(GOLDEN / folder)
    assert isinstance(config, kind)
    assert (config.model, config.data, config.seed) == ("resnet8", "digits", 7)
    assert config.full_recipe.name == recipe
    assert len(config.full_recipe.stages) == stages
    assert config.full_recipe.stages[-1].batch_size == 64
