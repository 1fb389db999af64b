"""The packed file: the smallest form of a compressed network, version 1.

::

    magic "AJPQ" | version u16 | zero u16 | crc32 u32 | four section lengths u32 x 4
    header   zlib: JSON of edges and operators, then one width byte per weight row
    floats   float32: scales and biases of the rows that are not zero rows
    reals    float32: the values of 32-bit rows
    codes    u32 words of one ANS stream: per layer and width, a histogram model and the codes

All numbers are little-endian. The checksum covers everything behind it. Reading needs numpy,
pydantic and constriction; nothing is unpickled.
"""

from ajpq.packed.codes import coded_bits
from ajpq.packed.file import Frame, estimated_bytes, frame_of, load, pack, save, unpack

__all__ = [
    "Frame",
    "coded_bits",
    "estimated_bytes",
    "frame_of",
    "load",
    "pack",
    "save",
    "unpack",
]
