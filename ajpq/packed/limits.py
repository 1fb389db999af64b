"""How much a packed file may claim to hold, checked before anything is allocated.

A file of ``n`` bytes may hold, in memory, ``2**26 + 128 n`` bytes of codes, of which
``2**20 + 128 n`` are in its stream: the rest are zero rows, which cost nothing in a file. It may
have ``2**16 + 2 n`` rows and a structure of 2 MiB. No real network comes near, and
:func:`ajpq.packed.pack` refuses those that do. Reading takes about five times the codes in the
stream beside the network itself.
"""

from __future__ import annotations

import zlib

from ajpq.packed.container import damaged

STRUCTURE_BYTES = 1 << 21
"""The longest structure, as JSON; that of a ResNet-20 has 4 kB."""
_PER_BYTE = 128
_FREE_BYTES, _FREE_CODES, _FREE_ROWS = 1 << 26, 1 << 20, 1 << 16


def fits(size: int, held: int, coded: int, rows: int) -> bool:
    """May a file of ``size`` bytes hold this?

    Args:
        held: bytes of all codes and real values in memory.
        coded: codes in the stream.
        rows: weight rows.
    """
    return (
        held <= _FREE_BYTES + _PER_BYTE * size
        and coded <= _FREE_CODES + _PER_BYTE * size
        and rows <= _FREE_ROWS + 2 * size
    )


def inflate(section: bytes, most: int) -> bytes:
    """Decompress, but never more than ``most`` bytes.

    Raises:
        AjpqError: not one whole zlib stream, or more behind it or in it.
    """
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(section, most + 1)
    except zlib.error as error:
        raise damaged(error) from error
    if len(content) > most or not decompressor.eof or decompressor.unused_data:
        raise damaged("a compressed section has another length than it should")
    return content
