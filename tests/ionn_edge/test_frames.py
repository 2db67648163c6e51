"""Large frames come out as they were sent, however the stream was cut, among all others."""

from __future__ import annotations

import random
from typing import Any

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.doors.frames import LARGE_BYTES, Pieces

MOST = 4 * LARGE_BYTES
# Nobody waits for what comes here.
NO_LOOP: Any = None


def masked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(payload: bytes, mask: bytes = b"\1\2\3\4", first: int = 0x82) -> bytes:
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0xFE)) + size.to_bytes(2)
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8)
    return head + mask + masked(payload, mask)


def fed(pieces: Pieces, data: bytes) -> bytes:
    """What aiohttp sees of it, however many reads it takes."""
    seen = b""
    while data:
        room = pieces.room()
        count = min(len(room), len(data))
        room[:count], data = data[:count], data[count:]
        seen += pieces.came(count)
    return seen


class Reading:
    """aiohttp's own reader behind the pieces."""

    def __init__(self) -> None:
        self.pieces = Pieces(MOST)
        self._queue = WebSocketDataQueue(_Never(), 1 << 30, loop=NO_LOOP)
        self._reader = WebSocketReader(self._queue, MOST, False, False)

    def feed(self, data: bytes) -> bool:
        seen = fed(self.pieces, data)
        return bool(seen and self._reader.feed_data(seen)[0])

    def messages(self) -> list[tuple[int, bytes]]:
        buffered = [self._queue._buffer.popleft() for _ in range(len(self._queue._buffer))]
        return [(each.type, bytes(self.pieces.claim(each.data))) for each in map(_first, buffered)]


def _first(entry: Any) -> Any:
    return entry[0] if isinstance(entry[0], tuple) else entry


class _Never:
    _reading_paused = False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


SIZES = st.sampled_from(
    [0, 1, 15, 16, 17, 125, 126, 65_535, 65_536, LARGE_BYTES, LARGE_BYTES + 1, LARGE_BYTES + 7]
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(SIZES, min_size=1, max_size=4),
    st.binary(min_size=4, max_size=4),
    st.integers(0, 1 << 32),
)
def test_frames_come_out_as_they_went_in(sizes: list[int], mask: bytes, seed: int) -> None:
    rng = random.Random(seed)
    payloads = [rng.randbytes(size) for size in sizes]
    stream = b"".join(frame(payload, mask) for payload in payloads)
    reading, at = Reading(), 0
    while at < len(stream):
        count = rng.choice([1, 2, 3, 5, 13, 14, 15, 1000, 1 << 16, 1 << 18])
        assert not reading.feed(stream[at : at + count])
        at += count
    assert [data for _, data in reading.messages()] == payloads


def test_a_large_frame_is_nothing_to_aiohttp_but_a_ticket() -> None:
    pieces, payload = Pieces(MOST), random.Random(1).randbytes(LARGE_BYTES + 3)
    stream = frame(payload)
    assert fed(pieces, stream[:-1]) == b""
    assert (pieces.waiting, pieces.missing_bytes) == (False, 1)
    ticket = fed(pieces, stream[-1:])
    assert len(ticket) < 32
    assert (pieces.waiting, pieces.missing_bytes) == (True, 0)
    assert pieces.claim(ticket[2:]) == payload
    assert not pieces.waiting
    assert pieces.claim(ticket[2:]) == ticket[2:], "a ticket is worth one frame"


@pytest.mark.parametrize("first", [0x81, 0x02, 0x80, 0xC2, 0x88])
def test_what_is_no_whole_binary_frame_goes_by(first: int) -> None:
    stream = frame(bytes(LARGE_BYTES + 1), first=first)
    assert fed(Pieces(MOST), stream) == stream


def test_more_than_may_come_is_aiohttps_to_refuse_before_it_came() -> None:
    head = frame(bytes(LARGE_BYTES + 1))[:2] + (MOST + 1).to_bytes(8) + b"mask"
    assert fed(Pieces(MOST), head) == head
    assert Reading().feed(head), "an error of its own"
    declared = head[:2] + (1 << 62).to_bytes(8) + b"mask"
    assert fed(Pieces(MOST), declared) == declared


def test_others_frames_of_a_tickets_length_are_no_tickets() -> None:
    pieces = Pieces(MOST)
    fed(pieces, frame(bytes(LARGE_BYTES + 1)))
    assert pieces.claim(b"0123456789abcdef") == b"0123456789abcdef"
    assert pieces.waiting
