import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("AJPQ_CACHE", str(folder))
    return folder


@pytest.fixture
def tree(tmp_path):
    """Two classes, 3 + 2 training and 1 + 1 test images of 6 x 5 pixels (width x height)."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for side, counts in (("train", {"cat": 3, "dog": 2}), ("test", {"cat": 1, "dog": 1})):
        for name, count in counts.items():
            folder = root / side / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root
