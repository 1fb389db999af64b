"""Statistics of one batch that come nearer those of many with what it says of another network."""

import numpy as np
import pytest
import torch

from ajpq.base import build_problem
from ajpq.compressed import compressed_view, fit_scales, quantize_edges, weight_bits
from ajpq.config.files import load_search_config, validated
from ajpq.config.schema import ProblemConfig
from ajpq.finetune.recipe import Calibration, Recipe, Stage
from ajpq.finetune.tuning import calibrated, calibration_images
from ajpq.quantizers.uniform import UniformQuantizer
from ajpq.simulation.calibration import recalibrate_batchnorm
from ajpq.simulation.control_variates import Control, corrected, measured_control
from ajpq.simulation.grids import edge_grids
from envs.build import build_task
from hw_models.errors import AjpqError
from tests.modules import images, random_policy, ranges, traced

torch.set_num_threads(1)
QUANTIZER = UniformQuantizer()
NETWORKS = ["option_a", "concat", "depthwise", "grouped"]


def photographs(count, seed):
    """Images of different brightness and contrast, which is what a few batches scatter by."""
    random = torch.Generator().manual_seed(1000 + seed)
    contrast, brightness = torch.randn(2, count, 1, 1, 1, generator=random)
    return images(count, seed) * (1 + 0.3 * contrast) + 0.7 * brightness


def statistics(graph, state, batches, edge=lambda name, values: values):
    return recalibrate_batchnorm(graph, state, batches, edge)


@pytest.mark.parametrize("name", NETWORKS)
def test_of_the_uncompressed_network_itself_it_makes_the_statistics_of_the_many(name):
    graph, tensors = traced(name)
    batches = [photographs(16, seed) for seed in range(8)]
    control = measured_control(graph, tensors, iter(batches), 1)
    found = corrected(graph, statistics(graph, tensors, batches[:1]), control)
    for key, value in statistics(graph, tensors, batches).items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_of_a_compressed_network_it_takes_most_of_the_scatter(name, seed):
    graph, tensors = traced(name)
    policy = random_policy(graph, np.random.default_rng(seed), (3, 4, 6, 8))
    wide = {n: own.model_copy(update={"activation_bits": 8}) for n, own in policy.layers.items()}
    policy = policy.model_copy(update={"layers": wide})
    bits = weight_bits(graph, policy)
    scales = fit_scales(graph, tensors, bits, QUANTIZER)
    view = compressed_view(graph, tensors, bits, scales, QUANTIZER)
    batches = [photographs(16, 100 * seed + number) for number in range(16)]
    edges = quantize_edges(edge_grids(graph, policy, ranges(graph, tensors, batches[0])))
    wanted = statistics(graph, view, batches, edges)
    few = statistics(graph, view, batches[:1], edges)
    found = corrected(graph, few, measured_control(graph, tensors, iter(batches), 1))

    def distance(own):
        """In standard deviations, and in parts of a variance."""
        total = 0.0
        for key in wanted:
            if key.endswith("running_var"):
                mean = key.replace("running_var", "running_mean")
                unit = wanted[key].clamp(min=1e-5)
                total += float(((own[key] - wanted[key]) / unit).square().sum())
                total += float(((own[mean] - wanted[mean]).square() / unit).sum())
        return total

    assert distance(found) < 0.5 * distance(few)


def test_nothing_changes_where_the_few_say_what_the_many_do():
    graph, tensors = traced("option_a")
    own = statistics(graph, tensors, [photographs(8, 0)])
    found = corrected(graph, own, Control(own, own))
    for key, value in own.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("dead", ["in the few", "in the compressed network"])
def test_a_dead_channel_is_hardly_moved(dead):
    graph, tensors = traced("option_a")
    own = statistics(graph, tensors, [photographs(8, 0)])
    nothing = {name: torch.zeros_like(value) for name, value in own.items()}
    if dead == "in the few":
        found = corrected(graph, own, Control(nothing, own))
        for node in graph.nodes:
            if node.kind == "batchnorm":
                mean, variance = node.parameters["running_mean"], node.parameters["running_var"]
                assert (found[variance] <= 2.01 * own[variance]).all()
                assert ((found[mean] - own[mean]).abs() <= 0.51 * own[variance].sqrt()).all()
    else:
        other = statistics(graph, tensors, [photographs(8, 1)])
        for value in corrected(graph, nothing, Control(own, other)).values():
            assert not value.any()


@pytest.fixture(scope="module")
def problem():
    base = Recipe(name="tiny", stages=(Stage(mode="float", epochs=1, batch_size=64),))
    return build_problem(ProblemConfig(target="size-only", criterion="l1", seed=3, base=base))


def test_a_calibration_with_control_is_nearer_the_one_with_many_batches(problem):
    def buffers(**settings):
        asked = Calibration(range_batches=1, batch_size=32, **settings)
        shown = calibration_images(problem, asked)
        return calibrated(problem, problem.uniform(4), asked, problem.state, shown).buffers

    wanted, few = buffers(batchnorm_batches=24), buffers(batchnorm_batches=1)
    found = buffers(batchnorm_batches=1, control_batches=24)

    def distance(own):
        names = [name for name in own if name.endswith("running_var")]
        return sum(float((own[n] / wanted[n]).log().square().sum()) for n in names)

    assert distance(found) < 0.25 * distance(few)


@pytest.mark.parametrize("few", [0, 8, 9])
def test_control_by_no_more_batches_than_it_corrects_is_refused(few):
    given = {"batchnorm_batches": few, "control_batches": 8}
    with pytest.raises(AjpqError, match=f"control_batches: expected 0, or more .* got 8 and {few}"):
        validated(Calibration, given, "recipe")


def test_a_network_is_shown_the_few_alone():
    settings = Calibration(batchnorm_batches=1, range_batches=2, control_batches=32)
    assert settings.batches == 2


def test_control_is_paid_for_as_far_as_there_are_images():
    settings = Calibration(batchnorm_batches=1, range_batches=1, control_batches=32)
    assert settings.control_images(45_000) == 32 * 128
    assert settings.control_images(1000) == 7 * 128
    assert settings.control_images(50) == 50
    assert Calibration().control_images(45_000) == 0


def test_a_search_pays_for_control_before_its_first_candidate(problem):
    bounds = {"target": "size-only", "latency_ratio": None, "size_ratio": 0.2}
    config = load_search_config("digits", bounds)

    def paid(**more):
        calibration = Calibration(batchnorm_batches=1, range_batches=1, batch_size=64, **more)
        recipe = Recipe(name="untrained", calibration=calibration)
        asked = config.model_copy(update={"candidate": recipe})
        return build_task(asked, problem, lambda policy, budget: None).spent_images

    assert paid(control_batches=4) - paid() == 4 * 64
