"""The training loop: exact resumption, what each mode may and may not change."""

import math

import pytest
import torch
import torch.nn.functional as F

from ajpq.compressed import compressed_view, fit_scales, learned_steps, weight_bits
from ajpq.finetune.goal import Goal
from ajpq.finetune.loss import distillation_loss
from ajpq.finetune.recipe import Distillation, PSGSettings, Recipe, Stage
from ajpq.finetune.training import StageInputs, run_stage
from ajpq.graph.channels import inner_layers
from ajpq.graph.execute import execute
from ajpq.graph.structure import layers
from ajpq.methods import METHODS
from ajpq.policy import CompressionPolicy, LayerPolicy
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.runs.stages import load_snapshot, save_snapshot
from ajpq.simulation.grids import edge_grids
from tests import modules

QUANTIZER = UniformQuantizer()


@pytest.fixture(scope="module")
def net():
    graph, tensors = modules.traced("option_a")
    state = {name: value for name, value in tensors.items() if value.is_floating_point()}
    return graph, state


def batches_of(graph, count=3, size=8):
    def batches(epoch):
        generator = torch.Generator().manual_seed(epoch)
        for _ in range(count):
            images = torch.randn(size, *graph.shapes[graph.input], generator=generator)
            classes = graph.shapes[graph.output][0]
            yield images, torch.randint(0, classes, (size,), generator=generator)

    return batches


def goal_of(graph, state, bits=3, pruned=0, activation=8):
    found = layers(graph)
    zeros = {layer.name: pruned if layer is not found[-1] else 0 for layer in found}
    policy = CompressionPolicy(
        layers={
            layer.name: LayerPolicy(
                weight_bits=(0,) * zeros[layer.name]
                + (bits,) * (layer.channels - zeros[layer.name]),
                activation_bits=activation,
            )
            for layer in found
        }
    )
    ranges = modules.ranges(graph, state, modules.images())
    return Goal(weight_bits(graph, policy), QUANTIZER, edge_grids(graph, policy, ranges))


def inputs_of(net, goal=None):
    graph, state = net
    return StageInputs(graph, batches_of(graph), 3, goal, teacher=state)


@pytest.mark.parametrize(
    "how",
    [
        {"mode": "float"},
        {"mode": "psg"},
        {"mode": "straight_through"},
        {"mode": "straight_through", "grids": "learned"},
        *(
            {"mode": "straight_through", "method": name, "activations": "learned"}
            for name in METHODS
        ),
        {
            "mode": "straight_through",
            "method": {"name": "ewgs", "params": {"hessian_every": 2}},
            "activations": "learned",
        },
    ],
    ids=lambda how: "-".join(str(value) for value in how.values()),
)
def test_a_stage_resumed_from_disk_equals_an_uninterrupted_one(net, how, tmp_path):
    graph, state = net
    stage = Stage(**how, epochs=4, batch_size=8, distillation=Distillation(weight=0.5))
    width = 2 if how.get("activations") == "learned" else 8
    inputs = inputs_of(net, goal_of(graph, state, activation=width))
    snapshots = []
    whole = run_stage(stage, inputs, state, total_steps=12, on_epoch=snapshots.append)
    save_snapshot(tmp_path / "part", 1, snapshots[1])
    number, snapshot = load_snapshot(tmp_path / "part")
    assert (number, snapshot.epoch) == (1, 2)
    resumed = run_stage(stage, inputs, state, total_steps=12, resume=snapshot)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_given_weights_are_left_alone(net):
    graph, state = net
    before = {name: value.clone() for name, value in state.items()}
    stage = Stage(mode="straight_through", steps=2, batch_size=8)
    after = run_stage(stage, inputs_of(net, goal_of(graph, state)), state, total_steps=2)
    assert all(torch.equal(before[name], state[name]) for name in state)
    assert any(not torch.equal(after[name], state[name]) for name in state)


def test_learned_grids_are_trained_and_carried_on(net):
    graph, state = net
    goal = goal_of(graph, state, bits=3, pruned=1)
    stage = Stage(mode="straight_through", steps=3, batch_size=8, grids="learned", weight_decay=0)
    after = run_stage(stage, inputs_of(net, goal), state, total_steps=3)
    fitted = fit_scales(graph, state, goal.bits, QUANTIZER)
    learned = learned_steps(graph, after)
    assert learned.keys() == fitted.keys()
    for name, steps in learned.items():
        changed = steps != fitted[name]
        assert changed[goal.bits[name] > 0].any()
        assert not changed[goal.bits[name] == 0].any()
    # the next stage goes on from them
    slow = stage.model_copy(update={"learning_rate": 1e-12})
    again = run_stage(slow, inputs_of(net, goal), after, total_steps=3)
    for name, steps in learned_steps(graph, again).items():
        torch.testing.assert_close(steps, learned[name])


def test_pruned_rows_get_no_gradient_from_straight_through_training(net):
    graph, state = net
    stage = Stage(mode="straight_through", steps=2, batch_size=8, weight_decay=0)
    after = run_stage(stage, inputs_of(net, goal_of(graph, state, pruned=1)), state, total_steps=2)
    for layer in layers(graph)[:-1]:
        name = layer.node.parameters["weight"]
        assert torch.equal(after[name][0], state[name][0])
        assert not torch.equal(after[name][1:], state[name][1:])


def test_psg_brings_weights_closer_to_their_grids_than_plain_training(net):
    graph, state = net
    goal = goal_of(graph, state, bits=3)

    def distance(trained):
        scales = fit_scales(graph, trained, goal.bits, QUANTIZER)
        view = compressed_view(graph, trained, goal.bits, scales, QUANTIZER)
        total = 0.0
        for layer in layers(graph):
            weight = trained[layer.node.parameters["weight"]]
            error = weight - view[layer.node.parameters["weight"]]
            total += float(error.square().sum() / weight.square().sum())
        return total

    results = {
        mode: run_stage(
            Stage(
                mode=mode,
                steps=200,
                batch_size=8,
                learning_rate=0.01,
                psg=PSGSettings(lambda_s=50),
            ),
            StageInputs(graph, batches_of(graph, count=60), 60, goal),
            state,
            total_steps=200,
        )
        for mode in ("float", "psg")
    }
    assert distance(results["psg"]) < min(distance(results["float"]), distance(state))


def test_a_pruned_channel_is_zero_in_the_compressed_mode_after_batchnorm_too(net):
    graph, state = net
    shifted = {n: v + 0.5 if n.endswith("bias") else v for n, v in state.items()}
    goal = goal_of(graph, shifted, pruned=1)
    scales = fit_scales(graph, shifted, goal.bits, QUANTIZER)
    view = compressed_view(graph, shifted, goal.bits, scales, QUANTIZER)
    seen = {}

    def record(edge, values):
        seen[edge] = values
        return values

    execute(graph, view, modules.images(), edge=record)
    for layer in layers(graph)[:-1]:
        end = (layer.activation or layer.batchnorm or layer.node).output
        if end in seen:
            assert seen[end][:, 0].abs().max() == 0


def test_distillation_by_hand_and_zero_for_equal_logits():
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    labels = torch.tensor([0])
    t = 2.0
    p = torch.softmax(teacher / t, 1)
    by_hand = t * t * float((p * (p.log() - torch.log_softmax(student / t, 1))).sum())
    settings = Distillation(weight=1.0, temperature=t)
    assert float(distillation_loss(student, teacher, labels, settings)) == pytest.approx(by_hand)
    assert float(distillation_loss(student, student, labels, settings)) == pytest.approx(
        0, abs=1e-6
    )
    half = distillation_loss(student, teacher, labels, Distillation(weight=0.5, temperature=t))
    assert float(half) == pytest.approx(
        0.5 * by_hand + 0.5 * float(F.cross_entropy(student, labels)), rel=1e-5
    )


def test_the_learning_rate_warms_up_and_falls_to_zero(net):
    _, state = net
    rates = []
    stage = Stage(mode="float", steps=9, batch_size=8, learning_rate=1e-3, warmup_steps=3)
    run_stage(
        stage,
        inputs_of(net),
        state,
        total_steps=9,
        on_epoch=lambda snapshot: rates.append(snapshot.optimizer["param_groups"][0]["lr"]),
    )
    expected = [1e-3 * 0.5 * (1 + math.cos(math.pi * step / 9)) for step in (2, 5, 8)]
    assert rates == pytest.approx(expected)


def test_the_learning_rate_falls_at_its_milestones(net):
    _, state = net
    rates = []
    stage = Stage(mode="float", epochs=4, batch_size=8, learning_rate=1e-2, milestones=(1, 3))
    run_stage(
        stage,
        inputs_of(net),
        state,
        total_steps=12,
        on_epoch=lambda snapshot: rates.append(snapshot.optimizer["param_groups"][0]["lr"]),
    )
    assert rates == pytest.approx([1e-2, 1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize("form", ["sparse", "sparse_channels"])
def test_sparse_psg_needs_no_widths_and_concentrates_the_weights(net, form):
    """Afterwards the lower half of the weights (or BatchNorm factors) holds less of the energy."""
    graph, state = net
    names = [layers(graph)[0].node.parameters["weight"]]
    if form == "sparse_channels":
        names = [layer.batchnorm.parameters["weight"] for layer in inner_layers(graph)]

    def lower_half(trained):
        ordered = torch.cat([trained[name].flatten() for name in names]).square().sort().values
        return float(ordered[: len(ordered) // 2].sum() / ordered.sum())

    def trained(mode):
        settings = PSGSettings(form=form, lambda_s=20)
        stage = Stage(mode=mode, steps=60, batch_size=8, learning_rate=0.02, psg=settings)
        inputs = StageInputs(graph, batches_of(graph, count=60), 60)
        return run_stage(stage, inputs, state, total_steps=60)

    assert lower_half(trained("psg")) < lower_half(trained("float"))


def test_psg_towards_grids_needs_widths(net):
    _, state = net
    with pytest.raises(ValueError, match="needs a goal"):
        run_stage(Stage(mode="psg", steps=1), inputs_of(net), state, total_steps=1)


def test_recipes_say_what_is_wrong():
    with pytest.raises(ValueError, match="either epochs or steps"):
        Stage(mode="psg")
    assert Recipe(name="r", stages=(Stage(mode="psg", steps=1),)).keeps_full_precision
    assert not Recipe(
        name="r", stages=(Stage(mode="straight_through", steps=1),)
    ).keeps_full_precision
