"""Connections that have not said who they are: what they cost, and whom they keep out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from ionn_edge.config import Config
from ionn_edge.doors.door import AT_ONCE, HANDSHAKE_S, MOST_BYTES, RESTS_OF_ALL, Door, _household
from pairing.tls import client_context
from tests.ionn_edge.conftest import Serve
from tests.ionn_edge.peer import Peer
from tests.ionn_edge.visitors import House, Visitor, house

ASKED = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@contextlib.asynccontextmanager
async def plain(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def encrypted(at: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = client_context(None, at.guard.identity.certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What is said until the connection ends, however it does."""
    said = b""
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while part := await reader.read(4096):
                said += part
    return said


async def uses(visitor: Visitor, at: House) -> None:
    """A paired device gets in."""
    async with (
        visitor.http(at) as http,
        http.ws_connect(at.url(), headers=visitor.headers) as opened,
    ):
        assert not opened.closed


@pytest.mark.skipif(not hasattr(socket, "TCP_DEFER_ACCEPT"), reason="the kernel's to know")
async def test_who_says_nothing_is_the_kernels_and_no_guest(tmp_path: Path) -> None:
    async with house(tmp_path) as at, contextlib.AsyncExitStack() as crowd:
        silent = [await crowd.enter_async_context(plain(at.port)) for _ in range(10)]
        async with encrypted(at) as (reader, writer):
            writer.write(ASKED + b"\r\n")
            # It came last, and is answered first.
            assert (await rest(reader)).startswith(b"HTTP/1.1 200")
        assert len(at.door.guests) <= 1
        # Who speaks at last is let in.
        reader, writer = silent[0]
        writer.write(ASKED + b"\r\n")
        assert b"speaks TLS only" in await rest(reader)


async def test_a_thousand_that_say_nothing_keep_no_paired_device_out(tmp_path: Path) -> None:
    glasses = Visitor()
    async with house(tmp_path) as at:
        await glasses.pair(at)
        before = len(os.listdir("/proc/self/fd"))
        crowd: list[socket.socket] = []
        try:
            for count in range(1000):
                link = socket.socket()
                link.setblocking(False)
                # Every address of 127/8 is this machine: a crowd of ten.
                link.bind((f"127.0.1.{count % 10}", 0))
                await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", at.port))
                # Only their descriptors are counted here, and this process has a limit, too.
                if count % 10 == 9:
                    crowd.append(link)
                else:
                    link.close()
            await uses(glasses, at)
            assert len(at.door.guests) <= at.box.config.max_guests
            ends = len(os.listdir("/proc/self/fd")) - before - len(crowd)
            assert ends <= at.box.config.max_guests + 10
        finally:
            for link in crowd:
                link.close()


async def test_one_address_crowds_out_itself_first(tmp_path: Path) -> None:
    async with (
        house(tmp_path, max_guests=6, max_guests_per_address=4) as at,
        encrypted(at) as (reader, writer),
        contextlib.AsyncExitStack() as crowd,
    ):
        for _ in range(20):
            link = crowd.enter_context(socket.socket())
            link.setblocking(False)
            link.bind(("127.0.0.9", 0))
            await asyncio.get_running_loop().sock_connect(link, ("127.0.0.1", at.port))
        writer.write(ASKED + b"\r\n")
        assert b"an IONN edge box" in await rest(reader)
        assert sum(guest.household == "127.0.0.9" for guest in at.door.guests) <= 4


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_who_does_not_finish_the_handshake_is_let_go(tmp_path: Path, said: bytes) -> None:
    async with house(tmp_path, handshake_timeout_s=0.1) as at, plain(at.port) as (reader, writer):
        writer.write(said)
        assert await rest(reader) == b""
        assert len(at.door.guests) <= 1


@pytest.mark.parametrize("said", [b"", b"GET", ASKED, ASKED + b"X: y\r\n"])
async def test_who_does_not_finish_asking_is_let_go(tmp_path: Path, said: bytes) -> None:
    async with (
        house(tmp_path, request_timeout_s=0.1) as at,
        encrypted(at) as (reader, writer),
    ):
        writer.write(said)
        assert await rest(reader) == b""
        assert len(at.door.guests) <= 1


@pytest.mark.parametrize(
    "header", [b"X: " + b"y" * 9000, b"\r\n".join(b"X%d: y" % n for n in range(200))]
)
async def test_large_headers_are_refused_and_fill_no_log(
    tmp_path: Path, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as at, encrypted(at) as (reader, writer):
        writer.write(ASKED + header + b"\r\n\r\n")
        assert (await rest(reader)).startswith(b"HTTP/1.0 400")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_who_says_too_much_is_cut_off(tmp_path: Path) -> None:
    async with house(tmp_path) as at, encrypted(at) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + bytes(MOST_BYTES))
        await rest(reader)
        assert len(at.door.guests) <= 1


@pytest.mark.parametrize("said", [b"\x16\x03\x01" + bytes(500), b"\x16" * 5000])
async def test_what_is_no_handshake_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    async with house(tmp_path) as at:
        async with plain(at.port) as (reader, writer):
            writer.write(said)
            # An alert at most.
            assert len(await rest(reader)) < 10
        async with encrypted(at) as (reader, writer):
            writer.write(ASKED + b"\r\n")
            assert b"200 OK" in await rest(reader)


async def test_plain_http_to_a_paired_box_is_told_so(tmp_path: Path) -> None:
    async with house(tmp_path) as at, plain(at.port) as (reader, writer):
        writer.write(b"GET /ionn HTTP/1.1\r\n\r\n")
        answer = await rest(reader)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"speaks TLS only" in answer


async def test_tls_to_an_unpaired_box_is_told_so(serve: Serve) -> None:
    async with serve() as (_, url):
        port = int(url.split(":")[2].partition("/")[0])
        with pytest.raises(ssl.SSLError, match="WRONG_VERSION_NUMBER"):
            await asyncio.open_connection("127.0.0.1", port, ssl=client_context(None, None))
        async with plain(port) as (reader, writer):
            writer.write(b"\x16\x03\x01\x02\x00")
            assert b"unpaired and does not speak TLS" in await rest(reader)


async def test_older_tls_is_not_spoken(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        context = client_context(None, at.guard.identity.certificate)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", at.port, ssl=context)


async def test_who_is_admitted_is_no_guest_any_more(serve: Serve) -> None:
    async with (
        serve(request_timeout_s=0.1, max_guests_per_address=1) as (box, url),
        contextlib.AsyncExitStack() as open_here,
        aiohttp.ClientSession() as http,
    ):
        peer = await admitted(url, open_here)
        for _ in range(3):
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url.removesuffix("/ionn")) as answer:
                    assert answer.status == 200
        await asyncio.sleep(0.2)
        await peer.greet()
        assert len(box.clients) == 1


async def admitted(url: str, open_here: contextlib.AsyncExitStack) -> Peer:
    """A busy machine may need more than a guest's time to let one in."""
    while True:
        with contextlib.suppress(aiohttp.ClientError):
            return await open_here.enter_async_context(Peer(url))


def test_addresses_of_one_customer_count_together() -> None:
    assert _household("192.0.2.7") == _household("::ffff:192.0.2.7") == "192.0.2.7"
    assert _household("2001:db8::1") == _household("2001:db8::ffff:1%eth0") == "2001:db8::/64"
    assert _household("2001:db8:0:1::1") != _household("2001:db8::1")


@dataclass
class Line:
    """Addresses whose turn has come, of those that stand in line at a door."""

    door: Door
    had: list[str] = field(default_factory=list)

    async def stand(self, household: str) -> None:
        await self.door.turn(household)
        self.had.append(household)


async def test_a_flood_of_handshakes_of_one_address_keeps_no_other_waiting() -> None:
    line = Line(Door(Config(), asyncio.Protocol))
    flood = [asyncio.create_task(line.stand("a")) for _ in range(200)]
    await asyncio.sleep(0)
    await line.stand("b")
    assert line.had.index("b") < 5
    for each in flood:
        each.cancel()


async def test_many_addresses_are_let_in_one_after_the_other_with_rests() -> None:
    line = Line(Door(Config(), asyncio.Protocol))
    began_s = asyncio.get_running_loop().time()
    await asyncio.gather(*(line.stand(str(number)) for number in range(AT_ONCE + 10)))
    took_s = asyncio.get_running_loop().time() - began_s
    assert took_s > 8 * RESTS_OF_ALL * HANDSHAKE_S


async def test_who_left_before_a_handshake_costs_nobody_a_turn() -> None:
    line = Line(Door(Config(), asyncio.Protocol))
    for _ in range(20):
        flood = [asyncio.create_task(line.stand(f"a{number}")) for number in range(100)]
        await asyncio.sleep(0)
        for each in flood:
            each.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    flood = [asyncio.create_task(line.stand("a")) for _ in range(50)]
    async with asyncio.timeout(60):
        await line.stand("b")
    assert len(line.had) < AT_ONCE + 30
    for each in flood:
        each.cancel()


async def test_who_connects_waits_for_nobody_while_nobody_is_served() -> None:
    line = Line(Door(Config(), asyncio.Protocol, serving=lambda: False))
    async with asyncio.timeout(60):
        # With rests, it would be a minute.
        await asyncio.gather(*(line.stand("a") for _ in range(1000)))
