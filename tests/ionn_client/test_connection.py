"""A real connection whose socket has gone before anybody was told, and edges that say too much."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from ionn_client.boxes.access import Access
from ionn_client.boxes.address import EdgeAddress
from ionn_client.boxes.connection import Connection, Priority, hung_up
from ionn_client.machine.flood import AT_ONCE
from wire import encode, messages

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Loop = Callable[[], asyncio.AbstractEventLoop]


async def said_after_the_end(turns: int) -> None:
    async def listens(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for frame in answer:
            assert frame.type is WSMsgType.BINARY
        return answer

    app = web.Application()
    app.router.add_get("/", listens)
    async with TestServer(app) as server, ClientSession() as http:
        opened = await http.ws_connect(server.make_url("/"))
        connection = Connection(opened)
        ready = asyncio.Event()
        conversing = asyncio.create_task(connection.converse(ready.set, lambda _: True))
        await ready.wait()
        opened._conn.transport.abort()  # type: ignore[union-attr]
        # As events come between the end of the socket and the task that is told of it.
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.send(messages.Ping(1))
        connection.send(messages.Ping(2))
        connection.flush()
        connection.give_up_after(1.0)
        connection.prefer(Priority.QUERIES)
        assert await conversing


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_frames_for_a_socket_that_is_closed_raise_nothing(loop: Loop, turns: int) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(said_after_the_end(turns))


LOAD = messages.Load(1, 0, 0, 1.0, 0, 1 << 30, ())
ERROR = messages.Error("execution", "again", 7)
Says = Callable[[web.WebSocketResponse], Awaitable[object]]


@contextlib.asynccontextmanager
async def edge(says: Says) -> AsyncIterator[Connection]:
    """A connection to an edge that says this, and hears nothing."""

    async def talks(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse(autoclose=False)
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            await says(answer)
        return answer

    app = web.Application()
    app.router.add_get("/ionn", talks)
    async with TestServer(app) as server:
        access = Access(EdgeAddress("127.0.0.1", server.port or 0))
        async with access.http() as http:
            yield await Connection.open(http, access)


def endlessly(message: messages.Message) -> Says:
    async def says(answer: web.WebSocketResponse) -> None:
        while True:
            for frame in encode(message):
                await answer.send_bytes(frame)
            await asyncio.sleep(0)

    return says


async def pings(answer: web.WebSocketResponse) -> None:
    while True:
        await answer.ping()
        await asyncio.sleep(0)


async def pongs(answer: web.WebSocketResponse) -> None:
    while True:
        await answer.pong()
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "says",
    [
        *(endlessly(LOAD), endlessly(messages.Ping(1)), endlessly(messages.Pong(1, 0.0))),
        *(endlessly(ERROR), pings, pongs),
    ],
)
async def test_a_flood_is_not_listened_to(says: Says) -> None:
    heard: list[messages.Message] = []
    async with edge(says) as connection:

        def hears(message: messages.Message) -> bool:
            heard.append(message)
            if isinstance(message, messages.Ping):
                # What answers the edge's own question is no question.
                connection.send(messages.Pong(1, 0.0))
            return True

        assert "floods" in await connection.converse(lambda: None, hears)
    assert len(heard) < 2 * AT_ONCE


async def test_answers_are_no_flood_however_many() -> None:
    many = 2 * round(AT_ONCE)

    async def answers(answer: web.WebSocketResponse) -> None:
        for number in range(many):
            for frame in encode(messages.Pong(number, 0.0)):
                await answer.send_bytes(frame)
        await answer.ping()
        await answer.close()

    heard: list[messages.Message] = []
    async with edge(answers) as connection:
        for number in range(many):
            connection.send(messages.Ping(number))
        listening = connection.converse(lambda: None, lambda said: not heard.append(said))
        assert await listening == "the connection ended"
    assert len(heard) == many


async def trickles(answer: web.WebSocketResponse) -> None:
    while True:
        for frame in encode(LOAD):
            await answer.send_bytes(frame)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("ends", [Connection.close, Connection.abort])
async def test_who_talks_on_does_not_keep_the_connection(
    ends: Callable[[Connection], None],
) -> None:
    async with edge(trickles) as connection, asyncio.timeout(60):
        assert await connection.converse(lambda: ends(connection), lambda _: True) == "closed"
        assert connection.ended.is_set()


async def test_a_goodbye_is_not_waited_for_without_end() -> None:
    async with edge(trickles) as connection, asyncio.timeout(60):
        await hung_up(connection._socket)
