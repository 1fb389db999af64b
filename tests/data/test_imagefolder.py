import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ajpq.data import imagefolder, load_data
from hw_models.errors import AjpqError


def load(tree, **options):
    return load_data(f"imagefolder:{tree}", **options)


def message(tree, **options):
    with pytest.raises(AjpqError) as caught:
        load(tree, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels_of(path):
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB")).transpose(2, 0, 1)


def labelled(pairs):
    return sorted((image.tobytes(), int(label)) for image, label in pairs)


@pytest.fixture
def decoded(monkeypatch):
    """Paths that were decoded, in order of the calls."""
    paths = []
    decode = imagefolder._decode

    def spy(path, *rest):
        paths.append(path)
        return decode(path, *rest)

    monkeypatch.setattr(imagefolder, "_decode", spy)
    return paths


def test_pixels_and_labels_are_those_of_the_files(tree):
    data = load(tree)
    assert data.classes == ("cat", "dog")
    assert data.train_images.shape == (5, 3, 5, 6)
    for side, count in (("train", 5), ("test", 2)):
        wanted = labelled(
            (pixels_of(path), ("cat", "dog").index(path.parent.name))
            for path in (tree / side).glob("*/*.png")
        )
        images, labels = getattr(data, f"{side}_images"), getattr(data, f"{side}_labels")
        assert labelled(zip(images, labels, strict=True)) == wanted
        assert len(wanted) == count
    assert data.augmentation.flip


def test_the_order_of_the_images_does_not_depend_on_their_names(tree, tmp_path):
    renamed = tmp_path / "renamed"
    shutil.copytree(tree, renamed)
    for folder in (renamed / "train").iterdir():
        for path in sorted(folder.iterdir()):
            path.rename(path.with_name(f"{9 - int(path.stem)}.png"))
    one, other = load(tree), load(renamed)
    np.testing.assert_array_equal(one.train_images, other.train_images)
    np.testing.assert_array_equal(one.train_labels, other.train_labels)


def test_a_second_load_decodes_nothing(tree, decoded):
    first = load(tree)
    count = len(decoded)
    second = load(tree)
    assert len(decoded) == count > 0
    assert isinstance(second.train_images, np.memmap)
    np.testing.assert_array_equal(first.train_images, second.train_images)


def test_a_changed_file_is_decoded_again(tree):
    load(tree)
    path = tree / "train" / "cat" / "0.png"
    size = path.stat().st_size
    with Image.open(path) as file:
        pixels = np.array(file)
    pixels[0, 0] = pixels[0, 0][::-1]
    Image.fromarray(pixels).save(path)
    os.utime(path, (1, 1))
    assert pixels.transpose(2, 0, 1).tolist() in load(tree).train_images.tolist()
    assert size > 0


def test_a_new_modification_time_alone_invalidates(tree, decoded):
    load(tree)
    decoded.clear()
    os.utime(tree / "test" / "dog" / "0.png", ns=(5, 5))
    load(tree)
    assert decoded


@pytest.mark.parametrize("part", ["train_images.npy", "test_labels.npy", "checksums.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_a_damaged_cache_is_rebuilt(tree, cache, part, damage):
    before = np.array(load(tree).train_images)
    (entry,) = (cache / "data").iterdir()
    path = entry / part
    content = bytearray(path.read_bytes())
    if damage == "delete":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[:-5])
    else:
        content[-5] ^= 0x11
        path.write_bytes(content)
    after = load(tree)
    np.testing.assert_array_equal(after.train_images, before)
    assert after.test_labels.tolist() == [0, 1]
    assert [item.name for item in (cache / "data").iterdir()] == [entry.name]


def test_a_full_disk_leaves_no_half_entry(tree, cache, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(imagefolder, "write_array", full)
    with pytest.raises(OSError, match="No space left"):
        load(tree)
    assert list((cache / "data").iterdir()) == []


def test_grey_and_palette_images_become_rgb(tree):
    Image.new("L", (6, 5), 77).save(tree / "train" / "cat" / "0.png")
    Image.new("P", (6, 5), 0).save(tree / "train" / "cat" / "1.png")
    assert (load(tree).train_images[0] == 77).all()


def test_other_and_hidden_files_are_not_images_but_deeper_folders_count(tree):
    (tree / "train" / "cat" / "notes.txt").write_text("x")
    (tree / "train" / "cat" / ".hidden.png").write_text("x")
    (tree / "train" / "cat" / "more").mkdir()
    shutil.copy(tree / "train" / "dog" / "0.png", tree / "train" / "cat" / "more" / "a.PNG")
    assert len(load(tree).train_labels) == 6


def test_image_size_resizes_what_differs(tree):
    Image.new("RGB", (9, 7), (10, 20, 30)).save(tree / "train" / "cat" / "0.png")
    data = load(tree, image_size=4)
    assert data.image_shape == (3, 4, 4)
    assert [10, 20, 30] in data.train_images[:, :, 0, 0].tolist()


def test_different_sizes_name_both_files(tree):
    Image.new("RGB", (9, 7)).save(tree / "test" / "dog" / "0.png")
    line = message(tree)
    assert "6x5" in line
    assert "9x7" in line
    assert str(tree / "test" / "dog" / "0.png") in line
    assert "image_size" in line


def test_an_unreadable_image_is_named(tree, cache):
    path = tree / "train" / "dog" / "1.png"
    path.write_bytes(path.read_bytes()[:40])
    assert f"unreadable image {str(path)!r}" in message(tree)
    path.write_bytes(b"this is no image")
    assert f"unreadable image {str(path)!r}" in message(tree)
    assert list((cache / "data").iterdir()) == []


def test_missing_folders_and_classes(tree, tmp_path):
    assert str(tmp_path / "nowhere" / "train") in message(tmp_path / "nowhere")
    shutil.rmtree(tree / "test" / "dog")
    assert f"class 'dog' is in {tree / 'train'} but not in {tree / 'test'}" == message(tree)
    (tree / "test" / "dog").mkdir()
    assert message(tree) == f"no images in {str(tree / 'test' / 'dog')!r}"
    shutil.rmtree(tree / "test")
    assert str(tree / "test") in message(tree)
    (tree / "test").mkdir()
    assert "no class folders" in message(tree)


def test_a_cache_folder_that_cannot_be_made(tree, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AJPQ_CACHE", str(tmp_path / "file"))
    assert "AJPQ_CACHE" in message(tree)
