"""How many bytes a packed file will have, from histograms and without coding."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ajpq.packed import structure
from ajpq.packed.blocks import smallest_bits
from ajpq.packed.codes import stream_bytes
from ajpq.packed.container import frame_bytes
from ajpq.packed.file import compressed
from ajpq.packed.layers import groups_of, reals_of, weighted, widths_of
from ajpq.packed.rows import class_counts, number_bits
from hw_models.network import Network


@dataclass(frozen=True)
class Frame:
    """What a packed file holds beside its stream, real values and the widths of rows.

    Attributes:
        structure: bytes of the compressed JSON.
    """

    structure: int

    def size(self, widths: bytes, reals: int, bits: float) -> int:
        """Estimated bytes of the file.

        Args:
            widths: one per weight row, operators in execution order.
            reals: number of 32-bit weights.
            bits: of codes, scales and biases, histograms included.
        """
        sections = [self.structure, len(compressed(widths)), stream_bytes(bits), 4 * reals]
        return frame_bytes(sum(map(bool, sections))) + sum(sections)


def frame_of(network: Network) -> Frame:
    """What stays the same while live rows change their widths."""
    return Frame(len(zlib.compress(structure.dump(network), 9)))


def estimated_bytes(network: Network) -> int:
    """``len(pack(network))`` within 0.1 %."""
    groups = [group for op, own in weighted(network) for group in groups_of(op.name, own)]
    bits = float(smallest_bits(groups).sum()) + number_bits(class_counts(network))
    return frame_of(network).size(widths_of(network), len(reals_of(network)) // 4, bits)
