"""MIDDLE: what an element's first 16 bits have beyond what COARSE tells of them.

Which bits those are follows from COARSE's word (wire.float8): each mantissa bit from its lowest
set one on; where it has none, the exponent, too, as the element is less than a step. What is
alike goes together: exponents, which compress, and a part for each of the mantissa's first three
bits; then the other four of every element.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from wire.byteplanes import Bytes, packed_halves, undecodable, unpacked_halves
from wire.float8 import Words

_FIRST_BITS = (6, 5, 4)  # of a word's mantissa
_MANTISSA, _LOW_4 = numpy.uint8(0x7F), numpy.uint8(15)
_LAST = 255  # an exponent
_SIGN, _SEVEN = numpy.uint16(0x8000), numpy.uint16(7)


def most_refinement_bytes(count: int) -> int:
    """What the parts for `count` elements take together, at the most."""
    return count + len(_FIRST_BITS) * ((count + 7) // 8) + (count + 1) // 2


def refinement_sizes(coarse: Words) -> list[int]:
    """The parts' bytes."""
    marks = _marks(coarse)
    bits = [(int(numpy.count_nonzero(_lacking(marks, at))) + 7) // 8 for at in _FIRST_BITS]
    return [int(numpy.count_nonzero(marks == 0)), *bits, (coarse.size + 1) // 2]


def refinement(top: Words, coarse: Words) -> list[Bytes]:
    """The parts that make the elements' first 16 bits, `top`, of their COARSE words."""
    marks, low = _marks(coarse), top.astype(numpy.uint8)
    exponents = (top.take(_places(marks == 0)) >> _SEVEN).astype(numpy.uint8)
    bits = [
        numpy.packbits(low.take(_places(_lacking(marks, at))) & numpy.uint8(1 << at))
        for at in _FIRST_BITS
    ]
    return [exponents, *bits, packed_halves(low & _LOW_4)]


def refined(parts: Sequence[Bytes], coarse: Words) -> Words:
    """The elements' first 16 bits. Raises RemoteProtocolError ("coding")."""
    exponents, *bits, halves = parts
    marks, exponent = _marks(coarse), (coarse >> _SEVEN).astype(numpy.uint8)
    exponent[_places(marks == 0)] = exponents
    low = coarse.astype(numpy.uint8) & _MANTISSA
    low &= low - numpy.uint8(1)  # All but the lowest set bit are known.
    low |= unpacked_halves(halves, coarse.size)
    for at, packed in zip(_FIRST_BITS, bits, strict=True):
        places, unpacked = _places(_lacking(marks, at)), numpy.unpackbits(packed)
        if unpacked[places.size :].any():
            raise undecodable("bits after the last element")
        low[places] |= unpacked[: places.size] << numpy.uint8(at)
    top: Words = coarse & _SIGN | exponent.astype(numpy.uint16) << _SEVEN | low
    return top


def _marks(coarse: Words) -> Bytes:
    """Mantissas whose lowest set bit is the first that is not known; none where no bit is.

    That is of elements below a step. Of what is infinite, the whole mantissa is not known; of
    zeros its first bits are.
    """
    exponent = (coarse >> _SEVEN).astype(numpy.uint8)
    marks = coarse.astype(numpy.uint8) & _MANTISSA
    marks |= (exponent == 0).view(numpy.uint8) << numpy.uint8(3)
    marks |= (exponent == _LAST).view(numpy.uint8) << numpy.uint8(6)
    return marks


def _lacking(marks: Bytes, at: int) -> NDArray[numpy.bool_]:
    """Whose mantissa bit `at` is not known."""
    lacking: NDArray[numpy.bool_] = marks & numpy.uint8((1 << at) - 1) == 0
    return lacking


def _places(mask: NDArray[numpy.bool_]) -> NDArray[numpy.intp]:
    """Where it is set. By places, elements are taken and put three times as fast as by the mask,
    at whose bits a processor guesses."""
    return numpy.flatnonzero(mask)
