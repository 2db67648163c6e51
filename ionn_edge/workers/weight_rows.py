"""What weights a graph has, as a worker tells it: rows of one length, not one object for each byte.

A worker may be hostile: how many rows there are is known before any is looked at, and none can be
anything but a digest, a size and a dtype.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Sequence

from wire import DEFAULT_LIMITS, DTYPE_BYTES
from wire.limits import MAX_WEIGHT_BYTES
from wire.messages import Buffer

_ROW = struct.Struct(">32sQB")
_DTYPES = tuple(DTYPE_BYTES)
_ITEM_BYTES = tuple(DTYPE_BYTES.values())
_NUMBERS = {dtype: number for number, dtype in enumerate(_DTYPES)}

Row = tuple[bytes, int, str]


def packed(rows: Sequence[Row]) -> bytes:
    """(digest, bytes, dtype) of each weight, as `unpacked` reads them."""
    return b"".join(_ROW.pack(digest, size, _NUMBERS[dtype]) for digest, size, dtype in rows)


def unpacked(data: Buffer) -> tuple[Row, ...]:
    """Raises ValueError for what are no weights of one model."""
    count, rest = divmod(memoryview(data).nbytes, _ROW.size)
    if rest or count > DEFAULT_LIMITS.max_weights:
        raise ValueError(f"{count} weights and {rest} bytes")
    # Column by column: a loop over thousands would keep everybody waiting for milliseconds.
    digests, sizes, numbers = zip(*_ROW.iter_unpack(data), strict=True) if count else ((), (), ())
    if max(numbers, default=0) >= len(_DTYPES) or max(sizes, default=0) > MAX_WEIGHT_BYTES:
        raise ValueError(f"a weight of {max(sizes)} bytes, or of dtype {max(numbers)}")
    if any(map(operator.mod, sizes, map(_ITEM_BYTES.__getitem__, numbers))):
        raise ValueError("a weight that ends within an element")
    # A blob has one size: of two, one would be counted, and the other written.
    if len(set(zip(digests, sizes, strict=True))) != len(set(digests)):
        raise ValueError("one digest of two sizes")
    return tuple(zip(digests, sizes, map(_DTYPES.__getitem__, numbers), strict=True))
