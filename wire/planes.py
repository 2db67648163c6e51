"""Planes: which bits of a weight's elements travel together, and how they make elements again.

A float32 may travel in three nested planes, whose bits add up to exactly the element's, so that
a layer can be executed before all of them are there:

    COARSE  sign, 8 exponent bits, the top 3 mantissa bits       12 bits  precision "float12"
    MIDDLE  the next 4 mantissa bits                              4 bits  with COARSE "bfloat16"
    FINE    the last 16 bits                                     16 bits  with both "exact"

Everything else is WHOLE. Knows nothing of codings or of how planes travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from wire.errors import LocalProtocolError
from wire.messages import Buffer
from wire.tensors import DTYPE_BYTES

WHOLE, COARSE, MIDDLE, FINE = 0, 1, 2, 3
PLANE_NAMES = ("whole", "coarse", "middle", "fine")

Words: TypeAlias = NDArray[numpy.uint16]
Nibbles: TypeAlias = NDArray[numpy.uint8]

# Bytes per element as stored. A word of COARSE has its last 4 bits zero, a byte of MIDDLE its
# first 4.
_STORED: Mapping[int, int] = {COARSE: 2, MIDDLE: 1, FINE: 2}

_WORD: numpy.dtype[Any] = numpy.dtype("<u2")
_MAGNITUDE = numpy.uint16(0x7FFF)
_INFINITY = numpy.uint16(0x7F80)  # the top half of a float32
_BLOCK = 1 << 15  # elements


def progressive_planes(dtype: str) -> tuple[int, ...]:
    """The planes that a weight of this dtype is sent in, in their order, in progressive mode."""
    return (COARSE, MIDDLE, FINE) if dtype == "float32" else (WHOLE,)


def stored_bytes(dtype: str, plane: int, count: int) -> int:
    """Bytes of `count` elements of a plane, as they are stored and decoded (not as sent).

    WHOLE: the elements themselves. COARSE: the element's top 16 bits with the last 4 zero, as a
    little-endian word. MIDDLE: one byte, 0 to 15. FINE: the last 16 bits, as a word.
    Raises LocalProtocolError where the dtype has no such plane.
    """
    if dtype not in DTYPE_BYTES:
        raise LocalProtocolError(f"unknown dtype {ascii(dtype)[:40]}")
    if plane == WHOLE:
        return DTYPE_BYTES[dtype] * count
    if plane not in progressive_planes(dtype):
        raise LocalProtocolError(f"{dtype} has no plane {plane}")
    return _STORED[plane] * count


def merge(coarse: Buffer, middle: Buffer, fine: Buffer) -> memoryview:
    """The exact float32 elements, from as many stored elements of each plane.

    A writable buffer of bytes. Raises LocalProtocolError where the planes differ in length.
    """
    top = _words(coarse, memoryview(coarse).nbytes // 2)
    halves = numpy.empty((top.size, 2), _WORD)
    halves[:, 0] = _words(fine, top.size)
    numpy.bitwise_or(top, _nibbles(middle, top.size), out=halves[:, 1])
    return _bytes_of(halves)


def approximate(coarse: Buffer, middle: Buffer | None) -> memoryview:
    """float32 elements from the planes that are there: "float12", or "bfloat16" with `middle`.

    An element is known to lie in an interval; it becomes the middle of it, which halves the
    worst error: to 2**-4 of its magnitude, or 2**-8, for normal numbers. What is zero as far as
    known stays zero with its sign, and what is infinite or NaN stays that (a NaN all of whose
    set mantissa bits are still to come is infinite until then). Nothing finite becomes infinite.

    A writable buffer of bytes. Raises LocalProtocolError where the planes differ in length.
    """
    top = _words(coarse, memoryview(coarse).nbytes // 2)
    nibbles = None if middle is None else _nibbles(middle, top.size)
    halves = numpy.empty((top.size, 2), _WORD)
    # In blocks, whose temporaries stay in the cache: fresh memory is what takes long.
    for start in range(0, top.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        _approximate(halves[block], top[block], None if nibbles is None else nibbles[block])
    return _bytes_of(halves)


def _approximate(halves: Words, top: Words, nibbles: Nibbles | None) -> None:
    if nibbles is not None:
        top = top | nibbles
    # Zero wraps round to the largest word, so that one comparison tells finite and not zero.
    between = ((top & _MAGNITUDE) - numpy.uint16(1)) < _INFINITY - numpy.uint16(1)
    if nibbles is None:
        numpy.bitwise_or(top, between.view(numpy.uint8) << numpy.uint8(3), out=halves[:, 1])
        halves[:, 0] = 0
    else:
        halves[:, 1] = top
        numpy.left_shift(between.view(numpy.uint8), numpy.uint16(15), out=halves[:, 0])


def _nibbles(middle: Buffer, count: int) -> Nibbles:
    nibbles = numpy.frombuffer(middle, numpy.uint8)
    if nibbles.size != count:
        raise LocalProtocolError(f"{count} elements of COARSE, {nibbles.size} of MIDDLE")
    return nibbles


def _words(plane: Buffer, count: int) -> Words:
    if memoryview(plane).nbytes != 2 * count:
        raise LocalProtocolError(f"{memoryview(plane).nbytes} bytes are not {count} words")
    return numpy.frombuffer(plane, _WORD)


def _bytes_of(halves: Words) -> memoryview:
    return halves.reshape(-1).view(numpy.uint8).data
