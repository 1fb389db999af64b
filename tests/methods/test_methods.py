"""All methods against the published case, and their names and settings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.config.files import load_method, shipped, validated_run
from ajpq.config.schema import CompressConfig
from ajpq.finetune.recipe import Stage
from ajpq.methods import METHODS, MethodSpec, make_method
from hw_models.errors import AjpqError, UnknownNameError
from tests.methods import case

NAMES = sorted(METHODS)
BY_BLOCKS = {"gwk"}
"""These give a block of weights its values together: a single weight has no levels of its own."""
seeds, widths = st.integers(0, 2**31), st.sampled_from([2, 3, 4, 8])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=widths)
def test_the_published_case(name, seed, bits):
    method = make_method(MethodSpec(name=name))
    case.check_untouched_and_pruned(method, seed)
    for check in (
        case.check_idempotent,
        case.check_scale_equivariant,
        case.check_gradients,
        case.check_settled,
    ):
        check(method, seed, bits)


@pytest.mark.parametrize("name", sorted(set(NAMES) - BY_BLOCKS))
@settings(max_examples=10, deadline=None)
@given(seed=seeds, bits=widths)
def test_levels_of_single_weights(name, seed, bits):
    method = make_method(MethodSpec(name=name))
    case.check_levels(method, seed, bits)
    case.check_monotone(method, seed, bits)


@pytest.mark.parametrize("name", sorted(shipped("methods")))
def test_shipped_settings_are_those_of_a_compression(name):
    content = {"kind": "compress", **load_method(name)}
    config = validated_run(CompressConfig, content, name)
    assert config.method == name
    assert config.full_recipe.stages


@pytest.mark.parametrize("name", ["codeq", "codeq-mixed", "gwk", "gwk-channels"])
@pytest.mark.parametrize("bits", [8, 32])
def test_a_method_without_a_layer_to_work_on_is_refused(name, bits):
    content = {"kind": "compress", **load_method(name), "weight_bits": bits}
    with pytest.raises(AjpqError, match=rf"less than 8 weight bits only, got .*weight_bits={bits}"):
        validated_run(CompressConfig, content, name)
    assert validated_run(CompressConfig, {**content, "outer_bits": 4}, name).outer_bits == 4
    assert validated_run(CompressConfig, {**content, **load_method("lsq")}, name)


@pytest.mark.parametrize("name", [n for n in shipped("methods") if n.startswith("codeq")])
def test_shipped_settings_speak_of_nothing_that_is_not_trained(name):
    """No activation of 8 bits has a step that is learned."""
    content = load_method(name)
    assert content["activation_bits"] == 8
    assert "activation_step" not in content["recipe"]["stages"][0]["method"]["params"]


def test_names_and_settings_are_checked():
    assert make_method(MethodSpec(name="ewgs", params={"delta": 0.5})).delta == 0.5
    with pytest.raises(UnknownNameError, match="did you mean 'lsq'"):
        Stage(mode="straight_through", steps=1, method="lqs")
    with pytest.raises(AjpqError, match=r"method 'ewgs': delta: .* got -1"):
        Stage(mode="straight_through", steps=1, method={"name": "ewgs", "params": {"delta": -1}})
    with pytest.raises(UnknownNameError, match="unknown method 'lqs'"):
        load_method("lqs")
    with pytest.raises(ValueError, match="only a straight_through stage has a method"):
        Stage(mode="psg", steps=1, method="lsq")


def test_distilling_and_another_length_change_the_stages_only():
    content = {"kind": "compress", **load_method("ewgs"), "distill": True, "epochs": 3}
    config = validated_run(CompressConfig, content, "ewgs")
    (stage,) = config.full_recipe.stages
    assert (stage.epochs, stage.distillation.weight, stage.distillation.temperature) == (3, 1, 4)
    (before,) = config.recipe.stages
    changed = {"epochs": 3, "distillation": stage.distillation}
    assert before.model_copy(update=changed) == stage
