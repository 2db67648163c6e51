"""Takes large WebSocket frames piece by piece, so that none keeps the event loop when it is whole.

aiohttp joins, copies and unmasks a frame at once when its last byte is there: milliseconds for each
megabyte. Here it is decrypted, or read, into its own memory and unmasked there as it comes, and
aiohttp sees a ticket instead, which keeps the frame's place among the others. What is not a large,
masked, binary, unfragmented frame goes by as it is.
"""

from __future__ import annotations

import secrets
from collections import deque

import numpy

from ionn_edge.pages import Pages, pages
from wire.masking import Mask
from wire.messages import Buffer

# Of smaller ones aiohttp's copies cost less than a ticket does.
LARGE_BYTES = 64 << 10
# As much as a chunk may have: the C library mostly has its memory from the last one, where pages
# would be new.
REUSED_BYTES = 1 << 20
# What is read at once between large frames: of the next one's beginning too.
ROOM_BYTES = 64 << 10
_HEADER_BYTES = 14
_FINAL, _BINARY, _MASKED_64 = 0x80, 0x82, 0xFF
_TICKET_BYTES = 16
_NONE = numpy.empty(0, numpy.uint8)


class Pieces:
    """One connection's large frames: in by `room` and `came`, out by `claim`.

    most_bytes: of a frame; for aiohttp to refuse what has more.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        # No client can know it, so that none can claim what is not there.
        self._ticket = secrets.token_bytes(_TICKET_BYTES)
        self._whole: deque[memoryview] = deque()
        self._header = b""
        # Parts of messages that went by, and are nothing that anybody could count by itself.
        self.fragments = 0
        # Of the frame that goes by.
        self._passing_bytes = 0
        self._frame = _NONE
        self._at = 0
        self._mask = Mask(bytes(4))
        self._room = memoryview(bytearray(ROOM_BYTES))

    @property
    def waiting(self) -> bool:
        """Whether a whole one has not been claimed."""
        return bool(self._whole)

    @property
    def missing_bytes(self) -> int:
        """Of the frame that what was fed ends in."""
        return self._passing_bytes or self._frame.size - self._at

    def room(self) -> memoryview:
        """Where the next bytes go: within a large frame, the rest of it."""
        return self._frame[self._at :].data if self._frame.size else self._room

    def came(self, count: int) -> bytes:
        """So many bytes are in the room; what aiohttp is to see of them."""
        if not self._frame.size:
            return self._feed(self._room[:count])
        self._unmask(self._frame[self._at : self._at + count])
        return self._ticket_if_whole()

    def _feed(self, data: memoryview) -> bytes:
        if self._passing_bytes >= len(data) and not self._header:
            # By far the most: within a frame that goes by.
            self._passing_bytes -= len(data)
            return bytes(data)
        seen: list[bytes] = []
        at = 0
        while at < len(data):
            if self._frame.size:
                count = min(len(data) - at, self.missing_bytes)
                self._unmask(numpy.frombuffer(data[at : at + count], numpy.uint8))
                seen.append(self._ticket_if_whole())
            elif self._passing_bytes:
                count = min(len(data) - at, self._passing_bytes)
                self._passing_bytes -= count
                seen.append(bytes(data[at : at + count]))
            else:
                header = bytes(data[at : at + _HEADER_BYTES - len(self._header)])
                count = self._begin(header, seen)
            at += count
        return b"".join(seen)

    def _begin(self, data: bytes, seen: list[bytes]) -> int:
        """Read a header as far as it is there; how many bytes of `data` are its."""
        header = self._header + data
        size = header_bytes(header)
        if size is None or len(header) < size:
            self._header = header
            return len(data)
        length = payload_bytes(header)
        used = size - len(self._header)
        self._header = b""
        self.fragments += header[0] < _FINAL
        large = header[0] == _BINARY and header[1] == _MASKED_64
        if large and LARGE_BYTES < length <= self._most_bytes:
            self._frame, self._at = _room(length), 0
            self._mask = Mask(header[size - 4 : size])
        else:
            seen.append(header[:size])
            self._passing_bytes = length
        return used

    def _unmask(self, came: Pages) -> None:
        """Into its place, where it may be already."""
        end = self._at + came.size
        self._mask.apply(came, self._at, self._frame[self._at : end])
        self._at = end

    def _ticket_if_whole(self) -> bytes:
        if self._at < self._frame.size:
            return b""
        self._whole.append(self._frame.data)
        self._frame, self._at = _NONE, 0
        return bytes((_BINARY, len(self._ticket))) + self._ticket

    def claim(self, data: Buffer) -> Buffer:
        """A frame as aiohttp gives it: the large one in place of its ticket."""
        if len(data) == _TICKET_BYTES and data == self._ticket and self._whole:
            return self._whole.popleft()
        return data


def _room(size: int) -> Pages:
    return pages(size) if size > REUSED_BYTES else numpy.empty(size, numpy.uint8)


def header_bytes(start: bytes) -> int | None:
    """Length of the header that begins so (RFC 6455, section 5.2), None if that is to come."""
    if len(start) < 2:
        return None
    return 2 + {126: 2, 127: 8}.get(start[1] & 0x7F, 0) + (start[1] >> 7) * 4


def payload_bytes(header: bytes) -> int:
    """Length of what follows a whole header."""
    size = header[1] & 0x7F
    if size < 126:
        return size
    return int.from_bytes(header[2 : 4 if size == 126 else 10], "big")
