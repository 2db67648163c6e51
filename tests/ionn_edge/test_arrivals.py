"""Frames and TLS records are waited for whole, whatever their lengths and however they arrive."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_edge.arrivals import LEAST_BYTES, MOST_BYTES, WholeFrames, WholeRecords
from pairing.identity import Identity
from pairing.tls import client_context, server_context


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


class Decrypting(asyncio.BufferedProtocol):
    """In the place of encryption: notes what it is handed, and in which pieces."""

    def __init__(self) -> None:
        self.room = bytearray(256 << 10)
        self.pieces: list[bytes] = []

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.pieces.append(bytes(self.room[:nbytes]))


class Below:
    def __init__(self) -> None:
        self.link = socket.socket()
        self.decrypting = Decrypting()
        self.records = WholeRecords(self.link)
        self.records._inner = self.decrypting

    def arrive(self, data: bytes) -> None:
        while data:
            room = self.records.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            self.records.buffer_updated(size)
            data = data[size:]

    @property
    def waits_for(self) -> int:
        return self.link.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


@pytest.fixture
def below() -> Iterator[Below]:
    below = Below()
    with below.link:
        yield below


def record(size: int, start: int = 0) -> bytes:
    payload = bytes((start + index) % 251 for index in range(size))
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + payload


def test_a_record_is_handed_on_when_it_is_whole(below: Below) -> None:
    whole = record(16_401)
    below.arrive(whole[:1_448])
    assert below.decrypting.pieces == []
    assert below.waits_for == len(whole) - 1_448
    below.arrive(whole[1_448:])
    assert below.decrypting.pieces == [whole]
    assert below.waits_for == 1


def test_what_is_whole_does_not_wait_for_what_follows(below: Below) -> None:
    query, chunk = record(300), record(16_401, 7)
    below.arrive(query + chunk[:1_000])
    assert below.decrypting.pieces == [query + chunk[:1_000]]
    below.arrive(chunk[1_000:])
    assert b"".join(below.decrypting.pieces) == query + chunk


def test_a_record_of_any_length_that_never_ends_fills_one_buffer_only(below: Below) -> None:
    claimed = b"\x17\x03\x03\xff\xff"
    below.arrive(claimed + bytes(60_000))
    assert below.decrypting.pieces == []
    assert below.waits_for <= MOST_BYTES
    small = Below()
    with small.link:
        small.decrypting.room = bytearray(1_000)
        small.arrive(claimed + bytes(2_500))
        assert [len(piece) for piece in small.decrypting.pieces] == [1_000, 1_000]


@given(st.lists(st.integers(1, 16_640), min_size=1, max_size=5), st.data())
def test_however_bytes_arrive_records_come_through_in_order(
    sizes: list[int], data: st.DataObject
) -> None:
    stream = b"".join(record(size, number) for number, size in enumerate(sizes))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    below = Below()
    with below.link:
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True):
            below.arrive(stream[start:stop])
        assert b"".join(below.decrypting.pieces) == stream
        assert below.waits_for == 1


class Echo(asyncio.Protocol):
    """An encrypted connection's far end. Says back what it hears, and when it was parted."""

    def __init__(self) -> None:
        self.parted = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.parted.set()


BOX, DEVICE = Identity.create("box"), Identity.create("device")


async def served(say: Callable[[tuple[str, int]], asyncio.Task[None]]) -> Echo:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        saying = say(listener.getsockname())
        link, _ = await asyncio.get_running_loop().sock_accept(listener)
        echo = Echo()
        context = server_context(BOX, [DEVICE.certificate])
        try:
            await WholeRecords.serve(link, echo, context, 5.0, 1.0)
            await echo.parted.wait()
        finally:
            await saying
    return echo


async def test_an_encrypted_connection_says_what_it_said_without() -> None:
    said = bytes(range(256)) * 800

    async def client(address: tuple[str, int]) -> None:
        context = client_context(DEVICE, BOX.certificate)
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname="box")
        writer.write(said)
        assert await reader.readexactly(len(said)) == said
        writer.write(b"once more")
        assert await reader.readexactly(9) == b"once more"
        writer.close()
        await writer.wait_closed()

    await served(lambda address: asyncio.create_task(client(address)))


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x40\x00", b"\x16\x03\x01" * 4_000])
async def test_who_is_no_client_costs_an_error(said: bytes) -> None:
    async def client(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    with pytest.raises((ConnectionError, ssl.SSLError)):
        await served(lambda address: asyncio.create_task(client(address)))


async def test_who_hangs_up_before_its_first_bytes_are_read_costs_no_more() -> None:
    async def client(address: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*address)
        link = writer.get_extra_info("socket")
        # Closing takes the connection back, with what it said.
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(b"\x16\x03\x01\x00\x05hello" * 100)
        writer.transport.abort()

    untold: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: untold.append(what))
    for _ in range(20):
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await served(lambda address: asyncio.create_task(client(address)))
    assert untold == []
