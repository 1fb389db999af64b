"""The size of a packed file without building its network: the same number."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.base import build_problem
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Recipe, Stage
from ajpq.packed import estimated_bytes
from ajpq.packed.sizes import code_bits, packed_sizes
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.problem import direct_weights, network_of
from ajpq.selection.remembered import remembered, structure
from hw_models.errors import AjpqError

BASE = Recipe(name="tiny", stages=(Stage(mode="float", steps=1, batch_size=64),))


@functools.cache
def problem_of(model):
    config = ProblemConfig(target="size-only", criterion="l1", model=model, base=BASE)
    return build_problem(config)


@functools.cache
def sizes_of(model):
    problem = problem_of(model)
    return packed_sizes(problem, code_bits(problem))


def random_policy(problem, rng):
    """Some layers whole, some pruned in part, some empty, some real; few different layers."""
    layers = {}
    last = list(problem.channels)[-1]
    for name, count in problem.channels.items():
        live = rng.permutation(count) >= rng.choice([0, count // 2, count])
        bits = rng.choice([2, 3, 4, 8, rng.choice([8, 32])], count)
        bits = np.where(live | (name == last), bits, 0)
        width = int(rng.choice([4, 8]))
        layers[name] = LayerPolicy(weight_bits=tuple(bits.tolist()), activation_bits=width)
    return CompressionPolicy(layers=layers, quantizer=problem.quantizer)


@pytest.mark.parametrize("model", ["resnet8", "mobilenet_v2"])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_size_is_that_of_the_whole_network(model, seed):
    problem = problem_of(model)
    rng = np.random.default_rng(seed)
    policy = random_policy(problem, rng)
    try:
        network = network_of(problem, policy, direct_weights(problem))
    except AjpqError:  # a layer without a live channel that nothing bypasses
        with pytest.raises(AjpqError):
            sizes_of(model)(policy)
        return
    assert sizes_of(model)(policy) == estimated_bytes(network)


def test_layers_without_rows_behind_a_bypass_take_nothing():
    problem = problem_of("resnet8")
    whole = problem.uniform(4)
    name = next(name for name in whole.layers if name.endswith("conv1") and "." in name)
    empty = LayerPolicy(weight_bits=(0,) * len(whole.layers[name].weight_bits))
    follower = next(n for n in whole.layers if n == name.replace("conv1", "conv2"))
    gone = LayerPolicy(weight_bits=(0,) * len(whole.layers[follower].weight_bits))
    policy = whole.model_copy(update={"layers": {**whole.layers, name: empty, follower: gone}})
    network = network_of(problem, policy, direct_weights(problem))
    assert sizes_of("resnet8")(policy) == estimated_bytes(network)
    assert {name, follower}.isdisjoint(code_bits(problem)(policy))


def test_structure_is_what_is_pruned_and_how_wide_activations_are():
    whole = problem_of("resnet8").uniform(4)
    name = next(iter(whole.layers))
    channels = len(whole.layers[name].weight_bits)

    def changed(**values):
        layer = LayerPolicy(**{"weight_bits": (4,) * channels, **values})
        return whole.model_copy(update={"layers": {**whole.layers, name: layer}})

    assert structure(changed(weight_bits=(8,) * channels)) == structure(whole)
    assert structure(changed(weight_bits=(0, *(4,) * (channels - 1)))) != structure(whole)
    assert structure(changed(activation_bits=4)) != structure(whole)


def test_answers_are_remembered_by_object_and_forgotten():
    asked = []
    ask = remembered(lambda policy: asked.append(policy) or len(asked), 2)
    one, two, three = (problem_of("resnet8").uniform(bits) for bits in (2, 3, 4))
    assert [ask(one), ask(one), ask(two), ask(one)] == [1, 1, 2, 1]
    assert [ask(three), ask(one)] == [3, 4]
