"""Frames of a WebSocket are waited for whole, whatever their lengths and however they arrive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_edge.arrivals import LEAST_BYTES, MOST_BYTES, WholeFrames


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Wire:
    def __init__(self) -> None:
        self.link = socket.socket()
        self.receiver = Receiver()
        self.frames = WholeFrames(self.receiver, self.link)

    @property
    def waits_for(self) -> int:
        return self.link.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    with wire.link:
        yield wire


def frame(payload: bytes, *, masked: bool = True) -> bytes:
    size, mask_bit = len(payload), 0x80 * masked
    if size < 126:
        header = bytes([0x82, mask_bit | size])
    elif size < 1 << 16:
        header = bytes([0x82, mask_bit | 126]) + size.to_bytes(2, "big")
    else:
        header = bytes([0x82, mask_bit | 127]) + size.to_bytes(8, "big")
    return header + bytes(4 * masked) + payload


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [5_000, 20_000, 70_000])
def test_the_rest_of_a_frame_is_waited_for(wire: Wire, size: int, masked: bool) -> None:
    whole = frame(bytes(size), masked=masked)
    wire.frames.data_received(whole[:1_448])
    assert wire.waits_for == min(len(whole) - 1_448, MOST_BYTES)
    wire.frames.data_received(whole[1_448:])
    assert wire.waits_for == 1
    assert wire.receiver.data == whole


def test_nothing_is_waited_for_between_frames_or_for_little(wire: Wire) -> None:
    small, large = frame(b"ack"), frame(bytes(10_000))
    wire.frames.data_received(small + small + large)
    assert wire.waits_for == 1
    wire.frames.data_received(large[:-LEAST_BYTES])
    assert wire.waits_for == 1


def test_a_frame_that_says_it_is_endless_is_read_piece_by_piece(wire: Wire) -> None:
    wire.frames.data_received(b"\x82\xff" + b"\xff" * 12)
    assert wire.waits_for == MOST_BYTES


def test_a_closed_socket_is_no_error(wire: Wire) -> None:
    wire.link.close()
    wire.frames.data_received(frame(bytes(10_000))[:100])
    assert len(wire.receiver.data) == 100


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=5), st.data())
def test_however_bytes_arrive_frames_end_where_they_end(
    sizes: list[int], data: st.DataObject
) -> None:
    stream = b"".join(frame(bytes(size)) for size in sizes)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    wire = Wire()
    with wire.link:
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
            if stop > start:
                wire.frames.data_received(stream[start:stop])
        assert wire.receiver.data == stream
        assert wire.waits_for == 1
        wire.frames.data_received(frame(bytes(9_000))[:1_000])
        assert wire.waits_for == len(frame(bytes(9_000))) - 1_000
