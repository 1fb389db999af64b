"""Operators that reduce windows of codes."""

from __future__ import annotations

from hw_models.errors import AjpqError
from hw_models.tflite import layers
from hw_models.tflite.program import Site
from hw_models.tflite.windows import SAME, VALID, Sliding, Window, pad_windows, place, windows

LOWEST_CODE = -128
LARGEST_DEPTHWISE_STRIDE = 3  # of the devices that this is written for


def _pool(
    site: Site, code: str, tensors: tuple[int, int], sliding: Sliding, mode: int = VALID
) -> None:
    source, out = tensors
    fields = {
        "Padding": mode,
        "StrideH": sliding.stride[0],
        "StrideW": sliding.stride[1],
        "FilterHeight": sliding.kernel[0],
        "FilterWidth": sliding.kernel[1],
        "FusedActivationFunction": site.fused,
    }
    site.program.emit(code, (source,), out, "Pool2DOptions", fields)


def subsample(site: Site) -> None:
    """``subsample`` as the largest value of one."""
    sliding = Sliding((1, 1), tuple(site.operator.attributes["stride"]))
    _pool(site, "MAX_POOL_2D", (site.source, site.out), sliding)


def _sliding(site: Site) -> tuple[Sliding, tuple[Window, Window]]:
    sizes = {k: tuple(site.operator.attributes[k]) for k in ("kernel", "stride", "padding")}
    sliding = Sliding(**sizes)
    shapes = site.program.shape(site.source), site.program.shape(site.out)
    return sliding, windows(*shapes, sliding)


def maxpool(site: Site) -> None:
    """``maxpool``; what is added around never wins."""
    sliding, both = _sliding(site)
    source, mode = place(site.program, site.source, both, lowest=LOWEST_CODE)
    _pool(site, "MAX_POOL_2D", (source, site.out), sliding, mode)


def avgpool(site: Site) -> None:
    """``avgpool``.

    Raises:
        AjpqError: windows at the border count other values than TensorFlow Lite can.
    """
    sliding, both = _sliding(site)
    padded = any(axis.before or axis.after for axis in both)
    counted = site.operator.attributes.get("count_include_pad", True)
    if not padded:
        average(site, site.source, sliding, VALID)
    elif counted and all(axis.after <= axis.before for axis in both):
        average(site, pad_windows(site.program, site.source, both), sliding, VALID)
    elif not (counted and any(sliding.padding)) and all(axis.same for axis in both):
        average(site, site.source, sliding, SAME)
    else:
        raise AjpqError(
            f"operator {site.operator.name!r}: TensorFlow Lite has no average pool with "
            f"padding={sliding.padding}, count_include_pad={counted} on this shape"
        )


def globalavgpool(site: Site) -> None:
    """``globalavgpool``: one window."""
    size = site.program.shape(site.source)[1:3]
    average(site, site.source, Sliding(size), VALID)


def average(site: Site, source: int, sliding: Sliding, mode: int) -> None:
    """An average; a pool keeps its grid, so one that changes it is a convolution with ones.

    Where that cannot be, codes are averaged first and put on their new grid afterwards.
    """
    program, out = site.program, site.out
    if program.grid(source) == program.grid(out):
        _pool(site, "AVERAGE_POOL_2D", (source, out), sliding, mode)
    elif mode == VALID and max(sliding.stride) <= LARGEST_DEPTHWISE_STRIDE:
        ones = layers.average_rows(program.shape(source)[-1], sliding.kernel)
        inner = Sliding(sliding.kernel, sliding.stride)
        layers.convolve(program, ones, source, out, sliding=inner, fused=site.fused)
    else:
        kept = program.activation(f"{program.owner}/mean", program.shape(out), program.grid(source))
        _pool(site, "AVERAGE_POOL_2D", (source, kept), sliding, mode)
        program.emit("QUANTIZE", (kept,), out, "QuantizeOptions")
