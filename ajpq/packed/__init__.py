"""The packed file: the smallest form of a compressed network, version 2.

Its loader needs torch, numpy, pydantic and constriction, and nothing of the search::

    from ajpq.packed import load
    from ajpq.reference import simulate

    logits = simulate(load(Path("model.ajpq")), images)   # [N, C, H, W] float32, normalised

The frame, sections and checksum are those of :mod:`ajpq.packed.container`:

- the *structure* as JSON (:mod:`ajpq.packed.structure`);
- the *width* of every weight row;
- one ANS *stream*: per layer and width a histogram model (:mod:`ajpq.packed.histograms`) and the
  codes, then scales and biases as short numbers (:mod:`ajpq.packed.numbers`);
- the *real values* of 32-bit rows;
- the shapes of *codebooks*, whose words and numbers are in the stream in place of the codes of a
  layer's 8-bit rows (:mod:`ajpq.packed.blocks`).

What a file says is checked before memory is taken for it (:mod:`ajpq.packed.limits`), and nothing
is unpickled. Rows lie in the stream by width, and the widths put each back into its place. A
network whose channels were permuted, as by :func:`hw_models.ordering.by_width`, needs nothing
else: rows, columns, widths, scales and biases of all layers are permuted alike, and the network is
stored and read back in the order that it has.

Version 1 is still read (:mod:`ajpq.packed.version1`).
"""

from ajpq.packed.blocks import smallest_bits
from ajpq.packed.breakdown import Breakdown, LayerBytes, breakdown
from ajpq.packed.estimate import Frame, estimated_bytes, frame_of
from ajpq.packed.file import load, pack, save, unpack

__all__ = [
    "Breakdown",
    "Frame",
    "LayerBytes",
    "breakdown",
    "estimated_bytes",
    "frame_of",
    "load",
    "pack",
    "save",
    "smallest_bits",
    "unpack",
]
