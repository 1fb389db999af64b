import pytest

from hw_models import vela


@pytest.fixture(scope="session", autouse=True)
def _not_the_users_cache(tmp_path_factory):
    """For fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AJPQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Every test starts with nothing cached and leaves nothing behind."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("AJPQ_CACHE", str(folder))
    vela.forget()
    return folder / "vela"
