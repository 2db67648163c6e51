"""The exponents of floats in a map, in fewer bytes than one by one: neighbours are of one size.

Two go into one byte, as how far they are below the largest, so that zstd codes them by what they
are together; those more than 14 below are listed apart. And maps are louder and quieter: the
numbers of the louder blocks go before the others, each coded by themselves.

The bytes: u8, the largest exponent; with blocks, a mask of the louder ones (wire.byteplanes); for
the louder blocks' numbers and then for the others', or for all, a part of half bytes, the first
of two in the lower half; a part of a byte for each half byte 15, which is to be added to it.
"""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from wire.byteplanes import (
    Bytes,
    coded_mask,
    compress_part,
    packed_halves,
    take_mask,
    take_part,
    undecodable,
    unpacked_halves,
)
from wire.messages import Buffer

Mask = NDArray[numpy.bool_]
Group = slice | NDArray[numpy.intp]

_FAR = 15


def coded_exponents(exponents: Bytes, there: Mask, block: int) -> list[Buffer]:
    """Exponents of those numbers that are `there`, of all in blocks of so many; 0: no blocks."""
    largest = exponents.max(initial=0)
    below = largest - exponents
    coded: list[Buffer] = [bytes([largest])]
    groups: list[Group] = [slice(None)]
    if block:
        louder = _louder(below, there, block)
        coded += coded_mask(louder)
        groups = _groups(louder, there, block)
    near = numpy.minimum(below, _FAR)
    for group in groups:
        coded += compress_part(packed_halves(near[group]))
    coded += compress_part(below[numpy.flatnonzero(near == _FAR)] - _FAR)
    return coded


def take_exponents(view: memoryview, there: Mask, block: int) -> tuple[Bytes, memoryview]:
    """What `coded_exponents` coded, and the rest of `view`. Raises RemoteProtocolError."""
    if not view.nbytes:
        raise undecodable("it ends before the exponents")
    largest, view = view[0], view[1:]
    below = numpy.empty(int(numpy.count_nonzero(there)), numpy.uint8)
    groups: list[Group] = [slice(None)]
    if block:
        louder, view = take_mask(view, -(-there.size // block))
        groups = _groups(louder, there, block)
    for group in groups:
        count = below[group].size
        packed, view = take_part(view, (count + 1) // 2)
        below[group] = unpacked_halves(packed, count)
    far = numpy.flatnonzero(below == _FAR)
    more, view = take_part(view, far.size)
    most = _FAR + int(more.max()) if far.size else int(below.max(initial=0))
    if most > largest:
        raise undecodable("an exponent below the least")
    below[far] += more
    return largest - below, view


def _louder(below: Bytes, there: Mask, block: int) -> Mask:
    """Which half of the blocks have the larger exponents, on the mean."""
    blocks = -(-there.size // block)
    sums, numbers = numpy.zeros((2, blocks * block), numpy.float32)
    sums[: there.size][there] = below
    numbers[: there.size] = there
    counts = numbers.reshape(blocks, block).sum(axis=1)
    means = sums.reshape(blocks, block).sum(axis=1) / numpy.maximum(counts, 1)
    # numpy.median imports more, which a worker that is shut in cannot.
    louder: Mask = means <= numpy.sort(means)[blocks // 2]
    return louder


def _groups(louder: Mask, there: Mask, block: int) -> list[Group]:
    of = numpy.repeat(louder, block)[: there.size][there]
    return [numpy.flatnonzero(of), numpy.flatnonzero(~of)]
