"""Masks of WebSocket frames (RFC 6455, section 5.3): on and off, by numpy."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

Bytes = NDArray[numpy.uint8]
# What of a mask is laid out, one behind the other; so much is masked in a step, but for one mask.
_LAID_OUT_BYTES = 1 << 16
_MASK_BYTES = 4


class Mask:
    """One frame's, of 4 bytes."""

    def __init__(self, mask: bytes) -> None:
        self._pattern = numpy.frombuffer(mask * (_LAID_OUT_BYTES // _MASK_BYTES), numpy.uint8)

    def apply(self, data: Bytes, at: int, into: Bytes) -> None:
        """To what stands at this place of the payload; `into` may be the same."""
        step = _LAID_OUT_BYTES - _MASK_BYTES
        pattern = self._pattern[at % _MASK_BYTES :]
        for start in range(0, data.size, step):
            piece = data[start : start + step]
            numpy.bitwise_xor(piece, pattern[: piece.size], out=into[start : start + piece.size])
