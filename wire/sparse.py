"""Numbers of which many are zero or repeat a neighbour, as few bytes that give the same bits.

What a ReLU leaves is half zeros and half random mantissas: only the zeros can be saved. Where
max pooling windows overlap, as in AlexNet, neighbours are equal to the last bit, too; and bytes
of an image or of 8-bit activations differ little from the one before. So, in this order, each
step where it pays: a mask tells which numbers are zero and drops them; masks tell which others
equal the one some `lag` before and drop them; what remains is replaced by its differences, and
cut into byte planes (wire.byteplanes).

The bytes: 0 and a part (a u32 length and the data, a zstd frame if shorter than it decodes to)
of all elements as they are; or 1, u8 zeros dropped (0 or 1), u8 stride of differences (0 for
none; only for one-byte numbers), u32 x 2 lags (0 for none), and these parts: if zeros are
dropped, a mask of the numbers that are there; for each lag but 0, a mask of which of those that
are still there repeat; the planes of what remains, the least significant first. A mask has its
first bit at the top of its first byte, and ends in zeros. All little endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    take_parts,
    undecodable,
)
from wire.messages import Buffer

Numbers: TypeAlias = NDArray[Any]  # unsigned, 1 to 8 bytes wide
Mask: TypeAlias = NDArray[numpy.bool_]
Indices: TypeAlias = NDArray[numpy.int32]

_HEAD = struct.Struct("<BBII")
_ALIKE, _PLANES = 0, 1

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
    `alike` takes no step: it is zstd on all bytes as they are.
    """

    alike: bool = False
    zeros: bool = False
    lags: tuple[int, int] = (0, 0)
    stride: int = 0


def encode_sparse(dtype: str, shape: Sequence[int], elements: Bytes) -> bytes:
    """The coded bytes of a dense array of `shape` in memory, at least one element.

    Tries the ways on a sample from the middle, or on everything where that is little.
    """
    start, stop = 0, elements.size
    if elements.size > 2 * _SAMPLE_BYTES:
        start = (elements.size - _SAMPLE_BYTES) // 2 & -16
        stop = start + _SAMPLE_BYTES
    ways = _ways(dtype, shape, elements[start:stop])
    tried = [(_encode(dtype, elements[start:stop], way), way) for way in ways]
    coded, way = min(tried, key=lambda pair: len(pair[0]))
    return coded if stop - start == elements.size else _encode(dtype, elements, way)


def _ways(dtype: str, shape: Sequence[int], sample: Bytes) -> Iterator[_Way]:
    yield _Way(alike=True)
    yield _Way()
    yield _Way(zeros=True)
    if number_bytes(dtype) == 1:
        yield _Way(zeros=True, stride=1)
        if shape and 1 < shape[-1] <= 4:  # colours
            yield _Way(stride=shape[-1])
    if math.prod(shape) > _MOST_WITH_REPEATS // 2:  # a complex number is two
        return
    numbers = _numbers(dtype, sample)[:_LAG_SAMPLE]
    rows = numpy.cumprod(shape[:0:-1], dtype=numpy.int64).tolist() if len(shape) > 1 else []
    first = _lag(numbers, numbers != 0, {*_SHORT_LAGS, *rows})
    if first:
        rest = (numbers != 0) & ~_repeats(numbers, first)
        second = _lag(numbers, rest, {*_SHORT_LAGS, *rows} - {first})
        yield _Way(zeros=True, lags=(first, second))


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
    coded: list[Buffer] = [bytes([_PLANES]), _HEAD.pack(way.zeros, way.stride, *way.lags)]
    numbers = _numbers(dtype, elements)
    kept = numbers
    if way.zeros:
        there = numbers != 0
        coded += coded_mask(there)
        kept = numbers[there]
    for lag in filter(None, way.lags):
        repeats = _repeats(numbers, lag)
        coded += coded_mask(repeats[there])
        there &= ~repeats
        kept = numbers[there]
    if way.stride:
        kept = kept.copy()
        kept[way.stride :] -= kept[: -way.stride].copy()
    for plane in split(dtype, kept.view(numpy.uint8)):
        coded += compress_part(plane)
    return b"".join(coded)


def decode_sparse(dtype: str, size: int, data: Buffer) -> Bytes:
    """The `size` bytes of elements that `encode_sparse` was given, in memory of their own.

    Takes a few times `size` of memory, and up to 16 MiB more where numbers repeat others.
    Raises RemoteProtocolError ("coding") for data that is not exactly a coding of so many.
    """
    view = memoryview(data).cast("B")
    if view.nbytes and view[0] == _ALIKE:
        return take_parts(view[1:], [size])[0].copy()
    if view.nbytes < 1 + _HEAD.size or view[0] != _PLANES:
        raise undecodable("neither a frame nor planes")
    zeros, stride, *lags = _HEAD.unpack_from(view, 1)
    width = number_bytes(dtype)
    count = size // width
    _check_way(zeros, stride, lags, width, count)
    view = view[1 + _HEAD.size :]
    if not zeros:
        return _integrated(join(dtype, take_parts(view, [count] * width)), stride)
    there, view = take_mask(view, count)
    repeated = []
    for lag in filter(None, lags):
        repeats, view = take_mask(view, int(numpy.count_nonzero(there)))
        places = numpy.flatnonzero(there)[repeats].astype(numpy.int32)
        there[places] = False
        repeated.append((places, lag))
    planes = take_parts(view, [int(numpy.count_nonzero(there))] * width)
    numbers = numpy.zeros(count, f"<u{width}")
    numbers[there] = _integrated(join(dtype, planes), stride).view(numbers.dtype)
    if repeated:
        _repeat(numbers, repeated)
    return numbers.view(numpy.uint8)


def _check_way(zeros: int, stride: int, lags: Sequence[int], width: int, count: int) -> None:
    unfit = any(lags) and not (zeros and max(lags) < count <= _MOST_WITH_REPEATS)
    if zeros > 1 or unfit or (stride and width > 1):
        raise undecodable(f"no such way: {zeros}, {stride}, {list(lags)}")


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
