"""``benchmarks/psg_trainings.py`` and the base networks on a small network for digits."""

import pytest
import torch

from ajpq.base import build_problem
from ajpq.checkpoints import save_tensors
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Recipe, Stage
from benchmarks.base_networks import zoo_problem
from benchmarks.psg_trainings import Lab, Training, spent_seconds, trained
from hw_models.errors import AjpqError

BASE = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))
SHORT = Stage(mode="psg", steps=2, batch_size=64)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    path = tmp_path_factory.mktemp("zoo") / "resnet8.safetensors"
    problem = build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE))
    save_tensors(path, problem.state, {"model": "resnet8", "seed": "3"})
    return path


def test_a_network_of_the_zoo_brings_its_split(zoo):
    config = ProblemConfig(target="size-only", criterion="l1", seed=3, base=BASE)
    one, other = zoo_problem(zoo, "digits"), build_problem(config)
    assert one.seed == 3
    assert (one.split.validation == other.split.validation).all()
    assert all(torch.equal(one.state[name], other.state[name]) for name in other.state)


def test_a_network_that_does_not_say_what_it_has_seen_is_refused(zoo, tmp_path):
    save_tensors(tmp_path / "x.safetensors", {}, {"model": "resnet8"})
    with pytest.raises(AjpqError, match="which images it has seen"):
        zoo_problem(tmp_path / "x.safetensors", "digits")


def test_trainings_are_done_once(zoo, tmp_path):
    lab = Lab(zoo_problem(zoo, "digits"), tmp_path, seed=0)
    training = Training("psg-4-channel", SHORT, 4)
    first = trained(lab, training)
    (file,) = tmp_path.glob("psg-4-channel-*.safetensors")
    stamp = file.stat().st_mtime_ns
    second = trained(lab, training)
    assert file.stat().st_mtime_ns == stamp
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], lab.problem.state[name]) for name in first)
    assert spent_seconds(lab) > 0
    trained(Lab(lab.problem, tmp_path, seed=1), training)
    trained(lab, Training("psg-4-channel", SHORT, 3))
    assert len(list(tmp_path.glob("psg-4-channel-*.safetensors"))) == 3


def test_a_training_that_diverges_is_remembered(zoo, tmp_path):
    lab = Lab(zoo_problem(zoo, "digits"), tmp_path, seed=0)
    wild = Training("sgd", SHORT.model_copy(update={"mode": "float", "learning_rate": 1e30}))
    assert trained(lab, wild) is None
    assert trained(lab, wild) is None
