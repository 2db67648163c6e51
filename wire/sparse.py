"""Numbers of which many are zero or repeat a neighbour, as few bytes that give the same bits.

What a ReLU leaves is half zeros and half random mantissas: only the zeros can be saved. Where
max pooling windows overlap, as in AlexNet, neighbours are equal to the last bit, too; and bytes
of an image or of 8-bit activations differ little from the one before. So, in this order, each
step where it pays: a mask tells which numbers are zero and drops them; masks tell which others
equal the one some `lag` before and drop them; what remains is replaced by its differences, and
cut into byte planes (wire.byteplanes). Maps are alike in more than that: their masks go row by
row, and their exponents as wire.exponents has it.

The bytes: 0 and a part (a u32 length and the data, a zstd frame if shorter than it decodes to)
of all elements as they are; or 1, u8 zeros dropped (0 or 1), u8 stride of differences (0 for
none; only for one-byte numbers), u32 x 2 lags (0 for none), and these parts: if zeros are
dropped, a mask of the numbers that are there; for each lag but 0, a mask of which of those that
are still there repeat; the planes of what remains, the least significant first. A mask has its
first bit at the top of its first byte, and ends in zeros. Or 2, for float32 and bfloat16: as after
1, but with u32 row (0 for none) and u32 block (0 for none) after the lags; with a row, so many bits
of the first mask begin with a byte of their own; and the last plane is exponents in such blocks.
All little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from wire.byteplanes import (
    Bytes,
    coded_mask,
    compress_part,
    join,
    number_bytes,
    split,
    take_mask,
    take_part,
    take_parts,
    undecodable,
)
from wire.exponents import coded_exponents, take_exponents
from wire.messages import Buffer

Numbers: TypeAlias = NDArray[Any]  # unsigned, 1 to 8 bytes wide
Mask: TypeAlias = NDArray[numpy.bool_]
Indices: TypeAlias = NDArray[numpy.int32]

_HEAD, _MAP_HEAD = struct.Struct("<BBII"), struct.Struct("<II")
_ALIKE, _PLANES, _MAPS = 0, 1, 2
# Those whose last plane is their exponents.
_MAP_DTYPES = frozenset({"float32", "bfloat16"})
# Numbers in a block: about so many, in whole rows.
_BLOCK = 50
# Of square maps that were flattened.
_FLAT_ROWS = range(5, 17)

_SAMPLE_BYTES = 1 << 15
_LAG_SAMPLE = 1 << 12
_SHORT_LAGS = range(1, 33)
# A mask of repeats costs up to a bit per number, so fewer than one in 30 are not worth one.
_LEAST_REPEATS = 1 / 30
# Repeats are followed by index, which takes some 30 bytes of memory per number, and time.
_MOST_WITH_REPEATS = 1 << 19


@dataclass(frozen=True, slots=True)
class _Way:
    """Which steps are taken. `lags` are those of two masks of repeats, 0 for none.

    `stride` is how far before a number lies the one that it is the difference to, 0 for none.
    `alike` takes no step: it is zstd on all bytes as they are. `maps` is about numbers that
    are near each other, with a row's and a block's length, 0 for none.
    """

    alike: bool = False
    zeros: bool = False
    lags: tuple[int, int] = (0, 0)
    stride: int = 0
    maps: bool = False
    row: int = 0
    block: int = 0


def encode_sparse(dtype: str, shape: Sequence[int], elements: Bytes) -> bytes:
    """The coded bytes of a dense array of `shape` in memory, at least one element.

    Tries the ways on a sample from the middle, or on everything where that is little.
    """
    rows = _rows(dtype, shape)
    start, stop = 0, elements.size
    if elements.size > 2 * _SAMPLE_BYTES:
        unit = number_bytes(dtype) * math.lcm(16, *rows)
        start = (elements.size - _SAMPLE_BYTES) // 2
        start -= start % unit if unit < _SAMPLE_BYTES else start % 16
        stop = start + _SAMPLE_BYTES
    ways = _ways(dtype, shape, rows, elements[start:stop])
    tried = [(_encode(dtype, elements[start:stop], way), way) for way in ways]
    coded, way = min(tried, key=lambda pair: len(pair[0]))
    return coded if stop - start == elements.size else _encode(dtype, elements, way)


def _rows(dtype: str, shape: Sequence[int]) -> list[int]:
    """How many numbers rows of maps may have here."""
    if dtype not in _MAP_DTYPES:
        return []
    if len(shape) >= 4:
        return [shape[-1]]
    return [row for row in _FLAT_ROWS if math.prod(shape) % row**2 == 0]


def _ways(dtype: str, shape: Sequence[int], rows: Sequence[int], sample: Bytes) -> Iterator[_Way]:
    yield _Way(alike=True)
    yield _Way()
    yield _Way(zeros=True)
    numbers = _numbers(dtype, sample)
    there = numbers != 0
    maps = dtype in _MAP_DTYPES
    masks = {row: len(coded_mask(there, row)[1]) for row in (0, *rows) if row < there.size}
    row = min(masks, key=lambda each: masks[each])
    of_maps = _Way(zeros=True, maps=maps, row=row, block=row and row * max(round(_BLOCK / row), 1))
    if maps:
        yield of_maps
    if number_bytes(dtype) == 1:
        yield _Way(zeros=True, stride=1)
        if shape and 1 < shape[-1] <= 4:  # colours
            yield _Way(stride=shape[-1])
    if math.prod(shape) > _MOST_WITH_REPEATS // 2:  # a complex number is two
        return
    numbers, there = numbers[:_LAG_SAMPLE], there[:_LAG_SAMPLE]
    lines = numpy.cumprod(shape[:0:-1], dtype=numpy.int64).tolist() if len(shape) > 1 else []
    first = _lag(numbers, there, {*_SHORT_LAGS, *lines})
    if first:
        rest = there & ~_repeats(numbers, first)
        second = _lag(numbers, rest, {*_SHORT_LAGS, *lines} - {first})
        yield replace(of_maps, lags=(first, second))


def _lag(numbers: Numbers, of: Mask, lags: set[int]) -> int:
    """The lag at which most of these numbers equal an earlier one, 0 where too few do."""
    repeats = {
        lag: numpy.count_nonzero((numbers[lag:] == numbers[:-lag]) & of[lag:])
        for lag in sorted(lags)
        if 0 < lag < numbers.size
    }
    best = max(repeats, key=lambda lag: repeats[lag], default=0)
    return best if best and repeats[best] > _LEAST_REPEATS * numbers.size else 0


def _numbers(dtype: str, elements: Bytes) -> Numbers:
    # By their bits, so that -0.0 is not lost among the zeros.
    return elements.view(f"<u{number_bytes(dtype)}")


def _repeats(numbers: Numbers, lag: int) -> Mask:
    repeats = numpy.zeros(numbers.size, numpy.bool_)
    numpy.equal(numbers[lag:], numbers[:-lag], out=repeats[lag:])
    return repeats


def _encode(dtype: str, elements: Bytes, way: _Way) -> bytes:
    if way.alike:
        return b"".join((bytes([_ALIKE]), *compress_part(elements, matches=True)))
    head = _HEAD.pack(way.zeros, way.stride, *way.lags)
    coded: list[Buffer] = [bytes([_PLANES]), head]
    if way.maps:
        coded = [bytes([_MAPS]), head, _MAP_HEAD.pack(way.row, way.block)]
    numbers = _numbers(dtype, elements)
    kept, there = numbers, numpy.ones(numbers.size, numpy.bool_)
    if way.zeros:
        there = numbers != 0
        coded += coded_mask(there, way.row)
        kept = numbers[there]
    for lag in filter(None, way.lags):
        repeats = _repeats(numbers, lag)
        coded += coded_mask(repeats[there])
        there &= ~repeats
        kept = numbers[there]
    if way.stride:
        kept = kept.copy()
        kept[way.stride :] -= kept[: -way.stride].copy()
    planes = split(dtype, kept.view(numpy.uint8))
    for plane in planes[:-1] if way.maps else planes:
        coded += compress_part(plane)
    if way.maps:
        coded += coded_exponents(planes[-1], there, way.block)
    return b"".join(coded)


def decode_sparse(dtype: str, size: int, data: Buffer) -> Bytes:
    """The `size` bytes of elements that `encode_sparse` was given, in memory of their own.

    Takes a few times `size` of memory, and up to 16 MiB more where numbers repeat others.
    Raises RemoteProtocolError ("coding") for data that is not exactly a coding of so many.
    """
    view = memoryview(data).cast("B")
    if view.nbytes and view[0] == _ALIKE:
        return take_parts(view[1:], [size])[0].copy()
    way, view = _take_way(view)
    width = number_bytes(dtype)
    count = size // width
    _check_way(dtype, way, count)
    if not way.zeros:
        return _integrated(join(dtype, take_parts(view, [count] * width)), way.stride)
    there, view = take_mask(view, count, way.row)
    repeated = []
    for lag in filter(None, way.lags):
        repeats, view = take_mask(view, int(numpy.count_nonzero(there)))
        places = numpy.flatnonzero(there)[repeats].astype(numpy.int32)
        there[places] = False
        repeated.append((places, lag))
    planes = _take_planes(view, there, width, way)
    numbers = numpy.zeros(count, f"<u{width}")
    numbers[there] = _integrated(join(dtype, planes), way.stride).view(numbers.dtype)
    if repeated:
        _repeat(numbers, repeated)
    return numbers.view(numpy.uint8)


def _take_way(view: memoryview) -> tuple[_Way, memoryview]:
    kind = view[0] if view.nbytes > _HEAD.size else None
    if kind not in (_PLANES, _MAPS):
        raise undecodable("neither a frame nor planes")
    zeros, stride, first, second = _HEAD.unpack_from(view, 1)
    if zeros > 1:
        raise undecodable(f"no such way: {zeros} for whether zeros are dropped")
    way, view = _Way(False, zeros == 1, (first, second), stride), view[1 + _HEAD.size :]
    if kind == _PLANES:
        return way, view
    if view.nbytes < _MAP_HEAD.size:
        raise undecodable("it ends before its maps")
    row, block = _MAP_HEAD.unpack_from(view)
    return replace(way, maps=True, row=row, block=block), view[_MAP_HEAD.size :]


def _check_way(dtype: str, way: _Way, count: int) -> None:
    repeating = any(way.lags)
    fits = (
        not repeating or (way.zeros and max(way.lags) < count <= _MOST_WITH_REPEATS),
        not way.stride or number_bytes(dtype) == 1,
        not way.maps or (way.zeros and dtype in _MAP_DTYPES and max(way.row, way.block) < count),
    )
    if not all(fits):
        raise undecodable(f"no such way of {count} numbers: {way}")


def _take_planes(view: memoryview, there: Mask, width: int, way: _Way) -> list[Bytes]:
    """All that is left of `view`."""
    sizes = [int(numpy.count_nonzero(there))] * width
    if not way.maps:
        return take_parts(view, sizes)
    planes = []
    for size in sizes[:-1]:
        plane, view = take_part(view, size)
        planes.append(plane)
    exponents, view = take_exponents(view, there, way.block)
    take_parts(view, [])
    return [*planes, exponents]


def _integrated(numbers: Bytes, stride: int) -> Bytes:
    if not stride or numbers.size <= stride:
        return numbers
    padded = numpy.zeros((-(-numbers.size // stride), stride), numpy.uint8)
    padded.reshape(-1)[: numbers.size] = numbers
    return numpy.cumsum(padded, axis=0, dtype=numpy.uint8).reshape(-1)[: numbers.size]


def _repeat(numbers: Numbers, repeated: Sequence[tuple[Indices, int]]) -> None:
    """Fill in the numbers at each of these places, which equal the one some lag before."""
    sources = numpy.arange(numbers.size, dtype=numpy.int32)
    for places, lag in repeated:
        if places.size and places[0] < lag:
            raise undecodable("a number that repeats one before the first")
        sources[places] -= lag
    places = numpy.concatenate([places for places, _ in repeated])
    following = places
    while following.size:
        # A source may be such a place itself. Each round looks twice as far back: few rounds.
        nearer = sources[following]
        further = sources[nearer]
        moved = nearer != further
        following = following[moved]
        sources[following] = further[moved]
    numbers[places] = numbers[sources[places]]
