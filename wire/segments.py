"""Segments: a run of elements of one plane of a weight, coded by itself for the way.

Two codings. "raw" is the plane's bits, packed. "planes" cuts the elements into byte planes, of
which those with exponents compress and those with mantissas do not, and compresses each with
zstd where that is worth it (byte shuffle, as in Blosc: Alted, Computing in Science & Engineering
12(2), 2010). The bytes are specified in docs/protocol.md.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy
import zstandard
from numpy.typing import NDArray

from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import SEGMENT_CODINGS, Buffer
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, stored_bytes
from wire.tensors import DTYPE_BYTES

Bytes: TypeAlias = NDArray[numpy.uint8]
Numbers: TypeAlias = NDArray[numpy.unsignedinteger[Any]]

# Bytes of one number; a complex element is two of them.
_FLOAT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
                "complex64": 4, "complex128": 8}  # fmt: skip

_WORD: numpy.dtype[Any] = numpy.dtype("<u2")
_ONE, _REST = numpy.uint16(1), numpy.uint16(15)

_LENGTH = struct.Struct("<I")
_WHOLE_SEGMENT_BYTES = 1 << 16
_PLANE_SEGMENT_ELEMENTS = 1 << 15

# A byte plane goes compressed where that saves this share of it; one of mantissas does not.
_LEAST_SAVING = 0.02

# Exponents have few values and no order: what compresses them is zstd's entropy coder, and the
# matches that it looks for only cost. With the fewest lookups and only long matches, they take
# 2.6 bits instead of level 1's 3.1, three times as fast, and runs of zeros still vanish.
_ENTROPY_FIRST = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6, chain_log=6, search_log=1,
    window_log=16, target_length=0,
)  # fmt: skip


class _Contexts(threading.local):
    """zstd's contexts, which are dear to make and not for two threads at a time."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(compression_params=_ENTROPY_FIRST).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_contexts = _Contexts()


def segment_elements(dtype: str, plane: int) -> int:
    """How many elements a segment usually has; a weight's last segment has the rest.

    A compromise: the longer, the better it compresses, and the later its first byte is sent.
    """
    if plane == WHOLE:
        return _WHOLE_SEGMENT_BYTES // DTYPE_BYTES[dtype]
    return _PLANE_SEGMENT_ELEMENTS


def encode_segment(
    dtype: str, plane: int, blob: Buffer, start: int, count: int, coding: str
) -> memoryview:
    """The bytes to send for elements [start, start + count) of a plane of the weight `blob`.

    WHOLE as "raw" is a view of the blob; all else is a buffer of its own. Raises
    LocalProtocolError for a dtype, plane, range or coding that does not exist.
    """
    _check_coding(coding)
    stored_bytes(dtype, plane, count)
    itemsize = DTYPE_BYTES[dtype]
    elements = memoryview(blob).cast("B")[start * itemsize : (start + count) * itemsize]
    if start < 0 or count < 1 or elements.nbytes != count * itemsize:
        raise LocalProtocolError(f"no elements [{start}, {start + count}) of {dtype}")
    if coding == "raw" and plane == WHOLE:
        return elements
    parts = _split(dtype, plane, numpy.frombuffer(elements, numpy.uint8))
    if coding == "raw":
        return memoryview(b"".join(part.data for part in parts))
    return memoryview(b"".join(each for part in parts for each in _compressed(part)))


def decode_segment(dtype: str, plane: int, count: int, coding: str, payload: Buffer) -> memoryview:
    """The stored form (see planes.stored_bytes) of a segment's elements.

    WHOLE as "raw" is the payload itself. Raises RemoteProtocolError("coding") for a payload
    that is not exactly a coding of `count` elements, and for more than `max_segment_bytes` of
    them; nothing is allocated beyond those.
    """
    if coding not in SEGMENT_CODINGS:
        raise _undecodable(f"unknown coding {ascii(coding)[:40]}")
    try:
        decoded_bytes = stored_bytes(dtype, plane, count)
    except LocalProtocolError as error:
        raise _undecodable(str(error)) from None
    if not 0 < decoded_bytes <= DEFAULT_LIMITS.max_segment_bytes:
        raise _undecodable(f"{count} elements of {dtype} in one segment")
    view = memoryview(payload).cast("B")
    if coding == "raw" and plane == WHOLE:
        if view.nbytes != decoded_bytes:
            raise _undecodable(f"{view.nbytes} bytes for {decoded_bytes}")
        return view
    sizes = _part_bytes(dtype, plane, count)
    parts = _cut(view, sizes) if coding == "raw" else _decompressed(view, sizes)
    return _joined(dtype, plane, count, parts)


def _check_coding(coding: str) -> None:
    if coding not in SEGMENT_CODINGS:
        raise LocalProtocolError(f"unknown coding {ascii(coding)[:40]}")


def _undecodable(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"a segment does not decode: {text}", code="coding")


# From elements to parts, each a contiguous run of bytes alike, and back.


def _part_bytes(dtype: str, plane: int, count: int) -> list[int]:
    packed = (count + 1) // 2
    if plane == COARSE:
        return [count, packed]
    if plane == MIDDLE:
        return [packed]
    if plane == FINE:
        return [count, count]
    width = _width(dtype)
    return [DTYPE_BYTES[dtype] * count // width] * width


def _width(dtype: str) -> int:
    return _FLOAT_BYTES.get(dtype, DTYPE_BYTES[dtype])


def _split(dtype: str, plane: int, elements: Bytes) -> list[Bytes]:
    if plane == MIDDLE:
        return [_packed(elements[2::4] & numpy.uint8(0x0F))]
    width = _width(dtype)
    numbers = elements.view(f"<u{width}")
    if plane == COARSE:
        nibbles = (numbers >> 19 & 0x0E | numbers >> 31).astype(numpy.uint8)
        return [(numbers >> 23).astype(numpy.uint8), _packed(nibbles)]
    if plane == WHOLE and dtype in _FLOAT_BYTES:
        low = [_byte(numbers, at) for at in range(width - 2)]
        # The top 16 bits, by one: the sign makes way, and the exponent begins a byte.
        top = numpy.ascontiguousarray(elements.view(_WORD)[width // 2 - 1 :: width // 2])
        rotated = top << _ONE | top >> _REST
        return [*low, _byte(rotated, 0), _byte(rotated, 1)]
    return [_byte(numbers, at) for at in range(2 if plane == FINE else width)]


def _byte(numbers: Numbers, at: int) -> Bytes:
    return (numbers >> 8 * at if at else numbers).astype(numpy.uint8)


def _joined(dtype: str, plane: int, count: int, parts: list[Bytes]) -> memoryview:
    if plane == MIDDLE:
        return _unpacked(parts[0], count).data
    if plane == COARSE:
        nibbles = _unpacked(parts[1], count).astype(_WORD)
        words = parts[0].astype(_WORD) << 7 | (nibbles & 0x0E) << 3 | nibbles << 15
        return words.view(numpy.uint8).data
    columns = numpy.empty((parts[0].size, len(parts)), numpy.uint8)
    rotated = plane == WHOLE and dtype in _FLOAT_BYTES
    for at, part in enumerate(parts[:-2] if rotated else parts):
        columns[:, at] = part
    if rotated:
        top = parts[-1].astype(_WORD) << numpy.uint16(8) | parts[-2]
        columns.view(_WORD)[:, -1] = top >> _ONE | top << _REST
    return columns.reshape(-1).data


def _packed(nibbles: Bytes) -> Bytes:
    packed = nibbles[0::2].copy()
    packed[: nibbles.size // 2] |= nibbles[1::2] << 4
    return packed


def _unpacked(packed: Bytes, count: int) -> Bytes:
    nibbles = numpy.empty((packed.size, 2), numpy.uint8)
    numpy.bitwise_and(packed, 0x0F, out=nibbles[:, 0])
    numpy.right_shift(packed, 4, out=nibbles[:, 1])
    if count % 2 and nibbles[-1, 1]:
        raise _undecodable("the last half byte is not zero")
    return nibbles.reshape(-1)[:count]


# Parts on the wire: as they are, one after another, or each after its length.


def _cut(view: memoryview, sizes: Sequence[int]) -> list[Bytes]:
    if view.nbytes != sum(sizes):
        raise _undecodable(f"{view.nbytes} bytes for {sum(sizes)}")
    parts = []
    for size in sizes:
        parts.append(numpy.frombuffer(view[:size], numpy.uint8))
        view = view[size:]
    return parts


def _compressed(part: Bytes) -> tuple[bytes, bytes | memoryview]:
    frame = _contexts.compress(part.data)
    if len(frame) > part.size * (1 - _LEAST_SAVING):
        return _LENGTH.pack(part.size), part.data
    return _LENGTH.pack(len(frame)), frame


def _decompressed(view: memoryview, sizes: Sequence[int]) -> list[Bytes]:
    parts = []
    for size in sizes:
        if view.nbytes < _LENGTH.size:
            raise _undecodable("it ends within a length")
        (length,) = _LENGTH.unpack_from(view)
        part, view = view[_LENGTH.size : _LENGTH.size + length], view[_LENGTH.size + length :]
        if part.nbytes != length or length > size:
            raise _undecodable(f"a part of {length} bytes, at most {size} of {part.nbytes} here")
        parts.append(numpy.frombuffer(part if length == size else _inflated(part, size), "u1"))
    if view.nbytes:
        raise _undecodable(f"{view.nbytes} bytes after its end")
    return parts


def _inflated(frame: memoryview, size: int) -> bytes:
    try:
        # zstd believes this number when it allocates.
        if zstandard.frame_content_size(frame) != size:
            raise _undecodable(f"a frame that does not declare {size} bytes")
        inflated: bytes = _contexts.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise _undecodable(str(error)) from None
    if len(inflated) != size:
        raise _undecodable(f"a frame of {len(inflated)} bytes, not {size}")
    return inflated
