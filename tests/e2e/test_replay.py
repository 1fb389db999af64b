"""Replays of the same, and of what is different: policy, weights, target, place of the data."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from ajpq import api, replaying
from ajpq.config.files import load_compress_config
from ajpq.config.schema import ReplayConfig
from ajpq.data import load_data, normalize
from ajpq.policy import load_policy
from ajpq.runs.finished import load_finished
from ajpq.runs.folder import load_config, load_result, load_weights, save_weights
from ajpq.runs.seal import load_sealed, save_result
from hw_models.errors import AjpqError
from tests.e2e.commands import command

TINY = str(Path(__file__).with_name("tiny_compress.yaml"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("replay") / "run"
    api.compress(load_compress_config(TINY, {}), str(run))
    return run


def replayed(*arguments):
    outcome = command("replay", *arguments)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def refused(*arguments):
    outcome = command("replay", *arguments)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.splitlines()
    return line


def found(run):
    return json.loads((run / "result.json").read_text())["found"]


def resealed(run, **changes):
    """The run with another result, and the checksums that this one would have had."""
    result = {**load_result(run), **changes}
    result.pop("sha256")
    save_result(run, result)


def test_another_target_prices_the_same_network_and_looks_at_no_image(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    looks = Path("test_ledger.jsonl"), run / "test_ledger.jsonl"
    before = [path.read_text() if path.exists() else "" for path in looks]
    printed = replayed(run, "--target", "bismo")
    assert "priced" in printed
    costs = api.reprice(str(run), "bismo")
    assert costs["recorded"]["latency_s"] is None  # size-only
    assert costs["priced"]["latency_s"] > 0
    same = ("packed_bytes", "macs", "bops")
    assert [costs["priced"][key] for key in same] == [found(run)[key] for key in same]
    assert [path.read_text() if path.exists() else "" for path in looks] == before


def test_widths_that_the_other_target_does_not_store_are_told_with_their_layer(finished, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from hw_models.base import NetworkCost, Target\n"
        "class Wide(Target):\n"
        "    name = 'wide'\n"
        "    weight_bits = (0, 8)\n"
        "    def cost(self, network):\n"
        "        return NetworkCost()\n"
    )
    target = f"{tmp_path / 'mine.py'}:Wide"
    assert "layer 'block1.conv1' has 4" in refused(finished, "--target", target)
    new = tmp_path / "new"
    line = refused(finished, "--target", target, "--retrain", "--run-dir", new)
    assert "'wide' stores weights of (0, 8) bits" in line
    assert not new.exists()


def test_the_same_weights_and_recipe_given_again_make_the_same_run(finished, tmp_path):
    """Retraining from the run's own base is the oracle of carrying a policy elsewhere."""
    new = tmp_path / "new"
    base = shutil.copy(finished / "base.safetensors", tmp_path / "other.safetensors")
    replayed(finished, "--checkpoint", base, "--retrain", "--run-dir", new)
    assert found(new) == found(finished)
    assert (new / "weights.safetensors").read_bytes() == (
        finished / "weights.safetensors"
    ).read_bytes()
    config = load_config(new)
    assert isinstance(config, ReplayConfig)
    assert config.checkpoint == str(base)
    replayed(new)
    replayed(new, "--retrain")


def test_another_policy_is_calibrated_and_makes_a_run_of_its_own(finished, tmp_path):
    content = json.loads((finished / "policy.json").read_text())
    del content["hash"]
    *_, last = content["layers"]
    for name, layer in content["layers"].items():
        if name != last:
            layer["weight_bits"] = [0, *[6] * (len(layer["weight_bits"]) - 1)]
    (tmp_path / "other.json").write_text(json.dumps(content))
    new = tmp_path / "new"
    options = ("--policy", tmp_path / "other.json", "--target", "bismo", "--run-dir", new)
    printed = replayed(finished, *options)
    assert "report" in printed
    assert (new / "report.html").exists()
    assert load_policy(new / "policy.json") == load_policy(tmp_path / "other.json")
    assert found(new)["latency_s"] > 0
    assert found(new)["macs"] < found(finished)["macs"]
    replayed(new)
    assert command("export", new, "--format", "packed", "--out", tmp_path).returncode == 0
    before = (new / "result.json").read_bytes()
    replayed(finished, *options, "--resume")
    assert (new / "result.json").read_bytes() == before
    line = refused(finished, "--policy", finished / "policy.json", *options[2:], "--resume")
    assert "started with another policy" in line


def test_an_interrupted_replay_resumes_to_the_same_result(finished, tmp_path, monkeypatch):
    new = tmp_path / "new"
    arguments = (finished, "--policy", finished / "policy.json", "--retrain", "--run-dir", new)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(api, "build_result", interrupt)
        assert command("replay", *arguments).returncode == 130
    assert not (new / "result.json").exists()
    replayed(*arguments, "--resume")
    assert found(new) == found(finished)


def test_a_network_that_the_policy_does_not_fit_is_not_trained_first(
    finished, tmp_path, monkeypatch
):
    monkeypatch.setattr("ajpq.base.base_state", lambda *_: pytest.fail("trained"))
    run = load_finished(finished)
    config = replaying.carried(run, run.policy, model="resnet20")
    with pytest.raises(AjpqError, match=r"policy and network differ at layer"):
        api.carry(config, tmp_path / "new", run.policy)


def test_a_policy_or_weights_of_another_network_are_refused_with_the_layers_name(
    finished, tmp_path
):
    other = load_policy(finished / "policy.json")
    first = next(iter(other.layers))
    layers = {f"{first}x": other.layers[first], **other.layers}
    other.model_copy(update={"layers": layers}).save(tmp_path / "other.json")
    new = tmp_path / "new"
    line = refused(finished, "--policy", tmp_path / "other.json", "--run-dir", new)
    assert f"differ at layer '{first}x': the network has no such layer" in line
    base = finished / "base.safetensors"
    line = refused(finished, "--model", "resnet20", "--checkpoint", base, "--run-dir", new)
    assert "policy and network differ at layer" in line
    torch.save({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    line = refused(finished, "--checkpoint", tmp_path / "other.pt", "--run-dir", new)
    assert "does not fit the model" in line
    assert "'conv1.weight'" in line
    assert not new.exists()


def test_new_folders_are_for_new_runs(finished, tmp_path):
    assert "are for another policy" in refused(finished, "--run-dir", tmp_path / "new")
    line = refused(finished, "--policy", finished / "policy.json", "--resume")
    assert "needs --run-dir" in line


def test_retrained_weights_that_differ_are_an_error_here_and_told_elsewhere(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    weights = load_weights(run / "weights.safetensors")
    name = next(iter(weights.latent))
    weights.latent[name][0] += 1e-7
    save_weights(run / "weights.safetensors", weights)
    resealed(run)
    line = refused(run, "--retrain")
    assert "retrained weights differ" in line
    resealed(run, machine={"processor": "abacus", "instruction_set": "wood"})
    printed = " ".join(replayed(run, "--retrain").split())
    assert "was retrained" in printed
    assert "processor abacus there" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top1_val": 100.0}, "top1_val was 100.0"),
        ({"top1_val": float("nan")}, "top1_val was nan"),
        ({"macs": 1}, "macs was 1"),
    ],
)
def test_a_training_elsewhere_excuses_little(finished, tmp_path, change, message):
    """The weights in the folder are not those of the recipe, the machine is another one."""
    run = shutil.copytree(finished, tmp_path / "run")
    weights = load_weights(run / "weights.safetensors")
    next(iter(weights.latent.values()))[0] += 1e-7
    save_weights(run / "weights.safetensors", weights)
    abacus = {"processor": "abacus", "instruction_set": "wood"}
    assert found(run)["top1_val"] < 99
    resealed(run, machine=abacus, found={**found(run), **change})
    line = refused(run, "--retrain")
    assert f"does not replay: {message}" in line
    assert "processor abacus there" in line


@pytest.mark.parametrize("loss", [0.0, 0.9, 1.1])
def test_a_training_elsewhere_may_lose_a_point(loss):
    recorded = {"top1_val": 90.0, "top1_test": 90.0, "macs": 3, "bops": {"all": 1}}
    retrained = {**recorded, "top1_val": 90.0 - loss, "top1_test": 50.0}
    wrong = replaying._beyond_training(recorded, retrained)
    assert wrong == (["top1_val"] if loss > 1 else [])


@pytest.mark.parametrize("options", [(), ("--retrain",)])
def test_a_result_that_records_nothing_proves_nothing(finished, tmp_path, options):
    run = shutil.copytree(finished, tmp_path / "run")
    looks = Path("test_ledger.jsonl"), run / "test_ledger.jsonl"
    before = [path.read_text() if path.exists() else "" for path in looks]
    resealed(run, found={})
    assert "its result lacks 'bops'" in refused(run, *options)
    assert [path.read_text() if path.exists() else "" for path in looks] == before


def test_every_metric_that_all_runs_record_is_required(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    metrics = found(run)
    required = {"top1_val", "top1_test", "latency_s", "packed_bytes", "flash_bytes", "bops", "macs"}
    assert required <= metrics.keys()
    for name in required:
        resealed(run, found={key: value for key, value in metrics.items() if key != name})
        assert f"its result lacks '{name}'" in refused(run)
    resealed(run, found={**metrics, "top1_val": "high"})
    assert "its top1_val is 'high', no number" in refused(run)


def test_a_result_whose_checksums_are_right_must_still_replay(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    resealed(run, found={**found(run), "top1_val": 1.0})
    assert "does not replay: top1_val was 1.0" in refused(run)


def test_a_run_from_before_checksums_replays_with_a_note(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    result, sealed = load_sealed(run)
    assert sealed
    del result["machine"]  # came with the checksums
    (run / "result.json").write_text(json.dumps(result))
    assert "has no checksums" in " ".join(replayed(run).split())


def test_data_may_have_moved(finished, tmp_path):
    code = "from ajpq.data import load_data\ndef digits():\n    return load_data('digits')\n"
    (tmp_path / "here.py").write_text(code)
    config = load_compress_config(
        TINY,
        {
            "data": f"{tmp_path / 'here.py'}:digits",
            "checkpoint": str(finished / "base.safetensors"),
            "recipe": "direct",
        },
    )
    api.compress(config, tmp_path / "run")
    (tmp_path / "here.py").rename(tmp_path / "there.py")
    assert "here.py" in refused(tmp_path / "run")
    replayed(tmp_path / "run", "--data", f"{tmp_path / 'there.py'}:digits")


def test_the_shrunk_module_is_nearly_as_accurate(finished):
    data = load_data("digits")
    images = normalize(data.test_images, data)
    module = api.shrunk(str(finished))
    with torch.no_grad():
        right = module(images).argmax(1) == torch.from_numpy(data.test_labels)
    assert abs(100 * float(right.double().mean()) - found(finished)["top1_test"]) < 2
