"""What single-layer measurements cost."""

from types import SimpleNamespace

from ajpq.policy import LayerPolicy
from envs import prior


def test_a_harm_is_computed_once_and_paid_for_by_whoever_asks(monkeypatch):
    computed = []
    monkeypatch.setattr(prior, "divergence", lambda problem, changes: computed.append(changes) or 1)
    harm = prior.Harm(SimpleNamespace(search_sample=SimpleNamespace(labels=range(50))))
    for widths in ((2, 2), (2, 3), (2, 2)):
        harm({"conv": LayerPolicy(weight_bits=widths)})
    harm({"other": LayerPolicy(weight_bits=(2, 2))})
    assert len(computed) == 3
    assert harm.images == 4 * 50
