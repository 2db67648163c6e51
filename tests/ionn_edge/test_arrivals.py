"""Frames and TLS records are waited for whole, whatever their lengths and however they arrive."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_edge.doors.arrivals import (
    LAST_BYTES,
    LEAST_BYTES,
    MOST_BYTES,
    RECORDS_AT_ONCE,
    WholeRecords,
    frames_awaited,
)
from ionn_edge.doors.frames import Pieces
from pairing.identity import Identity
from pairing.tls import client_context, server_context
from tests.ionn_edge.test_frames import fed


class Wire:
    """A connection in the clear, whose frames are read."""

    def __init__(self) -> None:
        self.link = socket.socket()
        self._pieces = Pieces(64 << 20)
        self._came = frames_awaited(cast(asyncio.Transport, self))

    def get_extra_info(self, name: str) -> object:
        return {"socket": self.link}.get(name)

    def arrive(self, data: bytes) -> None:
        fed(self._pieces, data)
        self._came(len(data), self._pieces.missing_bytes)

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
@pytest.mark.parametrize("size", [5_000, 20_000, 90_000])
def test_the_rest_of_a_frame_is_waited_for(wire: Wire, size: int, masked: bool) -> None:
    whole = frame(bytes(size), masked=masked)
    wire.arrive(whole[:1_448])
    assert wire.waits_for == len(whole) - 1_448
    wire.arrive(whole[1_448:])
    assert wire.waits_for == 1


def test_the_last_of_a_long_frame_is_waited_for_by_itself(wire: Wire) -> None:
    whole = frame(bytes(400_000))
    at, steps = 1_448, list[int]()
    wire.arrive(whole[:at])
    while at < len(whole):
        steps.append(wire.waits_for)
        wire.arrive(whole[at : at + steps[-1]])
        at += steps[-1]
    assert steps == [MOST_BYTES, len(whole) - 1_448 - MOST_BYTES - LAST_BYTES, LAST_BYTES]


def test_nothing_is_waited_for_between_frames_or_for_little(wire: Wire) -> None:
    small, large = frame(b"ack"), frame(bytes(10_000))
    wire.arrive(small + small + large)
    assert wire.waits_for == 1
    wire.arrive(large[:-LEAST_BYTES])
    assert wire.waits_for == 1


def test_a_frame_that_says_it_is_endless_is_read_piece_by_piece(wire: Wire) -> None:
    wire.arrive(b"\x82\xff" + b"\xff" * 12)
    assert wire.waits_for == MOST_BYTES


def test_a_closed_socket_is_no_error(wire: Wire) -> None:
    wire.link.close()
    wire.arrive(frame(bytes(10_000))[:100])


def test_without_a_socket_nothing_is_waited_for() -> None:
    class Nothing:
        def get_extra_info(self, _name: str) -> object:
            return None

    frames_awaited(cast(asyncio.Transport, Nothing()))(1, 10_000)


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
                wire.arrive(stream[start:stop])
        assert wire.waits_for == 1
        wire.arrive(frame(bytes(9_000))[:1_000])
        assert wire.waits_for == len(frame(bytes(9_000))) - 1_000


class Decrypting(asyncio.BufferedProtocol):
    """In the place of encryption: notes what it is handed, and in which pieces."""

    def __init__(self) -> None:
        self.room = bytearray(256 << 10)
        self.pieces: list[bytes] = []
        self.told: Callable[[int], None] = lambda _: None

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.pieces.append(bytes(self.room[:nbytes]))
        self.told(nbytes)


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


def sealed(content: bytes, most: int = 16_384) -> bytes:
    """Records as TLS 1.3 makes them of `content`, each of at most so much of it."""
    parts = [content[at : at + most] for at in range(0, len(content), most)]
    return b"".join(record(len(part) + 17) for part in parts)


def test_the_rest_of_a_frame_is_waited_for_over_several_records(below: Below) -> None:
    came, content = below.records.await_frames(), bytes(60_000)
    stream = sealed(content)
    first = 16_384 + 22
    below.decrypting.told = lambda _: came(16_384, 60_000 - 16_384)
    below.arrive(stream[: first + 3])
    assert below.waits_for == len(stream) - first - 3
    below.decrypting.told = lambda _: came(60_000 - 16_384, 0)
    below.arrive(stream[first + 3 :])
    assert below.waits_for == 1


def test_what_was_not_read_yet_is_not_waited_for_again(below: Below) -> None:
    came, stream = below.records.await_frames(), sealed(bytes(60_000))
    first = 16_384 + 22
    below.decrypting.told = lambda _: came(16_384, 60_000 - 16_384)
    below.arrive(stream[:first])
    # Reading pauses: nobody is told of what is decrypted, or nothing is.
    below.decrypting.told = lambda _: None
    below.arrive(stream[first : 2 * first])
    assert below.waits_for == len(stream) - 2 * first
    below.arrive(stream[2 * first :])
    assert below.waits_for == 1


@settings(deadline=None)
@given(st.integers(1, 200_000), st.integers(4_000, 16_384), st.lists(st.integers(1, 40_000)))
def test_no_more_is_waited_for_than_comes(size: int, most: int, steps: list[int]) -> None:
    below, stream = Below(), sealed(bytes(size), most)
    with below.link:
        came = below.records.await_frames()
        read = at = 0

        def read_on(_nbytes: int) -> None:
            nonlocal read
            whole = min(at // (most + 22) * most, size) if at < len(stream) else size
            if whole > read:
                came(whole - read, size - whole)
                read = whole

        below.decrypting.told = read_on
        for step in [*steps, len(stream)]:
            part = stream[at : at + step]
            at += len(part)
            below.arrive(part)
            assert below.waits_for <= max(len(stream) - at, 1)
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


class Raw:
    """Below the records, as far as they know it."""

    def __init__(self) -> None:
        self.paused = self.closing = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing


SMALL = [record(17 + number % 50, number) for number in range(1000)]


async def flooded(below: Below) -> Raw:
    """In one read more small records than are handed on at once, each read as it is decrypted."""
    raw = Raw()
    records: Any = below.records
    records._raw = raw
    came = below.records.await_frames()
    below.decrypting.told = lambda nbytes: came(nbytes, 0)
    below.arrive(b"".join(SMALL))
    assert raw.paused
    return raw


async def resumed(raw: Raw) -> None:
    for _ in range(len(SMALL)):
        if raw.paused:
            await asyncio.sleep(0)
    assert not raw.paused


async def test_small_records_are_handed_on_some_at_a_time(below: Below) -> None:
    raw = await flooded(below)
    assert below.decrypting.pieces == [b"".join(SMALL[:RECORDS_AT_ONCE])]
    await resumed(raw)
    assert below.decrypting.pieces == [
        b"".join(SMALL[start : start + RECORDS_AT_ONCE])
        for start in range(0, len(SMALL), RECORDS_AT_ONCE)
    ]


async def test_none_is_handed_on_before_those_before_it_were_read(below: Below) -> None:
    raw, came = Raw(), below.records.await_frames()
    records: Any = below.records
    records._raw = raw
    below.arrive(b"".join(SMALL[:RECORDS_AT_ONCE]))
    assert not raw.paused
    # Nobody reads: what comes meanwhile stays where it is, in two steps because it is in two reads.
    below.arrive(SMALL[64][:9])
    below.arrive(SMALL[64][9:] + SMALL[65])
    await asyncio.sleep(0)
    assert raw.paused
    assert below.decrypting.pieces == [b"".join(SMALL[:RECORDS_AT_ONCE])]
    assert came(0, 0) == RECORDS_AT_ONCE
    await asyncio.sleep(0)
    assert not raw.paused
    assert b"".join(below.decrypting.pieces) == b"".join(SMALL[:66])


async def test_what_encryption_reads_meanwhile_comes_behind(below: Below) -> None:
    raw = await flooded(below)
    raw.resume_reading()
    more = [record(90, number) for number in range(100)]
    below.arrive(b"".join(more))
    assert raw.paused
    await resumed(raw)
    assert b"".join(below.decrypting.pieces) == b"".join(SMALL + more)


@pytest.mark.parametrize("seed", range(20))
async def test_however_small_records_arrive_they_come_through_in_order(
    below: Below, seed: int
) -> None:
    draw, raw = random.Random(seed), Raw()
    records: Any = below.records
    records._raw = raw
    came = below.records.await_frames()
    below.decrypting.room = bytearray(draw.choice([2_000, 8_000, 256 << 10]))
    below.decrypting.told = lambda nbytes: came(nbytes, 0)
    stream = b"".join(record(draw.randint(17, 300), number) for number in range(2000))
    at = 0
    while at < len(stream):
        # Encryption may read on, whoever paused.
        if not raw.paused or draw.random() < 0.2:
            size = draw.randint(1, len(below.decrypting.room))
            below.arrive(stream[at : at + size])
            at += size
        await asyncio.sleep(0)
    await resumed(raw)
    assert b"".join(below.decrypting.pieces) == stream


async def test_who_has_gone_is_handed_nothing_more(below: Below) -> None:
    raw = await flooded(below)
    raw.closing = True
    await asyncio.sleep(0)
    assert len(below.decrypting.pieces) == 1


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
