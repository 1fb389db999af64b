from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torchvision
from sklearn.datasets import load_digits

from ajpq.data import load_data
from hw_models.errors import AjpqError, UnknownNameError

PLUGIN = """
from dataclasses import replace
import numpy as np
from ajpq.data import Dataset

def make(image_size=4):
    size = image_size or 4
    images = np.zeros((6, 1, size, size), dtype=np.uint8)
    labels = np.array([0, 1] * 3)
    return Dataset("mine", images, labels, images, labels, ("a", "b"), (0.0,), (1.0,))

def no_dataset():
    return 3

def floats():
    d = make()
    return Dataset("mine", d.train_images / 255, d.train_labels, d.test_images, d.test_labels,
                   d.classes, d.mean, d.std)

def labels_too_large():
    d = make()
    return Dataset("mine", d.train_images, d.train_labels + 1, d.test_images, d.test_labels,
                   d.classes, d.mean, d.std)

def lists():
    d = make()
    return Dataset("mine", d.train_images.tolist(), d.train_labels, d.test_images, d.test_labels,
                   d.classes, d.mean, d.std)

def one_mean():
    return replace(make(), mean=0.5)

def raises(**settings):
    return make()[settings["image_size"]]

constant = 5
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN)
    return path


def test_digits_are_sklearns_with_a_fixed_fifth_for_the_test():
    data = load_data("digits")
    source = load_digits()
    assert len(data.train_labels) + len(data.test_labels) == 1797
    assert abs(len(data.test_labels) - 1797 / 5) <= 5
    shares = np.bincount(data.test_labels) / np.bincount(source.target)
    assert abs(shares - 0.2).max() < 0.01
    assert data.image_shape == (1, 8, 8)
    assert data.augmentation.padding == 1
    assert not data.augmentation.flip
    both = np.concatenate([data.train_images, data.test_images])[:, 0]
    expected = np.rint(source.images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, expected))
    again = load_data("digits")
    np.testing.assert_array_equal(data.test_images, again.test_images)


def test_digits_are_normalised_by_their_own_statistics():
    data = load_data("digits")
    pixels = data.train_images / 255
    assert data.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert data.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_statistics_of_the_user_win():
    data = load_data("digits", mean=[0.25], std=[0.5])
    assert (data.mean, data.std) == ((0.25,), (0.5,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": [0.1, 0.2]}, "one mean per channel (1), got 2"),
        ({"std": [0.0]}, "expected std > 0"),
        ({"mean": [float("nan")]}, "expected a finite mean"),
        ({"image_size": 16}, "8x8 images, got image_size=16"),
        ({"image_size": 0}, "expected image_size >= 1, got 0"),
    ],
)
def test_options_that_do_not_fit(options, words):
    with pytest.raises(AjpqError) as caught:
        load_data("digits", **options)
    assert words in str(caught.value)


def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="unknown data 'cifar11'; did you mean 'cifar1"):
        load_data("cifar11")
    with pytest.raises(UnknownNameError, match=r"did you mean 'imagefolder:DIR'\?"):
        load_data("imagefolders")


def test_an_image_folder_without_a_folder():
    with pytest.raises(AjpqError, match="'imagefolder:' names no folder"):
        load_data("imagefolder:")


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar_comes_from_torchvision_once(monkeypatch, name, classes):
    calls = []

    def fake(root, train, download):
        calls.append(train)
        labels = [index % classes for index in range(classes * 2)]
        images = np.zeros((len(labels), 32, 32, 3), dtype=np.uint8)
        images[:, 1, 2, 0] = labels
        assert download
        return SimpleNamespace(data=images, targets=labels)

    monkeypatch.setattr(torchvision.datasets, name.upper(), fake)
    data = load_data(name)
    assert data.image_shape == (3, 32, 32)
    assert len(data.classes) == classes
    assert (data.train_images[:, 0, 1, 2] == data.train_labels).all()
    assert (data.augmentation.padding, data.augmentation.flip) == (4, True)
    assert data.mean == (0.485, 0.456, 0.406)
    load_data(name)
    assert calls == [True, False]


@pytest.mark.parametrize("error", [URLError("no route\nto host"), RuntimeError("damaged")])
def test_a_failed_download_names_the_alternative(monkeypatch, cache, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(AjpqError, match="imagefolder:DIR") as caught:
        load_data("cifar10")
    assert "\n" not in str(caught.value)
    assert list((cache / "data").iterdir()) == []


def test_a_function_of_the_user(plugin):
    assert load_data(f"{plugin}:make").name == "mine"
    assert load_data(f"{plugin}:make", image_size=6).image_shape == (1, 6, 6)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("no_dataset", "gave a int, expected an ajpq.data.Dataset"),
        ("constant", "is not callable: int"),
        ("floats", "expected images as uint8"),
        ("labels_too_large", "expected labels in 0..1, got 1..2"),
        ("missing", "has no attribute 'missing'"),
        ("lists", "expected train_images as a NumPy array, got list"),
        ("one_mean", "expected mean as a tuple, got float"),
        ("raises", "TypeError: 'Dataset' object is not subscriptable"),
    ],
)
def test_a_function_that_gives_something_else(plugin, function, words):
    with pytest.raises(AjpqError) as caught:
        load_data(f"{plugin}:{function}")
    assert words in str(caught.value)
