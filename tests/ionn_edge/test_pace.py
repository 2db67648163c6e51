"""A connection is read in slices: what comes is handed on, and pauses are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ionn_edge.doors.frames import LARGE_BYTES, Pieces
from ionn_edge.doors.pace import SMALL_BYTES, Pace
from tests.ionn_edge.test_frames import frame

# What goes by, and takes longer than a turn.
SLICE = 4 * frame(b"x" * LARGE_BYTES)

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Inner(asyncio.Protocol):
    def __init__(self) -> None:
        self.seen = b""
        self._reading_paused = False

    def data_received(self, data: bytes) -> None:
        self.seen += data


class Wire(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.protocol: Any = Inner()
        self.reading = True

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def arrive(self, data: bytes) -> None:
        while data:
            room = self.protocol.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count], data = data[:count], data[count:]
            self.protocol.buffer_updated(count)


def paced(rest_s: float) -> tuple[Wire, Inner, Pace]:
    wire = Wire()
    inner = wire.protocol
    pace = Pace(wire, Pieces(64 << 20), lambda _: rest_s, lambda _came, _missing: 0).attach()
    return wire, inner, pace


async def test_after_a_slice_comes_a_pause() -> None:
    wire, inner, _ = paced(rest_s=0.0)
    wire.arrive(SLICE)
    assert inner.seen == SLICE
    assert not wire.reading
    await asyncio.sleep(0.01)
    assert wire.reading


async def test_a_pause_is_kept_though_others_resume() -> None:
    wire, _, pace = paced(rest_s=60.0)
    wire.arrive(SLICE)
    wire.resume_reading()
    wire.arrive(frame(b"x" * SMALL_BYTES))
    assert not wire.reading
    pace.connection_lost(None)


async def test_who_is_full_is_not_resumed() -> None:
    wire, inner, _ = paced(rest_s=0.0)
    inner._reading_paused = True
    wire.arrive(SLICE)
    await asyncio.sleep(0.01)
    assert not wire.reading


async def test_nothing_is_read_while_a_large_frame_is_unclaimed() -> None:
    wire, inner, pace = paced(rest_s=0.0)
    wire.arrive(frame(b"x" * (LARGE_BYTES + 1)))
    await asyncio.sleep(0.01)
    assert not wire.reading, "or a client could fill memory with whole ones"
    assert pace.claim(inner.seen[2:]) == b"x" * (LARGE_BYTES + 1)
    assert wire.reading


async def test_small_messages_are_not_paused_for() -> None:
    wire, inner, _ = paced(rest_s=60.0)
    for _ in range(100):
        wire.arrive(frame(b"ping"))
    assert wire.reading
    assert inner.seen == frame(b"ping") * 100


async def test_fragments_that_are_no_message_count() -> None:
    wire, _, pace = paced(rest_s=60.0)
    wire.arrive(frame(b"", first=0x02) + frame(b"", first=0x00))
    assert not wire.reading
    pace.connection_lost(None)
