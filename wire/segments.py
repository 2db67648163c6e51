"""Segments: a run of elements of one plane of a weight, coded by itself for the way.

Two codings. "raw" is the plane's bits, packed. "planes" cuts the elements into byte planes and
compresses those that it makes smaller (see wire.byteplanes). What MIDDLE has depends on what
COARSE has told, so that it is decoded beside it. The bytes are specified in docs/protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

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
from wire.float8 import BLOCK, Elements, Words, float8_codes, float8_words, step_of
from wire.limits import DEFAULT_LIMITS
from wire.messages import SEGMENT_CODINGS, Buffer
from wire.planes import COARSE, FINE, MIDDLE, WHOLE, stored_bytes
from wire.refinement import most_refinement_bytes, refined, refinement, refinement_sizes
from wire.tensors import DTYPE_BYTES

# Bytes of float32 weights coded as "planes" over raw, as measured by benchmarks/weights.py:
# exponents shrink, mantissas do not.
CODED_SHARE = 0.8325

_WHOLE_SEGMENT_BYTES = 1 << 16
_PLANE_SEGMENT_ELEMENTS = BLOCK
_REFINEMENT_PARTS = 5

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
    packed_bytes, lengths = {
        WHOLE: (decoded_bytes, 1 + number_bytes(dtype)),
        COARSE: (1 + count, 2),
        MIDDLE: (most_refinement_bytes(count), _REFINEMENT_PARTS),
        FINE: (2 * count, 2),
    }[plane]
    return packed_bytes if coding == "raw" else packed_bytes + LENGTH_BYTES * lengths


def encode_segment(
    dtype: str, plane: int, blob: Buffer, start: int, count: int, coding: str
) -> memoryview:
    """The bytes to send for elements [start, start + count) of a plane of the weight `blob`.

    WHOLE as "raw" is a view of the blob; all else is a buffer of its own. Of COARSE and MIDDLE,
    a range lies within one of the weight's blocks of `BLOCK` elements. Raises LocalProtocolError
    for a dtype, plane, range or coding that does not exist.
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
    if plane == FINE:
        parts = _split_fine(numpy.frombuffer(elements, numpy.uint8))
    else:
        parts = _split_top(plane, numpy.frombuffer(blob, "<u4"), start, count)
    if coding == "raw":
        return memoryview(b"".join(part.data for part in parts))
    return memoryview(b"".join(each for part in parts for each in compress_part(part)))


def decode_segment(
    dtype: str,
    plane: int,
    count: int,
    coding: str,
    payload: Buffer,
    coarse: Buffer | None = None,
) -> memoryview:
    """The stored form (see planes.stored_bytes) of a segment's elements.

    `coarse` is that of the same elements' COARSE, without which MIDDLE tells nothing. WHOLE as
    "raw" is the payload itself. Raises RemoteProtocolError("coding") for a payload that is not
    exactly a coding of `count` elements, and for more than `max_segment_bytes` of them; nothing
    is allocated beyond those. Raises LocalProtocolError for MIDDLE where `coarse` is not there.
    """
    decoded_bytes = _check_description(dtype, plane, count, coding)
    view = memoryview(payload).cast("B")
    if plane == WHOLE:
        if coding == "planes":
            return _decoded_whole(dtype, decoded_bytes // number_bytes(dtype), view)
        if view.nbytes != decoded_bytes:
            raise undecodable(f"{view.nbytes} bytes for {count} elements as they are")
        return view
    words = _coarse_of(coarse, count) if plane == MIDDLE else None
    sizes = _part_sizes(plane, count, words)
    parts = take_parts(view, sizes) if coding == "planes" else _cut(view, sizes)
    if plane == FINE:
        return join("int16", parts).data
    top = float8_words(parts[1], int(parts[0][0])) if words is None else refined(parts, words)
    return top.view(numpy.uint8).data


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


def _part_sizes(plane: int, count: int, coarse: Words | None) -> list[int]:
    if coarse is not None:
        return refinement_sizes(coarse)
    return [1, count] if plane == COARSE else [count, count]


def _coarse_of(coarse: Buffer | None, count: int) -> Words:
    words = numpy.frombuffer(b"" if coarse is None else coarse, "<u2")
    if words.size != count:
        raise LocalProtocolError(f"{words.size} elements of COARSE beside {count} of MIDDLE")
    return words


def _split_top(plane: int, weight: Elements, start: int, count: int) -> list[Bytes]:
    """COARSE, or MIDDLE, of elements of a block: what they have in common needs all of it."""
    number, first = divmod(start, BLOCK)
    if first + count > BLOCK:
        raise LocalProtocolError(f"elements [{start}, {start + count}) are of several blocks")
    block = weight[number * BLOCK : (number + 1) * BLOCK]
    step = step_of(block, number, weight.size)
    elements = block[first : first + count]
    codes = float8_codes(elements, step)
    if plane == COARSE:
        return [numpy.array([step], numpy.uint8), codes]
    return refinement((elements >> 16).astype(numpy.uint16), float8_words(codes, step))


def _split_fine(elements: Bytes) -> list[Bytes]:
    low = numpy.ascontiguousarray(elements.view("<u2")[0::2])
    return split("int16", low.view(numpy.uint8))


def _cut(view: memoryview, sizes: Sequence[int]) -> list[Bytes]:
    if view.nbytes != sum(sizes):
        raise undecodable(f"{view.nbytes} bytes where there are to be {sum(sizes)}")
    stops = list(accumulate(sizes))
    return [
        numpy.frombuffer(view[stop - size : stop], numpy.uint8)
        for stop, size in zip(stops, sizes, strict=True)
    ]
