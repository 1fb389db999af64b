import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize as torchvision_normalize

from ajpq.data import (
    Augmentation,
    Dataset,
    batches,
    fingerprint,
    normalize,
    split,
    test_batches,
    training_batches,
)
from hw_models.errors import AjpqError


def make(counts=(50, 30, 20), augmentation=Augmentation(1, True)):  # noqa: B008
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(labels), 3, 4, 4), dtype=np.uint8)
    return Dataset(
        "made",
        images,
        labels,
        images[::7],
        labels[::7],
        classes=tuple(map(str, range(len(counts)))),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        augmentation=augmentation,
    )


@pytest.mark.parametrize("counts", [(1,), (1, 1, 1)])
def test_too_few_images_for_validation_are_told(counts):
    with pytest.raises(AjpqError, match="data 'made': expected a class with two training images"):
        split(make(counts), seed=0)
    assert [len(part) for part in vars(split(make((1, 2)), seed=0)).values()] == [2, 1]


def test_split_takes_the_share_of_every_class():
    data = make()
    parts = split(data, seed=3)
    assert np.bincount(data.train_labels[parts.validation]).tolist() == [5, 3, 2]
    both = np.concatenate([parts.train, parts.validation])
    assert sorted(both) == list(range(100))
    assert (np.diff(parts.train) > 0).all()
    assert (np.diff(parts.validation) > 0).all()


def test_cifar_sized_data_splits_into_45000_and_5000():
    data = make(counts=(5000,) * 10)
    parts = split(data, seed=0)
    assert (len(parts.train), len(parts.validation)) == (45_000, 5_000)


def test_split_depends_on_the_seed_alone():
    data = make()
    np.testing.assert_array_equal(split(data, 1).validation, split(data, 1).validation)
    assert not np.array_equal(split(data, 1).validation, split(data, 2).validation)


def test_a_rare_class_stays_on_both_sides_while_it_can():
    data = make(counts=(40, 2, 1))
    parts = split(data, seed=0)
    assert np.bincount(data.train_labels[parts.train], minlength=3).tolist() == [36, 1, 1]


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.2])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(AjpqError, match=f"got {share}"):
        split(make(), 0, share)


def test_normalize_is_torchvisions():
    data = make()
    expected = torchvision_normalize(
        torch.from_numpy(data.train_images).float() / 255, list(data.mean), list(data.std)
    )
    assert torch.equal(normalize(data.train_images, data), expected)


def test_plain_batches_are_in_order_and_complete():
    data = make()
    indices = np.array([7, 3, 99, 50, 0])
    seen = list(batches(data, indices, 2))
    assert [len(labels) for _, labels in seen] == [2, 2, 1]
    images = torch.cat([images for images, _ in seen])
    assert torch.equal(images, normalize(data.train_images[indices], data))
    assert torch.cat([labels for _, labels in seen]).tolist() == data.train_labels[indices].tolist()


def test_test_batches_cover_the_test_images():
    data = make()
    images = torch.cat([images for images, _ in test_batches(data, 4)])
    assert torch.equal(images, normalize(data.test_images, data))


def test_training_batches_are_full_shuffled_and_seen_once():
    data = make(augmentation=Augmentation())
    indices = np.arange(10, 95)
    seen = list(training_batches(data, indices, 16, seed=0, epoch=0))
    assert [tuple(images.shape) for images, _ in seen] == [(16, 3, 4, 4)] * 5
    images = torch.cat([images for images, _ in seen]).flatten(1).numpy()
    allowed = normalize(data.train_images[indices], data).flatten(1).numpy()
    assert len(np.unique(images, axis=0)) == 80
    assert {row.tobytes() for row in images} <= {row.tobytes() for row in allowed}
    assert not np.array_equal(images, allowed[:80])


def test_training_batches_depend_on_seed_and_epoch_alone():
    data = make()
    indices = np.arange(100)

    def epoch_of(seed, epoch):
        run = training_batches(data, indices, 32, seed=seed, epoch=epoch)
        return torch.cat([images for images, _ in run])

    first = epoch_of(0, 0)
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(first, epoch_of(0, 0))
    for other in (epoch_of(0, 1), epoch_of(1, 0)):
        assert not torch.equal(first, other)


def test_images_and_labels_stay_together_through_augmentation():
    data = make(augmentation=Augmentation(0, True))

    def key(pixels):  # mirroring an image keeps its pixels
        return np.sort(pixels, axis=None).tobytes()

    label_of = {key(data.train_images[i]): int(data.train_labels[i]) for i in range(100)}
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    for images, labels in training_batches(data, np.arange(100), 25, seed=0, epoch=2):
        pixels = ((images * std + mean) * 255).round().to(torch.uint8).numpy()
        assert [label_of[key(image)] for image in pixels] == labels.tolist()


@pytest.mark.parametrize("batch_size", [0, 101])
def test_a_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(AjpqError, match=f"got {batch_size}"):
        next(training_batches(make(), np.arange(100), batch_size, seed=0, epoch=0))


def test_fingerprint_sees_one_pixel_and_the_augmentation():
    data = make()
    assert fingerprint(data) == fingerprint(make())
    other = make()
    other.train_images[3, 1, 2, 3] ^= 1
    assert fingerprint(other) != fingerprint(data)
    assert fingerprint(make(augmentation=Augmentation(2, True))) != fingerprint(data)
