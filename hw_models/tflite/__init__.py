"""Int8 ``.tflite`` files, written from the network IR with the schema's own builders.

How an IR operator is written, and where the result may differ from the reference:

* An edge with unsigned codes becomes int8 with zero point -128, a signed one int8 with zero point
  0. Edges narrower than 8 bits keep their scale, and their last code is the last of int8: values
  above it are cut off. Below, signed ones have room that the reference has not, so a target that
  gets these files declares 8-bit activations only.
* TensorFlow Lite rounds halves away from zero, or works in fixed point; the reference rounds
  halves to even. Codes differ by one now and then. Hard-swish, sigmoid and SiLU have an
  8-bit tensor before them and differ by a little more.
* Weights narrower than 8 bits are int8 tensors with few levels. Real int4 tensors make Arm's
  compiler divide by zero.
* ``select`` picks channels in the order of the IR. Putting channels of equal width side by side
  would make the compiled weights smaller still; that is a step on the network, before this one.
"""

from __future__ import annotations

from hw_models.network import Network
from hw_models.tflite.grids import Range
from hw_models.tflite.lower import lower
from hw_models.tflite.serialize import serialize

__all__ = ["lower", "serialize", "write_tflite"]


def write_tflite(network: Network, output_range: Range | None = None) -> bytes:
    """A ``.tflite`` file: int8 in, int8 out, NHWC, batch of one.

    Args:
        network: 8-bit edges and weights of 8 bits or fewer.
        output_range: the largest magnitude that the logits reach, or their smallest and largest
            value; others saturate. Without it a generous guess is made from the last layer's
            rows, as for the prices in a search, which knows no logits. It moves the scale and the
            zero point of the output: on an Ethos-U latency stays, and the compiled file may
            have a few bytes more or less.

    Raises:
        AjpqError: something in the network has no int8 form.
    """
    return serialize(lower(network, output_range), network.input, network.output)
