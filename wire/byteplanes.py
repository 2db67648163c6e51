"""Byte planes: numbers cut into planes of bytes alike, each compressed where that is worth it.

The numbers' first bytes hold exponents, which compress; their last ones mantissas, which do not
(byte shuffle, as in Blosc: Alted, Computing in Science & Engineering 12(2), 2010). Knows
nothing of weights or activations.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy
import zstandard
from numpy.typing import NDArray

from wire.errors import RemoteProtocolError
from wire.messages import Buffer
from wire.tensors import DTYPE_BYTES

Bytes: TypeAlias = NDArray[numpy.uint8]

# Bytes of one number of a float; a complex element is two of them.
FLOAT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
                "complex64": 4, "complex128": 8}  # fmt: skip

_WORD: numpy.dtype[Any] = numpy.dtype("<u2")
_ONE, _REST = numpy.uint16(1), numpy.uint16(15)

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size

# A part goes compressed where that saves this share of it; one of mantissas does not.
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
        self.entropy = zstandard.ZstdCompressor(compression_params=_ENTROPY_FIRST).compress
        self.matches = zstandard.ZstdCompressor(level=1).compress
        self.decompress = zstandard.ZstdDecompressor().decompress


_contexts = _Contexts()


def number_bytes(dtype: str) -> int:
    """Bytes of the numbers that elements of `dtype` are cut as: a complex element is two."""
    return FLOAT_BYTES.get(dtype, DTYPE_BYTES[dtype])


def split(dtype: str, elements: Bytes) -> list[Bytes]:
    """The byte planes of numbers, the least significant first.

    Of floats, the top 16 bits are rotated left by one before: the sign makes way, and the
    exponent begins a byte.
    """
    width = number_bytes(dtype)
    numbers = elements.view(f"<u{width}")
    if dtype not in FLOAT_BYTES:
        return [_byte(numbers, at) for at in range(width)]
    top = numpy.ascontiguousarray(elements.view(_WORD)[width // 2 - 1 :: width // 2])
    rotated = top << _ONE | top >> _REST
    low = [_byte(numbers, at) for at in range(width - 2)]
    return [*low, _byte(rotated, 0), _byte(rotated, 1)]


def _byte(numbers: NDArray[numpy.unsignedinteger[Any]], at: int) -> Bytes:
    return (numbers >> 8 * at if at else numbers).astype(numpy.uint8)


def join(dtype: str, planes: Sequence[Bytes]) -> Bytes:
    """The numbers' bytes that `split` took apart, in memory of their own."""
    columns = numpy.empty((planes[0].size, len(planes)), numpy.uint8)
    rotated = dtype in FLOAT_BYTES
    for at, plane in enumerate(planes[:-2] if rotated else planes):
        columns[:, at] = plane
    if rotated:
        top = planes[-1].astype(_WORD) << numpy.uint16(8) | planes[-2]
        columns.view(_WORD)[:, -1] = top >> _ONE | top << _REST
    return columns.reshape(-1)


def compress_part(part: Bytes, matches: bool = False) -> tuple[bytes, Buffer]:
    """A length (u32) and a part, as one zstd frame or, where that does not save, as it is.

    `matches` is for parts with repetitions; without it, zstd mostly codes entropy, and faster.
    """
    compress = _contexts.matches if matches else _contexts.entropy
    frame = compress(part.data)
    if len(frame) > part.size * (1 - _LEAST_SAVING):
        return _LENGTH.pack(part.size), part.data
    return _LENGTH.pack(len(frame)), frame


def coded_mask(mask: NDArray[numpy.bool_], row: int = 0) -> tuple[bytes, Buffer]:
    """A coded part of one bit for each number; with `row`, as many begin with a byte of their own.

    A byte then is of the same columns of a map's rows, which are alike.
    """
    packed = numpy.packbits(mask)
    if row:
        rows = numpy.zeros((-(-mask.size // row), row), numpy.bool_)
        rows.reshape(-1)[: mask.size] = mask
        packed = numpy.packbits(rows, axis=1).reshape(-1)
    return compress_part(packed, matches=True)


def take_mask(
    view: memoryview, count: int, row: int = 0
) -> tuple[NDArray[numpy.bool_], memoryview]:
    """The mask of `count` numbers that `view` begins with, and the rest. Raises as `take_part`."""
    row_bytes = ((row or count) + 7) // 8
    rows = -(-count // row) if row else 1
    packed, view = take_part(view, rows * row_bytes)
    bits = numpy.unpackbits(packed.reshape(rows, row_bytes), axis=1).view(numpy.bool_)
    mask = bits[:, : row or count].reshape(-1)
    if bits[:, row or count :].any() or mask[count:].any():
        raise undecodable("a mask that goes on after the last number")
    return mask[:count], view


def packed_halves(nibbles: Bytes) -> Bytes:
    """Numbers of 4 bits, two to a byte, the first in the lower half."""
    packed = nibbles[0::2].copy()
    packed[: nibbles.size // 2] |= nibbles[1::2] << 4
    return packed


def unpacked_halves(packed: Bytes, count: int) -> Bytes:
    """What `packed_halves` packed. Raises RemoteProtocolError ("coding") for a half too many."""
    nibbles = numpy.empty((packed.size, 2), numpy.uint8)
    numpy.bitwise_and(packed, 0x0F, out=nibbles[:, 0])
    numpy.right_shift(packed, 4, out=nibbles[:, 1])
    if count % 2 and nibbles[-1, 1]:
        raise undecodable("the last half byte is not zero")
    return nibbles.reshape(-1)[:count]


def take_part(view: memoryview, size: int) -> tuple[Bytes, memoryview]:
    """The part of `size` bytes that `view` begins with, and the rest of `view`.

    Raises RemoteProtocolError ("coding") where it does not begin with exactly that; allocates
    no more than `size`.
    """
    if view.nbytes < _LENGTH.size:
        raise undecodable("it ends within a length")
    (length,) = _LENGTH.unpack_from(view)
    part, rest = view[_LENGTH.size : _LENGTH.size + length], view[_LENGTH.size + length :]
    if part.nbytes != length or length > size:
        raise undecodable(f"a part of {length} bytes, at most {size} of {part.nbytes} here")
    data = part if length == size else _inflated(part, size)
    return numpy.frombuffer(data, numpy.uint8), rest


def take_parts(view: memoryview, sizes: Sequence[int]) -> list[Bytes]:
    """The parts of these sizes that make up the whole of `view`. Raises as `take_part`."""
    parts = []
    for size in sizes:
        part, view = take_part(view, size)
        parts.append(part)
    if view.nbytes:
        raise undecodable(f"{view.nbytes} bytes after its end")
    return parts


def undecodable(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"coded bytes do not decode: {text}", code="coding")


def _inflated(frame: memoryview, size: int) -> bytes:
    try:
        # zstd believes this number when it allocates, and fails where the frame holds another.
        if zstandard.frame_content_size(frame) != size:
            raise undecodable(f"a frame that does not declare {size} bytes")
        inflated: bytes = _contexts.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise undecodable(str(error)) from None
    return inflated
