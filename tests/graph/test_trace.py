import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from ajpq.apply import ActivationRange, apply_policy
from ajpq.graph.execute import batch_statistics, execute
from ajpq.graph.structure import layers, macs, nonnegative_edges, quantized_edges
from ajpq.graph.trace import trace
from ajpq.policy import uniform_policy
from hw_models import network
from hw_models.errors import UnsupportedModuleError
from tests.modules import CLASSES, IMAGE, NETWORKS, build, images, minmax, randomize_batchnorm

torch.set_num_threads(1)

TORCHVISION = {
    "resnet18": {},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "shufflenet_v2_x0_5": {},
    "mnasnet0_5": {},
    "densenet121": {},
    "squeezenet1_0": {},
    "efficientnet_b0": {},
    "regnet_y_400mf": {},
    "googlenet": {"init_weights": False},
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_keep_their_macs_and_their_outputs(name):
    torch.manual_seed(0)
    model = get_model(name, weights=None, **TORCHVISION[name])
    randomize_batchnorm(model).eval()
    graph = trace(model, (3, 64, 64))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expected = model(x)
    with torch.no_grad():
        actual = execute(graph, model.state_dict(), x)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert 2 * macs(graph) == counter.get_total_flops()
    assert 2 * network.macs(_uniform(graph, model)) == counter.get_total_flops()


def _uniform(graph, model):
    ranges = dict.fromkeys(quantized_edges(graph), ActivationRange(1.0, True))
    policy = uniform_policy({layer.name: layer.channels for layer in layers(graph)}, 8)
    return apply_policy(graph, model.state_dict(), policy, ranges, minmax)


@pytest.mark.parametrize("name", NETWORKS)
def test_execution_equals_the_module(name):
    model = build(name)
    graph = trace(model, IMAGE)
    x = images(3)
    torch.testing.assert_close(execute(graph, model.state_dict(), x), model(x))


@pytest.mark.parametrize("name", ["option_a", "squeeze_excite", "concat"])
def test_training_equals_the_module(name):
    model = build(name)
    graph = trace(model, IMAGE)
    tensors = {key: value.clone() for key, value in model.state_dict().items()}
    x = images(6)
    actual = execute(graph, tensors, x, batchnorm=batch_statistics)
    torch.testing.assert_close(actual, model.train()(x))
    for key, value in model.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(tensors[key], value)


def test_gradients_equal_the_module():
    model = build("option_a")
    graph = trace(model, IMAGE)
    execute(
        graph, dict(model.named_parameters()) | dict(model.named_buffers()), images()
    ).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model(images()).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_module_is_left_alone():
    model = build("option_a")
    model.train()
    model.layer1.bn1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    trace(model, IMAGE)
    assert model.training
    assert not model.layer1.bn1.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_option_a_shortcut_is_one_subsample_and_one_select():
    graph = trace(build("option_a"), IMAGE)
    subsample, select = (
        [node for node in graph.nodes if node.kind == kind] for kind in ("subsample", "select")
    )
    assert [node.attributes["stride"] for node in subsample] == [(2, 2)]
    assert [node.attributes["index"] for node in select] == [(-1, -1, 0, 1, 2, 3, -1, -1)]


def test_layer_names_are_module_paths():
    graph = trace(build("option_a"), IMAGE)
    assert [layer.name for layer in layers(graph)] == [
        "conv1", "layer1.conv1", "layer1.conv2", "layer2.0.conv1", "layer2.0.conv2",
        "layer2.1.conv1", "layer2.1.conv2", "linear",
    ]  # fmt: skip
    first = layers(graph)[0]
    assert (first.batchnorm.name, first.activation.kind, first.channels) == ("bn1", "activation", 4)
    functional = trace(build("functional"), IMAGE)
    assert [layer.name for layer in layers(functional)] == ["first", "second", "head"]


def test_channel_shuffle_becomes_the_permutation():
    graph = trace(build("shuffle"), IMAGE)
    indices = [node.attributes["index"] for node in graph.nodes if node.kind == "select"]
    assert indices == [(4, 5, 6, 7), (0, 1, 2, 3), (0, 4, 1, 5, 2, 6, 3, 7)]


def test_quantized_edges_are_those_between_fused_operators():
    graph = trace(build("option_a"), IMAGE)
    edges = quantized_edges(graph)
    assert edges[0] == "input"
    assert graph.output not in edges
    fused = {node.output for node in graph.nodes if node.kind in ("conv", "linear")}
    assert not fused & set(edges)
    block_output = next(n.output for n in graph.nodes if n.name == "layer1.bn2")
    assert block_output in edges
    assert block_output not in nonnegative_edges(graph)


def test_pooled_logits_stay_real():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, CLASSES, 1)

        def forward(self, x):
            return torch.flatten(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1), 1)

    graph = trace(Head(), IMAGE)
    assert quantized_edges(graph) == ("input", graph.nodes[1].output)


class Wrapped(nn.Module):
    """Runs one module where a convolution would be."""

    def __init__(self, module, reshape=False):
        super().__init__()
        self.odd, self.reshape = module, reshape

    def forward(self, x):
        y = self.odd(x.flatten(2) if self.reshape else x)
        return (y[0] if isinstance(y, tuple) else y).flatten(1)


@pytest.mark.parametrize(
    ("module", "reshape", "words"),
    [
        (nn.LSTM(144, 4, batch_first=True), True, ("'odd'", "LSTM", "lstm")),
        (
            nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
            False,
            ("'odd'", "Conv2d", "circular"),
        ),
        (nn.ConvTranspose2d(3, 4, 2), False, ("'odd'", "ConvTranspose2d", "conv_transpose2d")),
        (nn.GELU(), False, ("'odd'", "GELU", "gelu")),
        (nn.BatchNorm2d(3, track_running_stats=False), False, ("'odd'", "running statistics")),
        (nn.AdaptiveAvgPool2d(5), False, ("'odd'", "AdaptiveAvgPool2d", "no multiple")),
        (nn.Conv2d(3, 4, 2, padding="same"), False, ("'odd'", "padding='same'")),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unsupported_modules_are_named(module, reshape, words):
    with pytest.raises(UnsupportedModuleError) as error:
        trace(Wrapped(module, reshape), IMAGE)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_shared_weights_are_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x)).flatten(1)

    with pytest.raises(
        UnsupportedModuleError, match=r"'conv' \(Conv2d\).*'conv.weight' a second time"
    ):
        trace(Twice(), IMAGE)


def test_data_dependent_control_flow_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(UnsupportedModuleError, match="Branching cannot be traced"):
        trace(Branching(), IMAGE)


def test_a_network_that_works_in_place_on_a_view_is_refused():
    class InPlaceView(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            F.relu_(x[:, :2])
            return x.flatten(1)

    with pytest.raises(UnsupportedModuleError, match="in-place"):
        trace(InPlaceView(), IMAGE)


@pytest.mark.parametrize("ending", [torch.nn.Softmax(1), torch.nn.LogSoftmax(-1)])
def test_probabilities_at_the_end_are_left_to_the_reader(ending):
    model = build(next(iter(NETWORKS)))
    graph = trace(torch.nn.Sequential(model, ending), IMAGE)
    x = images(3)
    state = {f"0.{name}": value for name, value in model.state_dict().items()}
    torch.testing.assert_close(execute(graph, state, x), model(x))


def test_a_softmax_over_something_else_is_refused():
    model = torch.nn.Sequential(build(next(iter(NETWORKS))), torch.nn.Softmax(0))
    with pytest.raises(UnsupportedModuleError, match=r"aten.softmax.int is not supported"):
        trace(model, IMAGE)


def test_a_fixed_list_of_channels_is_a_select():
    class Picking(nn.Module):
        def forward(self, x):
            return F.pad(x, (0, 0, 0, 0, 0, 1))[:, [2, 3, 0, 0]].mean((2, 3))

    graph = trace(Picking(), IMAGE)
    select = next(node for node in graph.nodes if node.kind == "select")
    assert select.attributes["index"] == (2, -1, 0, 0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, fixed: x[:, :, [0, 1]], "other than one fixed list of channels"),
        (lambda x, fixed: x[:, x.new_zeros(2).long()], "not supported"),
        (lambda x, fixed: x[:, [[0, 1]]].flatten(1, 2), "indexes with"),
        (lambda x, fixed: x + fixed, "with a constant"),
        (lambda x, fixed: torch.cat([x, fixed], 1), "constant where an activation"),
    ],
)
def test_other_uses_of_constants_are_named(function, words):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed = torch.ones(2, *IMAGE)

        def forward(self, x):
            return function(x, self.fixed).mean((2, 3))

    with pytest.raises(UnsupportedModuleError, match=words):
        trace(Odd(), IMAGE)
