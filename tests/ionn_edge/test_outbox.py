"""What is to be said when the socket has gone before anybody was told, on either kind of loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from ionn_edge.doors.arrivals import LEAST_BYTES, Waking
from ionn_edge.outbox import Outbox
from wire import DEFAULT_LIMITS, messages

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Loop = Callable[[], asyncio.AbstractEventLoop]


async def said_after_the_end(turns: int) -> None:
    said: list[asyncio.Task[None]] = []

    async def say(answer: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        outbox = Outbox(answer, transport, DEFAULT_LIMITS)
        waking = Waking(transport.get_extra_info("socket"))
        transport.abort()
        # As events come between the end of the socket and the task that is told of it.
        for _ in range(turns):
            await asyncio.sleep(0)
        outbox.add(messages.Pong(1, 0.0))
        outbox.add(messages.Pong(2, 0.0))
        outbox.flush()
        waking.wait_for(2 * LEAST_BYTES)
        outbox.close()
        await outbox.run()

    async def serve(request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        assert request.transport is not None
        # Apart: its handler is cancelled with the connection.
        said.append(asyncio.create_task(say(answer, request.transport)))
        await asyncio.shield(said[0])
        return answer

    app = web.Application()
    app.router.add_get("/", serve)
    async with TestServer(app) as server, ClientSession() as http, asyncio.timeout(20):
        async with http.ws_connect(server.make_url("/")) as client:
            await client.receive()
        await said[0]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_messages_for_a_socket_that_is_closed_raise_nothing(loop: Loop, turns: int) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(said_after_the_end(turns))
