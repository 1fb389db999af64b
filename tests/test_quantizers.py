"""The uniform quantizer against hand-computed codes, brute force, and its own row-wise form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ajpq.policy import QuantizerSpec
from ajpq.quantizers import last_code, learned_step, make_quantizer, rows, snap, straight_through
from ajpq.quantizers.uniform import UniformQuantizer
from hw_models.errors import AjpqError, UnknownNameError


def test_minmax_codes_by_hand():
    weight = torch.tensor([[0.7, -0.35, 0.1], [3.0, -1.4, 0.0]])
    codes, scales = UniformQuantizer("minmax").quantize(weight, torch.tensor([4, 2]))
    assert scales.tolist() == pytest.approx([0.1, 3.0])
    assert codes.tolist() == [[7, -4, 1], [1, 0, 0]]  # -3.5 rounds half to even


def test_one_scale_per_tensor_by_hand():
    weight = torch.tensor([[0.7, -0.35], [2.1, 0.0], [0.1, 0.2]])
    quantizer = UniformQuantizer("minmax", "tensor")
    codes, scales = quantizer.quantize(weight, torch.tensor([4, 2, 4]))
    assert scales.tolist() == pytest.approx([0.3, 2.1, 0.3])
    assert codes.tolist() == [[2, -1], [1, 0], [0, 1]]
    _, pruned = quantizer.quantize(weight, torch.tensor([0, 32, 0]))
    assert pruned.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_tensor_of_one_width_is_quantized_as_one_long_channel(bits):
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    width = torch.full((5,), bits)
    codes, scales = UniformQuantizer("mse", "tensor").quantize(weight, width)
    whole, scale = UniformQuantizer("mse").quantize(weight.reshape(1, -1), width[:1])
    assert torch.equal(codes.reshape(1, -1), whole)
    assert scales.unique().tolist() == scale.tolist()


def test_pruned_and_untouched_rows_have_no_codes():
    weight = torch.randn(3, 5)
    bits = torch.tensor([0, 32, 8])
    codes, scales = UniformQuantizer().quantize(weight, bits)
    assert codes[:2].abs().sum() == 0
    assert scales[:2].tolist() == [1.0, 1.0]
    snapped = snap(weight, bits, codes, scales)
    assert snapped[0].abs().sum() == 0
    assert torch.equal(snapped[1], weight[1])


def test_a_row_of_zeros_does_not_divide_by_zero():
    codes, scales = UniformQuantizer().quantize(torch.zeros(2, 4), torch.tensor([2, 8]))
    assert codes.abs().sum() == 0
    assert torch.isfinite(scales).all()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.sampled_from([0, 2, 3, 4, 5, 6, 7, 8, 32]), min_size=1, max_size=9),
)
def test_all_widths_at_once_equal_row_by_row(seed, widths):
    weight = torch.randn(len(widths), 3, 2, 2, generator=torch.Generator().manual_seed(seed))
    bits = torch.tensor(widths)
    for scale in ("minmax", "mse"):
        quantizer = UniformQuantizer(scale)
        codes, scales = quantizer.quantize(weight, bits)
        for row in range(len(widths)):
            one, one_scale = quantizer.quantize(weight[row : row + 1], bits[row : row + 1])
            assert torch.equal(codes[row], one[0])
            assert scales[row] == one_scale[0]
            top = 2 ** (widths[row] - 1) - 1 if 2 <= widths[row] <= 8 else 0
            assert int(codes[row].abs().max()) <= top


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mse_scales_are_close_to_the_best_of_an_exhaustive_grid(bits):
    weight = torch.randn(6, 288, generator=torch.Generator().manual_seed(1))
    width = torch.full((6,), bits)
    top = 2 ** (bits - 1) - 1

    def error(scales):
        scaled = rows(scales, weight)
        return ((weight / scaled).round().clamp(-top, top) * scaled - weight).square().sum(1)

    _, found = UniformQuantizer("mse").quantize(weight, width)
    largest = weight.abs().amax(1) / top
    best = torch.stack([error(largest * r) for r in torch.linspace(0.02, 1.2, 2000)]).amin(0)
    assert (error(found) <= 1.03 * best + 1e-9).all()
    assert (error(found) <= error(largest) + 1e-6).all()


def test_straight_through_passes_the_gradient_of_live_rows_only():
    weight = torch.randn(3, 4, requires_grad=True)
    bits = torch.tensor([4, 0, 32])
    quantizer = UniformQuantizer()
    scales = quantizer.fit(weight, bits)
    upstream = torch.randn(3, 4)
    straight_through(weight, bits, scales, quantizer).backward(upstream)
    assert torch.equal(weight.grad[0], upstream[0])
    assert torch.equal(weight.grad[2], upstream[2])
    assert weight.grad[1].abs().sum() == 0


def test_specs_are_checked():
    assert make_quantizer(QuantizerSpec(params={"scale": "minmax"})).scale == "minmax"
    with pytest.raises(UnknownNameError, match="did you mean 'uniform'"):
        make_quantizer(QuantizerSpec(name="unifrom"))
    with pytest.raises(AjpqError, match="got 'max'"):
        make_quantizer(QuantizerSpec(params={"scale": "max"}))
    with pytest.raises(AjpqError, match="got 'row'"):
        make_quantizer(QuantizerSpec(params={"granularity": "row"}))
    with pytest.raises(AjpqError, match="version 2"):
        make_quantizer(QuantizerSpec(version=2))


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_learned_steps_get_the_gradients_of_torchs_own_learnable_fake_quantization(bits):
    quantizer = make_quantizer(QuantizerSpec())
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(bits))
    widths, last = torch.full((6,), bits), 2 ** (bits - 1) - 1
    fitted = quantizer.fit(weight, widths) * 0.8
    # Half a step beyond the ends torch has a gradient, but LSQ's equation 3 has none.
    size = rows(fitted, weight)
    at = (weight / size).abs()
    weight = torch.where((at > last) & (at.round() <= last), weight + weight.sign() * size, weight)
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    share = (last * weight[0].numel()) ** -0.5
    results = []
    for quantize in (
        lambda w, s: learned_step(w, widths, s, quantizer),
        lambda w, s: torch._fake_quantize_learnable_per_channel_affine(
            w, s, torch.zeros(6), 0, -last, last, share
        ),
    ):
        w, s = weight.clone().requires_grad_(), fitted.clone().requires_grad_()
        made = quantize(w, s)
        made.backward(upstream)
        results.append((made.detach(), w.grad, s.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_last_code_is_that_of_signed_codes():
    bits = torch.tensor([0, 2, 3, 4, 5, 6, 7, 8, 32])
    assert last_code(bits).tolist() == [1, 1, 3, 7, 15, 31, 63, 127, 1]


def test_learned_steps_leave_pruned_and_untouched_rows_alone():
    quantizer = make_quantizer(QuantizerSpec())
    weight = torch.randn(3, 4, requires_grad=True)
    bits = torch.tensor([0, 32, 4])
    steps = quantizer.fit(weight, bits).requires_grad_()
    made = learned_step(weight, bits, steps, quantizer)
    made.sum().backward()
    assert torch.equal(made[0], torch.zeros(4))
    assert torch.equal(made[1], weight[1])
    assert weight.grad is not None
    assert steps.grad is not None
    assert weight.grad[:2].tolist() == [[0.0] * 4, [1.0] * 4]
    assert steps.grad[:2].tolist() == [0, 0]
