import hashlib
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ajpq import checkpoints
from ajpq.checkpoints import load_checkpoint, load_tensors, public_checkpoint, save_tensors
from ajpq.models import build_model
from hw_models.errors import AjpqError, UnknownNameError


def make(seed):
    torch.manual_seed(seed)
    return build_model("resnet8", in_channels=1, classes=10, image_size=8)


def equal(first, second):
    return all(torch.equal(first[key], second[key]) for key in first | second)


def write_bare(state, path):
    torch.save(state, path)


def write_wrapped(state, path):
    prefixed = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": prefixed, "best_prec1": 91.7}, path)


def write_legacy(state, path):
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)


def write_without_counters(state, path):
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)


@pytest.mark.parametrize("write", [write_bare, write_wrapped, write_legacy, write_without_counters])
def test_torch_files_load(tmp_path, write):
    source, target = make(0), make(1)
    write(source.state_dict(), tmp_path / "weights.th")
    load_checkpoint(target, tmp_path / "weights.th")
    assert equal(source.state_dict(), target.state_dict())


def test_safetensors_load(tmp_path):
    source, target = make(0), make(1)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    load_checkpoint(target, tmp_path / "w.safetensors")
    assert equal(source.state_dict(), target.state_dict())


def test_a_submodule_called_module_keeps_its_name(tmp_path):
    def network():
        return nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})

    source, target = network(), network()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_checkpoint(target, tmp_path / "w.pt")
    assert equal(source.state_dict(), target.state_dict())


def without(state):
    del state["block1.conv2.weight"]
    return "'block1.conv2.weight' is missing"


def with_more(state):
    state["block9.weight"] = torch.zeros(1)
    return "'block9.weight' is unexpected"


def misshapen(state):
    state["linear.weight"] = torch.zeros(100, 64)
    return "'linear.weight' has shape 100x64, the model wants 10x64"


def not_finite(state):
    state["linear.bias"] = torch.full((10,), float("nan"))
    return "'linear.bias' holds values that are not finite"


@pytest.mark.parametrize("change", [without, with_more, misshapen, not_finite])
def test_a_misfit_names_the_key_and_leaves_the_model_alone(tmp_path, change):
    state = make(0).state_dict()
    words = change(state)
    torch.save(state, tmp_path / "w.pt")
    model = make(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(AjpqError) as caught:
        load_checkpoint(model, tmp_path / "w.pt")
    assert str(caught.value).endswith(f"does not fit the model: {words}")
    assert equal(before, model.state_dict())


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["BOMB_TARGET"],)


def test_what_needs_unpickling_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BOMB_TARGET", str(tmp_path / "exploded"))
    torch.save({"state_dict": make(0).state_dict(), "extra": Bomb()}, tmp_path / "w.pt")
    with pytest.raises(AjpqError, match="is not unpickled") as caught:
        load_checkpoint(make(1), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("damage", ["empty", "noise", "truncated"])
def test_damaged_files_get_one_line(tmp_path, name, damage):
    path = tmp_path / name
    state = make(0).state_dict()
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    content = {"empty": b"", "noise": b"no tensors here" * 9, "truncated": path.read_bytes()[:-99]}
    path.write_bytes(content[damage])
    with pytest.raises(AjpqError) as caught:
        load_checkpoint(make(1), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "holds no state dict"), ({}, "holds no state dict"), ({"epoch": 3}, "'epoch' is a")],
)
def test_files_without_a_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(AjpqError, match=words):
        load_checkpoint(make(1), tmp_path / "w.pt")


def test_a_missing_file(tmp_path):
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(AjpqError, match=f"no weights file '.*{name}'"):
            load_checkpoint(make(1), tmp_path / name)


def test_tensors_come_back_with_their_metadata(tmp_path):
    base = torch.arange(6.0)
    tensors = {"a": base, "same": base, "b": base.view(2, 3).t(), "n": torch.tensor(3)}
    save_tensors(tmp_path / "t.safetensors", tensors, {"mode": "psg", "epoch": "2"})
    found, metadata = load_tensors(tmp_path / "t.safetensors")
    assert equal(tensors, found)
    assert metadata == {"mode": "psg", "epoch": "2"}


def test_equal_content_gives_equal_bytes(tmp_path):
    one = {"a": torch.ones(3), "b": torch.zeros(2)}
    other = dict(reversed(one.items()))
    save_tensors(tmp_path / "1", one, {"x": "1", "y": "2"})
    save_tensors(tmp_path / "2", other, {"y": "2", "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(1)})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tensors(path, {"a": torch.zeros(1)})
    assert load_tensors(path)[0]["a"].item() == 1
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder in the place of the download address, and an empty torch.hub folder."""
    source = tmp_path / "server"
    source.mkdir()
    torch.save({"state_dict": make(0).state_dict()}, source / "made.th")
    digest = hashlib.sha256((source / "made.th").read_bytes()).hexdigest()[:8]
    name = f"resnet20-{digest}.th"
    os.rename(source / "made.th", source / name)
    monkeypatch.setattr(checkpoints, "PUBLIC_CHECKPOINTS", {"resnet20": name})
    monkeypatch.setattr(checkpoints, "PUBLIC_CHECKPOINTS_URL", source.as_uri() + "/")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return source / name


def test_a_public_checkpoint_is_downloaded_once(server):
    path = public_checkpoint("resnet20")
    assert path.read_bytes() == server.read_bytes()
    server.unlink()
    assert public_checkpoint("resnet20") == path
    model = make(1)
    load_checkpoint(model, path)
    assert equal(model.state_dict(), make(0).state_dict())


def test_a_damaged_copy_is_replaced(server):
    path = public_checkpoint("resnet20")
    path.write_bytes(b"damaged")
    assert public_checkpoint("resnet20").read_bytes() == server.read_bytes()


def test_a_download_with_another_hash_is_refused(server):
    server.write_bytes(b"something else")
    with pytest.raises(AjpqError, match="--checkpoint FILE") as caught:
        public_checkpoint("resnet20")
    assert "\n" not in str(caught.value)


def test_a_failed_download_names_the_alternative(server):
    server.unlink()
    with pytest.raises(AjpqError, match="--checkpoint FILE"):
        public_checkpoint("resnet20")


def test_models_without_a_public_checkpoint(server):
    with pytest.raises(UnknownNameError, match="did you mean 'resnet20'"):
        public_checkpoint("resnet8")
