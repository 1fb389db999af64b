"""GWK: what a layer becomes, where its gradient goes, and what is left in the packed file."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.finetune.goal import Goal, Moment
from ajpq.graph.execute import execute, frozen_batchnorm, unchanged
from ajpq.graph.structure import layers
from ajpq.methods import MethodSpec, make_method
from ajpq.packed import smallest_bits
from ajpq.quantizers.uniform import UniformQuantizer
from hw_models.errors import AjpqError
from tests import modules

QUANTIZER = UniformQuantizer()
METHOD = make_method(MethodSpec(name="gwk", params={"words": 8}))


def weight_of(seed, shape=(12, 8, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def started(weight, bits, method=METHOD):
    return method.start(weight, bits, QUANTIZER)


def all_at(width, weight):
    return torch.full((len(weight),), width)


def distinct(codes, length):
    return len(np.unique(codes.reshape(-1, length), axis=0))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5))
def test_a_layer_has_few_kernels_on_a_grid_of_few_bits(seed, word_bits):
    method = METHOD.model_copy(update={"word_bits": word_bits})
    weight = weight_of(seed)
    bits = all_at(2, weight)
    own = started(weight, bits, method)
    found = method.settled(weight, bits, own, QUANTIZER)
    codes = QUANTIZER.encode(found.weight, found.bits, found.steps)
    assert found.bits.tolist() == [8] * 12
    assert distinct(codes.numpy(), 9) <= 8
    assert int(codes.abs().max()) == 2 ** (word_bits - 1) - 1
    assert torch.equal(codes * found.steps.view(-1, 1, 1, 1), found.weight)
    assert torch.equal(method.quantized(weight, bits, own, QUANTIZER), found.weight)


@pytest.mark.parametrize("shape", [(64, 8), (64, 8, 1, 1)])
def test_layers_of_one_tap_share_runs_of_channels(shape):
    weight = weight_of(0, shape)
    bits = all_at(4, weight)
    found = METHOD.settled(weight, bits, started(weight, bits), QUANTIZER)
    codes = QUANTIZER.encode(found.weight, found.bits, found.steps).numpy()
    assert distinct(codes, 4) <= 8 < distinct(codes, 8)


def test_few_blocks_have_fewer_words():
    weight = weight_of(0, (4, 8, 3, 3))
    assert len(started(weight, all_at(2, weight))["centroids"]) == 4


@pytest.mark.parametrize("shape", [(16, 1, 3, 3), (16, 4, 1, 1)])
def test_depthwise_kernels_and_single_blocks_have_no_codebook(shape):
    weight = weight_of(0, shape)
    bits = all_at(2, weight)
    own = started(weight, bits)
    found = METHOD.settled(weight, bits, own, QUANTIZER)
    assert found.bits.tolist() == [4] * 16
    assert torch.equal(found.steps, own["step"])
    assert set(own) == {"step"}
    made = METHOD.quantized(weight, bits, own, QUANTIZER)
    codes = made / own["step"].view(-1, 1, 1, 1)
    torch.testing.assert_close(codes, codes.round())
    assert int(codes.abs().max().round()) == 7


def test_layers_of_few_blocks_have_no_codebook():
    """12 rows of 8 kernels; only those of less than 8 bits count."""
    weight, method = weight_of(0), METHOD.model_copy(update={"least_blocks": 96, "alone_bits": 3})
    assert "centroids" in started(weight, all_at(2, weight), method)
    bits = torch.tensor([8, *[2] * 11])
    own = started(weight, bits, method)
    assert set(own) == {"step"}
    found = method.settled(weight, bits, own, QUANTIZER)
    assert found.bits.tolist() == [8, *[3] * 11]
    made = method.quantized(weight, bits, own, QUANTIZER)
    assert all(len(row.unique()) <= 7 for row in made[1:])
    wider = QUANTIZER.encode(found.weight, torch.full((12,), 8), found.steps)
    torch.testing.assert_close((wider * found.steps.view(-1, 1, 1, 1))[1:], made[1:])


def test_rows_of_other_widths_are_quantized_on_their_own():
    weight = weight_of(1)
    bits = torch.tensor([0, 8, 32, *[3] * 9])
    own = started(weight, bits)
    made = METHOD.quantized(weight, bits, own, QUANTIZER)
    assert not made[0].any()
    assert torch.equal(made[2], weight[2])
    codes = (made[1] / own["step"][1]).round()
    torch.testing.assert_close(made[1], codes * own["step"][1])
    found = METHOD.settled(weight, bits, own, QUANTIZER)
    assert found.bits.tolist() == [0, 8, 32, *[8] * 9]
    assert torch.equal(found.weight[3:], made[3:])
    assert torch.equal(found.steps[1:2], QUANTIZER.fit(weight, bits)[1:2])


def test_in_a_search_rows_have_words_on_their_own_grids():
    """Words of one centroid differ by how finely they are rounded, and by nothing else."""
    method, weight = METHOD.keeping_widths(), weight_of(1, (8, 32, 3, 3))
    weight = weight[:1].expand_as(weight).clone()
    bits = torch.tensor([2, 2, 3, 4, 4, 6, 7, 7])
    own = started(weight, bits, method)
    found = method.settled(weight, bits, own, QUANTIZER)
    codes = QUANTIZER.encode(found.weight, found.bits, found.steps)
    assert codes.abs().flatten(1).amax(1).tolist() == [1, 1, 3, 7, 7, 31, 63, 63]
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[3], codes[4])
    errors = (found.weight - found.weight[7]).square().flatten(1).sum(1)
    assert errors[0] > errors[2] > errors[3] > errors[5] > errors[6] == 0
    assert distinct(codes.numpy(), 9) <= 8 * 5


def test_widths_share_the_words_of_a_layer_so_that_its_codebook_fits_into_the_file():
    method = METHOD.keeping_widths().model_copy(update={"words": 64})
    weight = weight_of(6, (96, 32, 3, 3))
    bits = torch.arange(96) % 6 + 2
    found = method.settled(weight, bits, started(weight, bits, method), QUANTIZER)
    codes = QUANTIZER.encode(found.weight, found.bits, found.steps).contiguous().numpy()
    assert distinct(codes, 9) <= 64
    assert smallest_bits([(8, codes)])[0] < codes.size


def test_gradients_pass_straight_through():
    weight = weight_of(2).requires_grad_()
    bits = all_at(2, weight)
    own = started(weight.detach(), bits)
    wanted = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    METHOD.quantized(weight, bits, own, QUANTIZER).backward(wanted)
    assert torch.equal(weight.grad, wanted)


def test_a_row_may_have_any_scale():
    """Twice the weights in one row: twice the quantized ones there, and nothing else changes."""
    weight, bits = weight_of(3), all_at(2, weight_of(3))
    twice = weight.clone()
    twice[5] *= 2
    one, other = (
        METHOD.quantized(values, bits, started(values, bits), QUANTIZER)
        for values in (weight, twice)
    )
    one[5] *= 2
    assert torch.equal(one, other)


@pytest.fixture(scope="module")
def moment():
    graph, tensors = modules.traced("option_a")
    state = {name: value.float() for name, value in tensors.items()}
    bits = {layer.name: torch.full((layer.channels,), 2) for layer in layers(graph)}
    bits[layers(graph)[0].name] += 6
    own = {
        f"{layer.name}.{role}": value
        for layer in layers(graph)
        for role, value in METHOD.start(
            state[layer.node.parameters["weight"]], bits[layer.name], QUANTIZER
        ).items()
    }

    def loss(weights, edge):
        named = {layer.node.parameters["weight"]: weights[layer.name] for layer in layers(graph)}
        logits = execute(graph, state | named, modules.images(), batchnorm=frozen_batchnorm)
        return logits.square().mean()

    goal = Goal(bits, QUANTIZER, {})
    return Moment(0, 0.0, graph, goal, {**state, **own}, {}, unchanged, loss)


def test_gradients_are_those_of_the_loss_and_add_up(moment):
    """Against finite differences of the loss by single quantized weights."""
    with torch.no_grad():
        found = METHOD.refreshed(moment)
        weights = {}
        for layer in layers(moment.graph):
            own = {
                role: moment.state[name]
                for role in METHOD.layer_roles
                if (name := f"{layer.name}.{role}") in moment.state
            }
            weight = moment.state[layer.node.parameters["weight"]]
            bits = moment.goal.bits[layer.name]
            weights[layer.name] = METHOD.quantized(weight, bits, own, QUANTIZER)
        name = next(n for n in weights if f"{n}.gradient" in found)
        gradient, h = found[f"{name}.gradient"], 1e-2
        place = np.unravel_index(int(gradient.argmax()), gradient.shape)
        values = []
        for sign in (1, -1):
            changed = weights[name].clone()
            changed[place] += sign * h
            values.append(float(moment.loss({**weights, name: changed}, unchanged)))
    assert float(gradient[place]) == pytest.approx(abs(values[0] - values[1]) / (2 * h), rel=0.05)
    again = METHOD.refreshed(Moment(**{**vars(moment), "state": {**moment.state, **found}}))
    assert (again[f"{name}.gradient"] >= gradient).all()
    assert float(again[f"{name}.gradient"].sum()) > float(gradient.sum())


def test_refreshing_is_a_pure_function(moment):
    before = {name: value.clone() for name, value in moment.state.items()}
    one, other = METHOD.refreshed(moment), METHOD.refreshed(moment)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert all(torch.equal(value, before[name]) for name, value in moment.state.items())


def test_late_in_a_training_nothing_is_found_anew(moment):
    def at(progress):
        return METHOD.refreshed(Moment(**{**vars(moment), "progress": progress}))

    assert at(0.5).keys() == at(0.0).keys() != set()
    assert at(0.51) == {}


def test_a_price_that_keeps_to_the_budget_stays(moment):
    """What training computed with is what is left, although a lower price would do too."""
    method = METHOD.model_copy(update={"bits_per_weight": 2.0})
    state = {**moment.state, **method.refreshed(moment)}
    dear = {name: value + 0.2 for name, value in state.items() if name.endswith(".rate")}
    state |= dear
    done = method.finished(moment.graph, moment.goal, state)
    for layer in layers(moment.graph):
        if f"{layer.name}.rate" in dear:
            name, bits = layer.node.parameters["weight"], moment.goal.bits[layer.name]
            own = {role: state[f"{layer.name}.{role}"] for role in method.layer_roles}
            assert torch.equal(done[name], method.quantized(state[name], bits, own, QUANTIZER))


def test_without_a_layer_of_many_blocks_there_is_no_codebook_at_all(moment):
    method = METHOD.model_copy(update={"least_blocks": 10**6})
    own = {name: v for name, v in moment.state.items() if not name.endswith(".centroids")}
    found = method.refreshed(Moment(**{**vars(moment), "state": own}))
    assert {name.rsplit(".", 1)[1] for name in found} == {"step"}
    done = method.finished(moment.graph, moment.goal, {**own, **found})
    assert set(done[f"{layers(moment.graph)[1].name}.width"].tolist()) == {4}


@pytest.mark.parametrize("bits_per_weight", [0.9, 1.0, 1.1])
def test_in_the_end_bits_are_kept_whatever_price_the_last_epoch_began_with(moment, bits_per_weight):
    method = METHOD.model_copy(update={"bits_per_weight": bits_per_weight})
    state = {**moment.state, **method.refreshed(moment)}
    coded = [layer for layer in layers(moment.graph) if f"{layer.name}.rate" in state]
    state |= {f"{layer.name}.rate": torch.zeros(()) for layer in coded}
    done = method.finished(moment.graph, moment.goal, state)
    groups, count = [], 0
    for layer in coded:
        weight, steps = done[layer.node.parameters["weight"]], done[f"{layer.name}.step"]
        codes = QUANTIZER.encode(weight, done[f"{layer.name}.width"], steps)
        groups.append((8, codes.contiguous().numpy()))
        count += codes.numel()
    assert float(smallest_bits(groups).sum()) <= bits_per_weight * count


@pytest.mark.parametrize(
    ("params", "message"),
    [({"words": 300}, "words"), ({"nudge": -1}, "nudge"), ({"channels": 3}, "channels")],
)
def test_impossible_settings_are_refused(params, message):
    with pytest.raises(AjpqError, match=message):
        make_method(MethodSpec(name="gwk", params=params))
