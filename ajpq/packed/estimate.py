"""How many bytes a packed file will have, from histograms and without coding."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ajpq.packed import structure
from ajpq.packed.blocks import described
from ajpq.packed.codes import coded_bits, stream_bytes
from ajpq.packed.container import frame_bytes
from ajpq.packed.file import codings_of, compressed
from ajpq.packed.layers import reals_of, widths_of
from ajpq.packed.rows import class_counts, number_bits
from hw_models.network import Network


@dataclass(frozen=True)
class Frame:
    """What a packed file holds beside its stream, real values and the widths of rows.

    Attributes:
        structure: bytes of the compressed JSON.
    """

    structure: int

    def size(self, widths: bytes, reals: int, bits: float, codebooks: bytes = b"") -> int:
        """Estimated bytes of the file.

        Args:
            widths: one per weight row, operators in execution order.
            reals: number of 32-bit weights.
            bits: of codes, scales and biases, histograms included.
            codebooks: see :func:`ajpq.packed.blocks.described`.
        """
        tables = [len(compressed(widths)), len(compressed(codebooks))]
        sections = [self.structure, *tables, stream_bytes(bits), 4 * reals]
        return frame_bytes(sum(map(bool, sections))) + sum(sections)


def frame_of(network: Network) -> Frame:
    """What stays the same while live rows change their widths."""
    return Frame(len(zlib.compress(structure.dump(network), 9)))


def estimated_bytes(network: Network) -> int:
    """``len(pack(network))`` within 0.1 %."""
    codings = codings_of(network)
    groups = (group for layer in codings for coding in layer for group in coding.groups)
    bits = float(coded_bits(groups).sum()) + number_bits(class_counts(network))
    reals = len(reals_of(network)) // 4
    return frame_of(network).size(widths_of(network), reals, bits, described(codings))
