"""Segments: a run of elements of one plane of a weight, coded by itself for the way.

Two codings. "raw" is the plane's bits, packed. "planes" cuts the elements into byte planes and
compresses those that it makes smaller (see wire.byteplanes). The bytes are specified in
docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from wire.byteplanes import (
    LENGTH_BYTES,
    Bytes,
    compress_part,
    join,
    number_bytes,
    split,
    take_parts,
    undecodable,
)
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import SEGMENT_CODINGS, Buffer
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, stored_bytes
from wire.tensors import DTYPE_BYTES

_WHOLE_SEGMENT_BYTES = 1 << 16
_PLANE_SEGMENT_ELEMENTS = 1 << 15


def segment_elements(dtype: str, plane: int) -> int:
    """How many elements a segment usually has; a weight's last segment has the rest.

    A compromise: the longer, the better it compresses, and the later its first byte is sent.
    """
    if plane == WHOLE:
        return _WHOLE_SEGMENT_BYTES // DTYPE_BYTES[dtype]
    return _PLANE_SEGMENT_ELEMENTS


def max_coded_bytes(dtype: str, plane: int, count: int, coding: str) -> int:
    """The most that a coding of `count` elements may take: what a receiver makes room for.

    Raises RemoteProtocolError("coding") where there is no such segment: a dtype without that
    plane, an unknown coding, more than `max_segment_bytes` when decoded.
    """
    _check_description(dtype, plane, count, coding)
    parts = _part_bytes(dtype, plane, count)
    return sum(parts) if coding == "raw" else sum(parts) + LENGTH_BYTES * len(parts)


def encode_segment(
    dtype: str, plane: int, blob: Buffer, start: int, count: int, coding: str
) -> memoryview:
    """The bytes to send for elements [start, start + count) of a plane of the weight `blob`.

    WHOLE as "raw" is a view of the blob; all else is a buffer of its own. Raises
    LocalProtocolError for a dtype, plane, range or coding that does not exist.
    """
    try:
        _check_description(dtype, plane, count, coding)
    except RemoteProtocolError as error:
        raise LocalProtocolError(str(error)) from None
    itemsize = DTYPE_BYTES[dtype]
    elements = memoryview(blob).cast("B")[start * itemsize : (start + count) * itemsize]
    if start < 0 or elements.nbytes != count * itemsize:
        raise LocalProtocolError(f"no elements [{start}, {start + count}) of {dtype}")
    if coding == "raw" and plane == WHOLE:
        return elements
    parts = _split(dtype, plane, numpy.frombuffer(elements, numpy.uint8))
    if coding == "raw":
        return memoryview(b"".join(part.data for part in parts))
    return memoryview(b"".join(each for part in parts for each in compress_part(part)))


def decode_segment(dtype: str, plane: int, count: int, coding: str, payload: Buffer) -> memoryview:
    """The stored form (see planes.stored_bytes) of a segment's elements.

    WHOLE as "raw" is the payload itself. Raises RemoteProtocolError("coding") for a payload
    that is not exactly a coding of `count` elements, and for more than `max_segment_bytes` of
    them; nothing is allocated beyond those.
    """
    decoded_bytes = _check_description(dtype, plane, count, coding)
    view = memoryview(payload).cast("B")
    if coding == "raw" and plane == WHOLE:
        if view.nbytes != decoded_bytes:
            raise undecodable(f"{view.nbytes} bytes for {decoded_bytes}")
        return view
    sizes = _part_bytes(dtype, plane, count)
    parts = _cut(view, sizes) if coding == "raw" else take_parts(view, sizes)
    return _joined(dtype, plane, count, parts)


def _check_description(dtype: str, plane: int, count: int, coding: str) -> int:
    """Bytes of the decoded segment."""
    if coding not in SEGMENT_CODINGS:
        raise undecodable(f"unknown coding {ascii(coding)[:40]}")
    try:
        decoded_bytes = stored_bytes(dtype, plane, count)
    except LocalProtocolError as error:
        raise undecodable(str(error)) from None
    if not 0 < decoded_bytes <= DEFAULT_LIMITS.max_segment_bytes:
        raise undecodable(f"{count} elements of {dtype} in one segment")
    return decoded_bytes


# From elements to parts, each a contiguous run of bytes alike, and back.


def _part_bytes(dtype: str, plane: int, count: int) -> list[int]:
    packed = (count + 1) // 2
    if plane == COARSE:
        return [count, packed]
    if plane == MIDDLE:
        return [packed]
    if plane == FINE:
        return [count, count]
    width = number_bytes(dtype)
    return [DTYPE_BYTES[dtype] * count // width] * width


def _split(dtype: str, plane: int, elements: Bytes) -> list[Bytes]:
    if plane == WHOLE:
        return split(dtype, elements)
    if plane == MIDDLE:
        return [_packed(elements[2::4] & numpy.uint8(0x0F))]
    if plane == FINE:
        low = numpy.ascontiguousarray(elements.view("<u2")[0::2])
        return split("int16", low.view(numpy.uint8))
    numbers = elements.view("<u4")
    nibbles = (numbers >> 19 & 0x0E | numbers >> 31).astype(numpy.uint8)
    return [(numbers >> 23).astype(numpy.uint8), _packed(nibbles)]


def _joined(dtype: str, plane: int, count: int, parts: list[Bytes]) -> memoryview:
    if plane == MIDDLE:
        return _unpacked(parts[0], count).data
    if plane == COARSE:
        nibbles = _unpacked(parts[1], count).astype("<u2")
        words = parts[0].astype("<u2") << 7 | (nibbles & 0x0E) << 3 | nibbles << 15
        return words.view(numpy.uint8).data
    return join("int16" if plane == FINE else dtype, parts).data


def _packed(nibbles: Bytes) -> Bytes:
    packed = nibbles[0::2].copy()
    packed[: nibbles.size // 2] |= nibbles[1::2] << 4
    return packed


def _unpacked(packed: Bytes, count: int) -> Bytes:
    nibbles = numpy.empty((packed.size, 2), numpy.uint8)
    numpy.bitwise_and(packed, 0x0F, out=nibbles[:, 0])
    numpy.right_shift(packed, 4, out=nibbles[:, 1])
    if count % 2 and nibbles[-1, 1]:
        raise undecodable("the last half byte is not zero")
    return nibbles.reshape(-1)[:count]


def _cut(view: memoryview, sizes: Sequence[int]) -> list[Bytes]:
    if view.nbytes != sum(sizes):
        raise undecodable(f"{view.nbytes} bytes for {sum(sizes)}")
    parts = []
    for size in sizes:
        parts.append(numpy.frombuffer(view[:size], numpy.uint8))
        view = view[size:]
    return parts
