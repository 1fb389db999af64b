import pytest

from hw_models import vela


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Every test starts with nothing cached and leaves nothing behind."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AJPQ_CACHE", str(folder))
    vela.forget()
    return folder / "vela"
