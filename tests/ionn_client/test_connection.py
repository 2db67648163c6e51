"""A real connection whose socket has gone before anybody was told."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from ionn_client.connection import Connection
from wire import messages


@pytest.mark.parametrize("turns", range(4))
async def test_frames_for_a_socket_that_is_closed_raise_nothing(turns: int) -> None:
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
        assert await conversing
