"""Targets by every way of naming them, and what is said about those that are none."""

import importlib.metadata

import pytest

from hw_models.base import NetworkCost, Target
from hw_models.errors import AjpqError, UnknownNameError
from hw_models.ethos_u import EthosU
from hw_models.registry import load_target, target_names
from hw_models.samples import conv_network
from hw_models.size_only import SizeOnly

PLUGIN = """
from hw_models.base import NetworkCost, Target

class Flat(Target):
    name = "flat"
    weight_bits = (0, 4, 8)

    def cost(self, network):
        return NetworkCost(latency_s=0.001 * len(network.operators))

class Unfinished(Target):
    name = "unfinished"

class Nameless(Target):
    def cost(self, network):
        return NetworkCost()

class Odd(Flat):
    weight_bits = (0, 1, 8)

class Failing(Flat):
    def __init__(self):
        raise RuntimeError("no licence\\nfound")

instance = Flat()
number = 7
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "my_target.py"
    path.write_text(PLUGIN)
    return path


def message(spec: str) -> str:
    with pytest.raises(AjpqError) as caught:
        load_target(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_shipped_targets():
    assert {"edge-npu", "size-only"} <= set(target_names())
    edge = load_target("edge-npu")
    assert edge == EthosU("edge-npu", "ethos-u65-256", "Ethos_U65_Embedded", "Shared_Sram")
    assert load_target("size-only") == SizeOnly("size-only")


@pytest.mark.parametrize("name", target_names())
def test_every_name_loads_as_itself(name):
    assert load_target(name).name == name


def test_parameters_can_be_changed_behind_a_comma(tmp_path):
    names = {"memory_mode": "Sram_Only", "system_config": "Ethos_U55_Deep_Embedded"}
    target = load_target(",".join(["ethos-u55-128", *(f"{k}={v}" for k, v in names.items())]))
    assert target.accelerator == "ethos-u55-128"
    assert {name: getattr(target, name) for name in names} == names
    assert target.name.startswith("ethos-u55-128,")
    assert load_target("ne16,clock_hz=1.0e+8").clock_hz == 1e8
    path = tmp_path / "board.yaml"
    path.write_text("family: ne16\nclock_hz: 1.0e+8\nsource: {clock_hz: x}\n")
    assert load_target(f"{path},clock_hz=2.0e+8").clock_hz == 2e8
    assert "expected key=value" in message("ne16,fast")
    assert "clock" in message("ne16,clock=3")


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "board.yaml"
    path.write_text(
        "family: ethos-u\naccelerator: ethos-u55-128\n"
        "system_config: Ethos_U55_High_End_Embedded\nmemory_mode: Sram_Only\n"
    )
    target = load_target(str(path))
    assert target.name == "board"
    assert target.accelerator == "ethos-u55-128"


@pytest.mark.parametrize("what", ["Flat", "instance"])
def test_a_class_or_an_instance_of_ones_own(plugin, what):
    target = load_target(f"{plugin}:{what}")
    assert target.cost(conv_network()).latency_s == pytest.approx(0.005)
    assert target.weight_bits == (0, 4, 8)


def test_a_class_of_an_installed_module():
    assert isinstance(load_target("hw_models.size_only:SizeOnly"), SizeOnly)


class FromPackage(Target):
    name = "from-package"

    def cost(self, network):
        return NetworkCost()


def install(monkeypatch, name: str, value: str) -> None:
    points = importlib.metadata.EntryPoints(
        [importlib.metadata.EntryPoint(name, value, "ajpq.hw_models")]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", points.select)


def test_a_target_of_an_installed_package(monkeypatch):
    install(monkeypatch, "packaged", f"{__name__}:FromPackage")
    assert "packaged" in target_names()
    assert load_target("packaged").name == "from-package"


def test_an_installed_package_that_is_broken(monkeypatch):
    install(monkeypatch, "packaged", "no_such_package:Thing")
    assert "target 'packaged' (no_such_package:Thing): ModuleNotFoundError" in message("packaged")


def test_an_installed_package_cannot_hide_a_shipped_target(monkeypatch):
    install(monkeypatch, "edge-npu", f"{__name__}:FromPackage")
    assert isinstance(load_target("edge-npu"), EthosU)


def test_unknown_names_get_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'edge-npu'"):
        load_target("edgenpu")
    assert "unknown target 'zzz'; known: bismo" in message("zzz")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("number", "is not a subclass of hw_models.base.Target: 7"),
        ("Missing", "has no attribute 'Missing'"),
        ("Unfinished", "Can't instantiate abstract class"),
        ("Nameless", "has no name"),
        ("Odd", "got (0, 1, 8)"),
        ("Failing", "RuntimeError: no licence found"),
    ],
)
def test_classes_that_are_no_targets(plugin, what, words):
    line = message(f"{plugin}:{what}")
    assert words in line
    assert f"my_target.py:{what}" in line


def test_modules_that_do_not_load(tmp_path):
    assert "no_such_module" in message("no_such_module:Thing")
    broken = tmp_path / "broken.py"
    broken.write_text("def (")
    assert "SyntaxError" in message(f"{broken}:Thing")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("family: ethos-u", "accelerator: Field required"),
        ("family: ethosu", "unknown target family 'ethosu'; did you mean 'ethos-u'"),
        ("accelerator: x", "expected a mapping with the key 'family'"),
        ("- 1", "expected a mapping with the key 'family'"),
        ("a: [", "is not YAML"),
        ("family: size-only\nbits: 3", "bits: Unexpected keyword argument, got 3"),
        ("family: size-only\nweight_bits: [8]", "weight_bits: Unexpected keyword argument"),
        ("family: size-only\n3: 4", "keywords must be strings"),
        (
            "family: ethos-u\naccelerator: 7\nsystem_config: a\nmemory_mode: b",
            "accelerator: Input should be a valid string, got 7",
        ),
    ],
)
def test_files_that_are_no_targets(tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert words in message(str(path))


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file or directory" in message(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in message(str(tmp_path / "bytes.yaml"))
