"""Segments: a run of elements of one plane of a weight, coded by itself for the way.

Two codings. "raw" is the plane's bits, packed. "planes" cuts the elements into byte planes and
compresses those that it makes smaller (see wire.byteplanes). The bytes are specified in
docs/protocol.md.
"""

from __future__ import annotations

import numpy

from wire.byteplanes import (
    FLOAT_BYTES,
    LENGTH_BYTES,
    Bytes,
    coded_mask,
    compress_part,
    join,
    number_bytes,
    split,
    take_mask,
    take_parts,
    undecodable,
)
from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.limits import DEFAULT_LIMITS
from wire.messages import SEGMENT_CODINGS, Buffer
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, stored_bytes
from wire.tensors import DTYPE_BYTES

# Bytes of float32 weights coded as "planes" over raw, as measured by benchmarks/weights.py:
# exponents shrink, mantissas do not.
CODED_SHARE = 0.8325

_WHOLE_SEGMENT_BYTES = 1 << 16
_PLANE_SEGMENT_ELEMENTS = 1 << 15

# With no more numbers than this share left, a mask of the others pays: pruned weights. A mask's
# length is never 0, so that stands for none.
_SPARSE = 0.75
_NO_MASK = bytes(LENGTH_BYTES)


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
    decoded_bytes = _check_description(dtype, plane, count, coding)
    parts = _part_bytes(plane, count)
    packed_bytes = decoded_bytes if plane == WHOLE else sum(parts)
    lengths = 1 + number_bytes(dtype) if plane == WHOLE else len(parts)
    return packed_bytes if coding == "raw" else packed_bytes + LENGTH_BYTES * lengths


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
    if plane == WHOLE:
        return memoryview(b"".join(_coded_whole(dtype, numpy.frombuffer(elements, numpy.uint8))))
    parts = _split(plane, numpy.frombuffer(elements, numpy.uint8))
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
    if coding == "planes":
        if plane == WHOLE:
            return _decoded_whole(dtype, decoded_bytes // number_bytes(dtype), view)
        return _joined(plane, count, take_parts(view, _part_bytes(plane, count)))
    if view.nbytes != max_coded_bytes(dtype, plane, count, "raw"):
        raise undecodable(f"{view.nbytes} bytes for {count} elements as they are")
    return view if plane == WHOLE else _joined(plane, count, _cut(view, plane, count))


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


# WHOLE: which numbers are not zero, where many are, and the byte planes of those.


def _coded_whole(dtype: str, elements: Bytes) -> list[Buffer]:
    coded: list[Buffer] = [_NO_MASK]
    # By their bits, so that -0.0 is not lost among the zeros.
    numbers = elements.view(f"<u{number_bytes(dtype)}")
    there = numbers != 0
    if numpy.count_nonzero(there) <= _SPARSE * numbers.size:
        coded = [*coded_mask(there)]
        elements = numbers[there].view(numpy.uint8)
    for plane in split(dtype, elements):
        # Integers repeat, as tables of indices do; mantissas and exponents have no order.
        coded += compress_part(plane, matches=dtype not in FLOAT_BYTES)
    return coded


def _decoded_whole(dtype: str, count: int, view: memoryview) -> memoryview:
    width = number_bytes(dtype)
    if view[:LENGTH_BYTES] == _NO_MASK:
        return join(dtype, take_parts(view[LENGTH_BYTES:], [count] * width)).data
    there, view = take_mask(view, count)
    kept = join(dtype, take_parts(view, [int(numpy.count_nonzero(there))] * width))
    numbers = numpy.zeros(count, f"<u{width}")
    numbers[there] = kept.view(numbers.dtype)
    return numbers.view(numpy.uint8).data


# The other planes: from elements to parts, each a contiguous run of bytes alike, and back.


def _part_bytes(plane: int, count: int) -> list[int]:
    packed = (count + 1) // 2
    return {COARSE: [count, packed], MIDDLE: [packed], FINE: [count, count]}.get(plane, [])


def _split(plane: int, elements: Bytes) -> list[Bytes]:
    if plane == MIDDLE:
        return [_packed(elements[2::4] & numpy.uint8(0x0F))]
    if plane == FINE:
        low = numpy.ascontiguousarray(elements.view("<u2")[0::2])
        return split("int16", low.view(numpy.uint8))
    numbers = elements.view("<u4")
    nibbles = (numbers >> 19 & 0x0E | numbers >> 31).astype(numpy.uint8)
    return [(numbers >> 23).astype(numpy.uint8), _packed(nibbles)]


def _joined(plane: int, count: int, parts: list[Bytes]) -> memoryview:
    if plane == MIDDLE:
        return _unpacked(parts[0], count).data
    if plane == FINE:
        return join("int16", parts).data
    nibbles = _unpacked(parts[1], count).astype("<u2")
    words = parts[0].astype("<u2") << 7 | (nibbles & 0x0E) << 3 | nibbles << 15
    return words.view(numpy.uint8).data


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


def _cut(view: memoryview, plane: int, count: int) -> list[Bytes]:
    parts = []
    for size in _part_bytes(plane, count):
        parts.append(numpy.frombuffer(view[:size], numpy.uint8))
        view = view[size:]
    return parts
