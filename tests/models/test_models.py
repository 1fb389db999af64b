import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ajpq.models import build_model, model_names
from ajpq.models.resnet_cifar import OptionAShortcut
from hw_models.errors import AjpqError, UnknownNameError


def cifar(name):
    return build_model(name, in_channels=3, classes=10, image_size=32)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model, size=32):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


# Parameters in thousands: He et al. (2015), table 6; MobileNetV2: the customary CIFAR variant.
@pytest.mark.parametrize(
    ("name", "thousands"),
    [
        ("resnet20", 270),
        ("resnet32", 460),
        ("resnet44", 660),
        ("resnet56", 850),
        ("resnet110", 1700),
        ("mobilenet_v2", 2240),
    ],
)
def test_parameter_counts_are_the_published_ones(name, thousands):
    assert parameters(cifar(name)) / 1000 == pytest.approx(thousands, rel=0.02)


def test_resnet20_has_the_known_size_and_work():
    model = cifar("resnet20")
    assert parameters(model) == 269_722
    assert macs(model) == 40_551_040  # 40.81 million with batch normalisation and pooling counted


def test_resnet8_has_the_parameters_and_work_of_mlperf_tiny():
    model = cifar("resnet8")
    statistics = sum(b.numel() for b in model.buffers() if b.dim() > 0)
    biases_before_batchnorm = sum(
        module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)
    )
    assert parameters(model) + statistics + biases_before_batchnorm == 78_666
    assert macs(model) == 12_501_632


def published_resnet_keys(blocks):
    def batchnorm(name):
        suffixes = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{name}.{suffix}" for suffix in suffixes]

    keys = ["conv1.weight", *batchnorm("bn1"), "linear.weight", "linear.bias"]
    for stage in (1, 2, 3):
        for block in range(blocks):
            for index in (1, 2):
                prefix = f"layer{stage}.{block}"
                keys += [f"{prefix}.conv{index}.weight", *batchnorm(f"{prefix}.bn{index}")]
    return keys


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_resnet_keys_are_those_of_the_public_checkpoints(name, blocks):
    assert sorted(cifar(name).state_dict()) == sorted(published_resnet_keys(blocks))


def test_option_a_shortcut_against_plain_indexing():
    x = torch.randn(2, 16, 8, 8)
    y = OptionAShortcut(16, 32)(x)
    expected = np.zeros((2, 32, 4, 4), dtype=np.float32)
    expected[:, 8:24] = x.numpy()[:, :, ::2, ::2]
    np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet20", "resnet110", "mobilenet_v2", "mobilenet_v2_x0_35"]
)
def test_own_models_take_grey_digits(name):
    model = build_model(name, in_channels=1, classes=7, image_size=8)
    assert model.training
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 7)


def test_mobilenet_width_scales_channels_and_the_stem_keeps_the_size():
    half = cifar("mobilenet_v2_x0_5")
    assert parameters(half) < parameters(cifar("mobilenet_v2")) / 3
    assert half.features[0](torch.zeros(2, 3, 32, 32)).shape == (2, 16, 32, 32)
    assert half.features(torch.zeros(2, 3, 32, 32)).shape == (2, 1280, 4, 4)


def test_the_same_seed_gives_the_same_weights():
    torch.manual_seed(3)
    first = cifar("resnet8").state_dict()
    torch.manual_seed(3)
    second = cifar("resnet8").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_torchvision_names_and_their_prefix():
    assert "squeezenet1_1" in model_names()
    plain = build_model("squeezenet1_1", in_channels=3, classes=4, image_size=64)
    assert plain.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    theirs = build_model("torchvision:mobilenet_v2", in_channels=3, classes=4, image_size=32)
    assert theirs.features[0][0].stride == (2, 2)
    assert cifar("mobilenet_v2").features[0][0].stride == (1, 1)


def test_a_torchvision_model_that_cannot_take_the_images():
    with pytest.raises(AjpqError, match="takes images with 3 channels, the data has 1"):
        build_model("squeezenet1_1", in_channels=1, classes=4, image_size=64)
    with pytest.raises(AjpqError, match="'squeezenet1_1' does not take 3x8x8 images"):
        build_model("squeezenet1_1", in_channels=3, classes=4, image_size=8)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("resnet21", "did you mean 'resnet"),
        ("mobilenet_v2_x0_0", "did you mean 'mobilenet_v2"),
        ("torchvision:squeezenet1_2", "did you mean 'torchvision:squeezenet1_"),
        ("zzzzzzzz", "known: "),
    ],
)
def test_unknown_names(spec, words):
    with pytest.raises(UnknownNameError) as caught:
        build_model(spec, in_channels=3, classes=10, image_size=32)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "nets.py"
    path.write_text(
        "from torch import nn\n"
        "def make(classes, in_channels):\n"
        "    pool = nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(pool, nn.Flatten(), nn.Linear(in_channels, classes))\n"
        "def sized(**given):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(given['in_channels'] *\n"
        "        given['image_size'] ** 2, given['classes']))\n"
        "def no_module(): return 'x'\n"
        "def fixed(): return make(5, 3)\n"
        "def spatial(): return nn.Identity()\n"
    )
    return path


@pytest.mark.parametrize("function", ["make", "sized"])
def test_a_function_of_the_user(plugin, function):
    model = build_model(f"{plugin}:{function}", in_channels=2, classes=6, image_size=9)
    assert model(torch.zeros(4, 2, 9, 9)).shape == (4, 6)


@pytest.mark.parametrize(
    ("function", "channels", "words"),
    [
        ("no_module", 3, "gave a str, expected a torch.nn.Module"),
        ("fixed", 3, "gives outputs of shape 5, expected 6 logits"),
        ("fixed", 1, "does not take 1x9x9 images"),
        ("spatial", 3, "gives outputs of shape 3x9x9, expected 6 logits"),
        ("nothing", 3, "has no attribute 'nothing'"),
    ],
)
def test_a_function_that_gives_something_else(plugin, function, channels, words):
    with pytest.raises(AjpqError) as caught:
        build_model(f"{plugin}:{function}", in_channels=channels, classes=6, image_size=9)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
