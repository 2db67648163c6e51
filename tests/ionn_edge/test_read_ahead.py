"""What was read with something else comes out whole and in order, however it was read."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_edge.workers.read_ahead import ROOM_BYTES, ReadAhead
from ionn_edge.workers.worker import _Incoming

SIZES = st.lists(st.integers(0, 3 * ROOM_BYTES), min_size=1, max_size=8)


@given(SIZES, st.integers(1, ROOM_BYTES))
def test_what_waits_is_given_in_order_and_once(sizes: list[int], came: int) -> None:
    ahead, whole = ReadAhead(), bytes(number % 251 for number in range(came))
    nothing = memoryview(bytearray())
    ahead.place(nothing)[:came] = whole
    assert not ahead.came(came, nothing)
    given_out = b""
    for size in sizes:
        piece = memoryview(bytearray(size))
        count = ahead.give(piece)
        given_out += piece[:count]
        assert count == min(size, came - len(given_out) + count)
    assert given_out == whole[: len(given_out)]
    assert bool(ahead) == (len(given_out) < came)


@pytest.mark.parametrize("reads_ahead", [False, True])
def test_a_worker_reads_what_was_sent_in_pieces_of_any_size(reads_ahead: bool) -> None:
    sizes = [4, 30, 0, 1_000, 4, ROOM_BYTES, 5 * ROOM_BYTES + 7, 3]
    whole = bytes(number % 253 for number in range(sum(sizes)))
    server, pipe = socket.socketpair()
    with server, pipe:
        sending = threading.Thread(target=server.sendall, args=(whole,))
        sending.start()
        incoming = _Incoming(pipe)
        incoming.ahead.allowed = reads_ahead
        pieces = [bytes(incoming.exactly(size, bytearray)) for size in sizes]
        sending.join()
    assert b"".join(pieces) == whole
    assert list(map(len, pieces)) == sizes


def test_a_job_that_was_read_ahead_is_there_though_the_socket_has_nothing() -> None:
    server, pipe = socket.socketpair()
    with server, pipe:
        incoming = _Incoming(pipe)
        incoming.ahead.allowed = True
        assert not incoming.comes(0)
        server.sendall(b"firstsecond")
        assert incoming.comes(0)
        assert bytes(incoming.exactly(5, bytearray)) == b"first"
        assert incoming.comes(0)
        assert bytes(incoming.exactly(6, bytearray)) == b"second"
        assert not incoming.comes(0)
        server.close()
        with pytest.raises(ConnectionError):
            incoming.exactly(1, bytearray)
