"""A paired box on loopback within this process, and devices that come to it, written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from typer.testing import CliRunner

from ionn_client import cli
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.doors.door import Door
from ionn_edge.doors.guard import Guard
from ionn_edge.doors.pairing_desk import PairingDesk
from ionn_edge.doors.questions import Questions
from ionn_edge.server import bound, serving
from pairing.exchange import ClientExchange
from pairing.frames import BoxGrant, How, PairingFailed
from pairing.identity import Identity
from pairing.tls import client_context
from tests.ionn_edge.peer import SOON_CLOSED, Peer


@dataclass
class House:
    """A box with its doors open."""

    box: Box
    guard: Guard
    desk: PairingDesk
    door: Door
    port: int

    @property
    def questions(self) -> Any:
        return Questions(self.box, self.guard, self.desk, ("127.0.0.1", self.port)).handlers()

    def url(self, path: str = "/ionn", scheme: str = "https") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@contextlib.asynccontextmanager
async def house(directory: Path, nursery: Any = None, **options: Any) -> AsyncIterator[House]:
    """A paired box with these options of Config, whose workers come from `nursery`."""
    here = {"store": directory / "store", "state": directory / "state", "name": "hall"}
    config = Config(**{**here, "threads": 1, "port": 0, **options})
    guard = Guard(config)
    guard.open()
    desk = PairingDesk(guard, config.name)
    box = Box(config, nursery)
    box.open(paired.device.id for paired in guard.registry.all())
    listener = bound(config.bind, config.port)
    port = listener.getsockname()[1]
    try:
        async with serving(box, listener, guard, desk) as door:
            yield House(box, guard, desk, door, port)
    finally:
        box.close()


async def once_announced(words: str, *command: str) -> str:
    """What `ionn` prints, asked again until it has these words: the house is announced by a process
    of its own, which starts first, and on a busy machine a look can end before it has answered.
    """
    async with asyncio.timeout(60):
        while True:
            found = await asyncio.to_thread(CliRunner().invoke, cli.app, list(command))
            if words in found.output:
                return found.output


class Visitor:
    """A device; once it is paired, it has a token."""

    def __init__(self, name: str = "glasses") -> None:
        self.name = name
        self.identity = Identity.create(name)
        self.token = ""

    @property
    def id(self) -> str:
        return self.identity.fingerprint

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @contextlib.asynccontextmanager
    async def http(self, at: House, shows: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
        """`shows`: whether it shows its certificate. The box's is pinned."""
        pin = at.guard.identity.certificate
        context = client_context(self.identity if shows else None, pin)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
            yield http

    async def pair(self, at: House, password: str | None = None, how: How = "code") -> None:
        """Raises PairingFailed."""
        async with self.at_desk(at) as socket:
            right = at.desk.code if how == "code" else at.desk.secret
            exchange = self.exchange(at, password or right or "", how)
            grant = await granted(socket, exchange)
            await socket.send_bytes(exchange.stored())
            assert exchange.receive(await heard(socket)).done
            assert grant.name == "hall"
            self.token = grant.token

    @contextlib.asynccontextmanager
    async def at_desk(self, at: House) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        async with (
            self.http(at, shows=False) as http,
            http.ws_connect(at.url("/pair"), timeout=SOON_CLOSED) as socket,
        ):
            yield socket

    def exchange(self, at: House, password: str, how: How = "code") -> ClientExchange:
        box = at.guard.identity.fingerprint
        return ClientExchange(self.identity, self.name, box, how, password)

    async def refused(self, at: House, path: str = "/ionn", **headers: str) -> tuple[int, str]:
        """The status and the reason with which an upgrade is refused."""
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        async with (
            self.http(at) as http,
            http.get(at.url(path), headers={**upgrade, **self.headers, **headers}) as answer,
        ):
            return answer.status, await answer.text()


async def granted(socket: aiohttp.ClientWebSocketResponse, exchange: ClientExchange) -> BoxGrant:
    """All frames until there is something to store. Raises PairingFailed."""
    said: bytes | None = exchange.start()
    while True:
        if said is not None:
            await socket.send_bytes(said)
        step = exchange.receive(await heard(socket))
        if isinstance(step.store, BoxGrant):
            return step.store
        said = step.send


async def heard(socket: aiohttp.ClientWebSocketResponse) -> bytes:
    """The next frame. Raises PairingFailed if there is none."""
    said = await socket.receive(60)
    if said.type is not aiohttp.WSMsgType.BINARY:
        raise PairingFailed("closed", ours=False)
    return bytes(said.data)


class Paired(Peer):
    """A connection of a paired device."""

    def __init__(self, visitor: Visitor, at: House) -> None:
        super().__init__(at.url())
        self._visitor = visitor
        self._house = at

    async def __aenter__(self) -> Paired:
        self._open = contextlib.AsyncExitStack()
        self._http = await self._open.enter_async_context(self._visitor.http(self._house))
        self.socket = await self._http.ws_connect(
            self._house.url(),
            headers=self._visitor.headers,
            compress=0,
            max_msg_size=1 << 28,
            timeout=SOON_CLOSED,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self._open.aclose()


@contextlib.asynccontextmanager
async def two_devices(
    directory: Path, nursery: Any, **options: Any
) -> AsyncIterator[tuple[House, Visitor, Visitor]]:
    async with house(directory, nursery, announce=False, **options) as at:
        visitors = Visitor("glasses"), Visitor("watch")
        for visitor in visitors:
            await visitor.pair(at)
        yield at, *visitors


def wrong(code: str) -> str:
    """A code that can be one, and is another."""
    from pairing.uri import new_code

    other = new_code()
    return other if other != code else wrong(code)


TLS_ERRORS = (ssl.SSLError, aiohttp.ClientError, ConnectionError)
