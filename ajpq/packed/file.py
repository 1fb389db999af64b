"""Putting a packed file together and taking it apart."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from ajpq.files import write_atomically
from ajpq.packed.codes import Group, coded_bits, decode, encode, stream_bytes
from ajpq.packed.header import Header, build_network, dump_header, parse_header, stores_zero_rows
from hw_models.errors import AjpqError
from hw_models.network import FLOAT_BITS, Network, Operator, Weights

MAGIC = b"AJPQ"
VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_LENGTHS = struct.Struct("<4I")
_VALUES_PER_BYTE = 1500  # a code costs at least 0.0056 bits, see histograms.py
_VALUES_FREE = 1 << 26  # zero rows cost no bytes: a small file may still hold this many values
_ZLIB_RATIO = 1032  # what zlib can expand one byte to


def pack(network: Network) -> bytes:
    """The packed file of a network.

    Raises:
        AjpqError: codes that do not fit the width of their row, naming the operator.
    """
    sections = [_header_section(network), *_float_sections(network), encode(_groups(network))]
    body = _LENGTHS.pack(*map(len, sections)) + b"".join(sections)
    if sum(w.codes.size for w in _all_weights(network)) > _most_values(_PREFIX.size + len(body)):
        raise AjpqError(f"network {network.name!r} is almost only zero rows: remove them first")
    return _PREFIX.pack(MAGIC, VERSION, 0, zlib.crc32(body)) + body


def unpack(data: bytes) -> Network:
    """The network of a packed file, equal to the packed one in every code, scale and bias.

    Raises:
        AjpqError: no packed file, another version, or damaged.
    """
    header_section, floats, reals, codes = _split(data)
    header, widths = _read_header(header_section)
    layers = _layers(header, widths)
    _check_sizes(layers, len(data), len(floats), len(reals))
    return build_network(header, _read_weights(layers, floats, reals, codes))


@dataclass(frozen=True)
class Frame:
    """What a packed file holds beside its codes and the widths of their rows.

    Attributes:
        header: the structure as JSON.
        floats: number of scales and biases.
    """

    header: bytes
    floats: int

    def size(self, widths: bytes, reals: int, bits: float) -> int:
        """Estimated bytes of the file.

        Args:
            widths: one per weight row, operators in execution order.
            reals: number of 32-bit weights.
            bits: of the codes and their histograms.
        """
        fixed = _PREFIX.size + _LENGTHS.size + len(_compressed(self.header, widths))
        return fixed + 4 * self.floats + 4 * reals + stream_bytes(bits)


def frame_of(network: Network) -> Frame:
    """What stays the same while live rows change their widths."""
    floats = 2 * sum(int(_stored_rows(weights).sum()) for weights in _all_weights(network))
    return Frame(dump_header(network), floats)


def estimated_bytes(network: Network) -> int:
    """``len(pack(network))`` within 0.1 %, from histograms and without coding."""
    reals = sum(
        int((w.bits == FLOAT_BITS).sum()) * int(np.prod(w.codes.shape[1:]))
        for w in _all_weights(network)
    )
    return frame_of(network).size(
        _widths(network), reals, float(coded_bits(_groups(network)).sum())
    )


def save(network: Network, path: Path) -> Path:
    """Write the packed file and return its path."""
    write_atomically(path, pack(network))
    return path


def load(path: Path) -> Network:
    """Read a packed file.

    Raises:
        AjpqError: missing, or see :func:`unpack`.
    """
    try:
        return unpack(path.read_bytes())
    except OSError as error:
        raise AjpqError(f"cannot read the packed file {path}: {error.strerror}") from error


def _all_weights(network: Network) -> Iterator[Weights]:
    return (op.weights for op in network.operators if op.weights is not None)


def _stored_rows(weights: Weights) -> np.ndarray:
    """``[O]`` bool: rows whose scale and bias the file holds."""
    if stores_zero_rows(weights):
        return np.ones(len(weights.bits), dtype=bool)
    return weights.bits > 0


def _header_section(network: Network) -> bytes:
    return _compressed(dump_header(network), _widths(network))


def _widths(network: Network) -> bytes:
    return b"".join(w.bits.astype(np.uint8).tobytes() for w in _all_weights(network))


def _compressed(header: bytes, widths: bytes) -> bytes:
    return zlib.compress(struct.pack("<I", len(header)) + header + widths, 9)


def _float_sections(network: Network) -> tuple[bytes, bytes]:
    floats, reals = [], []
    for weights in _all_weights(network):
        stored = _stored_rows(weights)
        floats += [weights.scales[stored], weights.bias[stored]]
        reals.append(weights.codes[weights.bits == FLOAT_BITS].reshape(-1))
    return _bytes(floats), _bytes(reals)


def _bytes(arrays: list[np.ndarray]) -> bytes:
    return b"".join(array.astype("<f4").tobytes() for array in arrays)


def _groups(network: Network) -> Iterator[Group]:
    for op in network.operators:
        if op.weights is not None:
            yield from _layer_groups(op, op.weights)


def _layer_groups(op: Operator, weights: Weights) -> Iterator[Group]:
    """The codes of one operator by width; zero rows must be zero and are not stored."""
    for bits in np.unique(weights.bits).tolist():
        if bits == FLOAT_BITS:
            continue
        rows = weights.codes[weights.bits == bits]
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits else (0, 0)
        codes = rows.astype(np.int8)
        if rows.min() < least or rows.max() > most or (codes != rows).any():
            raise AjpqError(f"operator {op.name!r} has codes that do not fit {bits} bits")
        if bits:
            yield bits, codes


@dataclass(frozen=True, eq=False)
class _Layer:
    """One operator with weights, as the header describes it."""

    position: int
    shape: tuple[int, ...]
    bits: np.ndarray
    stored: np.ndarray

    @property
    def row_size(self) -> int:
        size = 1
        for length in self.shape[1:]:
            size *= length
        return size

    @property
    def groups(self) -> list[tuple[int, int]]:
        """Width and number of codes, in the order of the stream."""
        widths, rows = np.unique(self.bits, return_counts=True)
        pairs = zip(widths.tolist(), rows.tolist(), strict=True)
        return [(bits, count * self.row_size) for bits, count in pairs if 0 < bits < FLOAT_BITS]

    @property
    def reals(self) -> int:
        return int((self.bits == FLOAT_BITS).sum()) * self.row_size


def _most_values(data: int) -> int:
    """How many weights a file of this length may claim to hold."""
    return max(_VALUES_PER_BYTE * data, _VALUES_FREE)


def _split(data: bytes) -> list[bytes]:
    start = _PREFIX.size + _LENGTHS.size
    if len(data) < start or data[:4] != MAGIC:
        raise AjpqError("this is not a packed file: it does not begin with AJPQ")
    _, version, reserved, checksum = _PREFIX.unpack_from(data)
    if version != VERSION or reserved:
        raise AjpqError(f"the packed file has version {version}, this program reads {VERSION}")
    lengths = _LENGTHS.unpack_from(data, _PREFIX.size)
    if zlib.crc32(data[_PREFIX.size :]) != checksum or start + sum(lengths) != len(data):
        raise AjpqError("the packed file is damaged: its checksum does not match")
    ends = np.cumsum([start, *lengths]).tolist()
    return [data[a:b] for a, b in pairwise(ends)]


def _read_header(section: bytes) -> tuple[Header, np.ndarray]:
    """The structure, and one width per weight row."""
    try:
        text = zlib.decompressobj().decompress(section, _ZLIB_RATIO * len(section))
    except zlib.error as error:
        raise AjpqError(f"the packed file is damaged: {error}") from error
    length = int.from_bytes(text[:4], "little")
    if not 4 + length <= len(text):
        raise AjpqError("the packed file is damaged: its header is cut off")
    return parse_header(text[4 : 4 + length]), np.frombuffer(text[4 + length :], np.uint8)


def _layers(header: Header, widths: np.ndarray) -> list[_Layer]:
    found, start = [], 0
    for position, (*_, shape, zero_rows) in enumerate(header.o):
        if shape:
            bits = widths[start : start + shape[0]]
            start += shape[0]
            found.append(_Layer(position, tuple(shape), bits, (bits > 0) | (zero_rows == 1)))
    if start != len(widths) or not np.isin(widths, [*range(9), FLOAT_BITS]).all():
        raise AjpqError("the packed file is damaged: its row widths are impossible")
    return found


def _check_sizes(layers: list[_Layer], data: int, floats: int, reals: int) -> None:
    """Nothing is allocated before the claimed sizes agree with the length of the file."""
    values = sum(len(layer.bits) * layer.row_size for layer in layers)
    wanted_floats = 8 * sum(int(layer.stored.sum()) for layer in layers)
    wanted_reals = 4 * sum(layer.reals for layer in layers)
    if (floats, reals) != (wanted_floats, wanted_reals) or values > _most_values(data):
        raise AjpqError("the packed file is damaged: its sizes contradict each other")


def _read_weights(
    layers: list[_Layer], floats: bytes, reals: bytes, codes: bytes
) -> dict[int, Weights]:
    float_values, real_values = np.frombuffer(floats, "<f4"), np.frombuffer(reals, "<f4")
    groups = iter(decode(codes, [group for layer in layers for group in layer.groups]))
    found: dict[int, Weights] = {}
    for layer in layers:
        stored = int(layer.stored.sum())
        scales, bias, float_values = np.split(float_values, [stored, 2 * stored])
        own_reals, real_values = np.split(real_values, [layer.reals])
        found[layer.position] = Weights(
            _place_codes(layer, groups, own_reals),
            _place_rows(layer, scales),
            layer.bits.copy(),
            _place_rows(layer, bias),
        )
    return found


def _place_rows(layer: _Layer, values: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(layer.bits), dtype=np.float32)
    rows[layer.stored] = values
    return rows


def _place_codes(layer: _Layer, groups: Iterator[np.ndarray], reals: np.ndarray) -> np.ndarray:
    is_real = layer.bits == FLOAT_BITS
    codes = np.zeros(layer.shape, dtype=np.float32 if is_real.any() else np.int8)
    for bits, _ in layer.groups:
        codes[layer.bits == bits] = next(groups).reshape(-1, *layer.shape[1:])
    codes[is_real] = reals.reshape(-1, *layer.shape[1:])
    return codes
