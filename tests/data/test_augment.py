import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.data import Augmentation, augment
from ajpq.data.augment import cut_out


def crops(image, padding):
    """Every crop of the padded image, by plain slicing."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    return [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    ]


def contains(images, image):
    return any(np.array_equal(image, other) for other in images)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(0, 3),
    flip=st.booleans(),
)
def test_every_output_is_a_crop_and_mirrored_only_when_asked(seed, shape, padding, flip):
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    before = images.copy()
    out = augment(images, Augmentation(padding, flip), np.random.default_rng(seed))
    again = augment(images, Augmentation(padding, flip), np.random.default_rng(seed))
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(out, again)
    assert out.dtype == np.uint8
    assert out.shape == images.shape
    for image, result in zip(images, out, strict=True):
        plain = contains(crops(image, padding), result)
        mirrored = contains(crops(image, padding), result[:, :, ::-1])
        assert plain or (flip and mirrored)


def test_all_offsets_and_both_orientations_occur():
    image = np.arange(1, 5, dtype=np.uint8).reshape(1, 1, 2, 2)
    out = augment(np.repeat(image, 4000, 0), Augmentation(1, True), np.random.default_rng(1))
    distinct, counts = np.unique(out, axis=0, return_counts=True)
    assert len(distinct) == 9 * 2
    assert counts.min() > 4000 / 18 / 2
    unflipped = augment(np.repeat(image, 4000, 0), Augmentation(1), np.random.default_rng(1))
    assert len(np.unique(unflipped, axis=0)) == 9


def test_a_memory_map_is_not_written_to(tmp_path):
    np.save(tmp_path / "a.npy", np.full((8, 1, 2, 2), 9, dtype=np.uint8))
    images = np.load(tmp_path / "a.npy", mmap_mode="r")
    out = augment(images, Augmentation(0, True), np.random.default_rng(0))
    assert (out == 9).all()


def test_a_square_of_the_given_side_is_cut_out_of_every_image_and_nothing_else():
    images = np.full((200, 3, 16, 20), 7, dtype=np.uint8)
    cut = cut_out(images, 6, np.random.default_rng(0))
    assert (images == 7).all()
    holes = cut == 0
    assert set(np.unique(cut)) == {0, 7}
    assert (holes == holes[:, :1]).all()
    rows, columns = holes[:, 0].any(2).sum(1), holes[:, 0].any(1).sum(1)
    assert (holes[:, 0].sum((1, 2)) == rows * columns).all()
    assert rows.max() == columns.max() == 6
    assert min(rows.min(), columns.min()) >= 3  # at the border half of it lies outside


def test_no_square_leaves_images_and_randomness_alone():
    images = np.arange(48, dtype=np.uint8).reshape(1, 3, 4, 4)
    rng = np.random.default_rng(1)
    assert (cut_out(images, 0, rng) == images).all()
    assert rng.random() == np.random.default_rng(1).random()
