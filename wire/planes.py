"""Planes: which bits of a weight's elements travel together, and how they make elements again.

A float32 may travel in three nested planes, whose bits add up to exactly the element's, so that
a layer can be executed before all of them are there:

    COARSE  as many of the first 12 bits as are above a step (wire.float8)    precision "float8"
    MIDDLE  the rest of the first 16 bits                         with COARSE "bfloat16"
    FINE    the last 16 bits                                      with both "exact"

Everything else is WHOLE. Knows nothing of codings or of how planes travel.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from wire.errors import LocalProtocolError
from wire.float8 import BLOCK, float8_codes, float8_words, step_of
from wire.messages import Buffer
from wire.tensors import DTYPE_BYTES

WHOLE, COARSE, MIDDLE, FINE = 0, 1, 2, 3
PLANE_NAMES = ("whole", "coarse", "middle", "fine")

Words: TypeAlias = NDArray[numpy.uint16]

# Bytes per element as stored.
_STORED_BYTES = 2

_WORD: numpy.dtype[Any] = numpy.dtype("<u2")
_MAGNITUDE = numpy.uint16(0x7FFF)
_INFINITY = numpy.uint16(0x7F80)  # the top half of a float32


def progressive_planes(dtype: str) -> tuple[int, ...]:
    """The planes that a weight of this dtype is sent in, in their order, in progressive mode."""
    return (COARSE, MIDDLE, FINE) if dtype == "float32" else (WHOLE,)


def stored_bytes(dtype: str, plane: int, count: int) -> int:
    """Bytes of `count` elements of a plane, as they are stored and decoded (not as sent).

    WHOLE: the elements themselves. The others: a 16-bit word of each, little-endian. COARSE's
    are the nearest that is known, as bfloat16, MIDDLE's the element's first 16 bits, FINE's its
    last. Raises LocalProtocolError where the dtype has no such plane.
    """
    if dtype not in DTYPE_BYTES:
        raise LocalProtocolError(f"unknown dtype {ascii(dtype)[:40]}")
    if plane == WHOLE:
        return DTYPE_BYTES[dtype] * count
    if plane not in progressive_planes(dtype):
        raise LocalProtocolError(f"{dtype} has no plane {plane}")
    return _STORED_BYTES * count


def coarse_words(blob: Buffer) -> memoryview:
    """COARSE of a whole float32 weight as it is stored once it has come."""
    elements = numpy.frombuffer(blob, "<u4")
    words = numpy.empty(elements.size, _WORD)
    for number, start in enumerate(range(0, elements.size, BLOCK)):
        block = elements[start : start + BLOCK]
        step = step_of(block, number, elements.size)
        words[start : start + BLOCK] = float8_words(float8_codes(block, step), step)
    return words.view(numpy.uint8).data


def merge(middle: Buffer, fine: Buffer) -> memoryview:
    """The exact float32 elements, from as many stored elements of both planes.

    A writable buffer of bytes. Raises LocalProtocolError where the planes differ in length.
    """
    top = _words(middle, memoryview(middle).nbytes // 2)
    halves = numpy.empty((top.size, 2), _WORD)
    halves[:, 0] = _words(fine, top.size)
    halves[:, 1] = top
    return _bytes_of(halves)


def approximate(plane: int, words: Buffer) -> memoryview:
    """float32 elements from the words of COARSE ("float8") or of MIDDLE ("bfloat16").

    An element is known to lie in an interval; it becomes the middle of it. By MIDDLE's words
    that is within 2**-8 of its magnitude, for normal numbers. What is zero as far as known stays
    zero with its sign, and what is infinite or NaN stays that (a NaN all of whose set mantissa
    bits are still to come is infinite until then). Nothing finite becomes infinite.

    A writable buffer of bytes. Raises LocalProtocolError for half a word.
    """
    top = _words(words, memoryview(words).nbytes // 2)
    halves = numpy.empty((top.size, 2), _WORD)
    # In blocks, whose temporaries stay in the cache: fresh memory is what takes long.
    for start in range(0, top.size, BLOCK):
        block = slice(start, start + BLOCK)
        halves[block, 1] = top[block]
        halves[block, 0] = 0 if plane == COARSE else _middles(top[block])
    return _bytes_of(halves)


def rounded(plane: int, words: Buffer) -> memoryview:
    """bfloat16 elements from the words of COARSE or of MIDDLE: what `approximate` gives, rounded.

    COARSE's are such elements. The middle of what is known by MIDDLE's lies between two of them:
    it becomes the even one. Nothing finite becomes infinite.

    A writable buffer of bytes. Raises LocalProtocolError for half a word.
    """
    top = _words(words, memoryview(words).nbytes // 2).copy()
    if plane != COARSE:
        for start in range(0, top.size, BLOCK):
            block = top[start : start + BLOCK]
            # The largest finite word, which is odd, stays.
            below = (block & _MAGNITUDE) < _INFINITY - numpy.uint16(1)
            block += block & below.view(numpy.uint8)
    return _bytes_of(top)


def _middles(top: Words) -> Words:
    """The highest of the last 16 bits, where that is the middle of what is known."""
    # Zero wraps round to the largest word, so that one comparison tells finite and not zero.
    between = ((top & _MAGNITUDE) - numpy.uint16(1)) < _INFINITY - numpy.uint16(1)
    return numpy.left_shift(between.view(numpy.uint8), numpy.uint16(15))


def _words(plane: Buffer, count: int) -> Words:
    if memoryview(plane).nbytes != 2 * count:
        raise LocalProtocolError(f"{memoryview(plane).nbytes} bytes are not {count} words")
    return numpy.frombuffer(plane, _WORD)


def _bytes_of(halves: Words) -> memoryview:
    return halves.reshape(-1).view(numpy.uint8).data
