"""Large frames are what aiohttp would have sent."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, WSMsgType, web
from aiohttp.test_utils import TestServer

from ionn_client.boxes.connection import Connection
from ionn_client.boxes.large_frames import LargeFrames, masked
from tests.ionn_edge.test_frames import frame
from wire import Decoder, messages

SIZES = (0, 1, 125, 126, 16_383, 16_384, 65_535, 65_536, 1_000_003)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", [b"", b"h", b"hea", b"header", bytes(range(40))])
def test_head_and_payload_are_one_masked_frame(size: int, head: bytes) -> None:
    payload, mask = random.Random(size).randbytes(size), b"\xa1\x02\x7f\xfe"
    assert masked(head, memoryview(payload), mask) == frame(head + payload, mask)


async def test_frames_of_all_sizes_arrive_in_their_order() -> None:
    heard: list[messages.Message | None] = []
    sizes = (10, 300_000, 5, 700_000, 100)

    async def listens(request: web.Request) -> web.WebSocketResponse:
        answer, decoder = web.WebSocketResponse(max_msg_size=1 << 20), Decoder()
        await answer.prepare(request)
        async for each in answer:
            assert each.type is WSMsgType.BINARY
            heard.append(decoder.feed(each.data))
        return answer

    app = web.Application()
    app.router.add_get("/", listens)
    async with TestServer(app) as server, ClientSession() as http:
        opened = await http.ws_connect(server.make_url("/"))
        assert LargeFrames.of(opened) is not None, "aiohttp shows its transport no more"
        connection = Connection(opened)
        ready = asyncio.Event()
        conversing = asyncio.create_task(connection.converse(ready.set, lambda _: True))
        await ready.wait()
        payloads = [random.Random(size).randbytes(size) for size in sizes]
        for payload in payloads:
            connection.send(messages.Chunk(payload))
        connection.flush()
        connection.close()
        assert await conversing == "closed"
    assert heard == [messages.Chunk(payload) for payload in payloads]


class Taking:
    """A transport, with its protocol, that takes whatever is written."""

    def __init__(self, closing: bool = False) -> None:
        self.parts: list[bytes | memoryview] = []
        self._closing = closing

    def is_closing(self) -> bool:
        return self._closing

    def write(self, part: bytes | memoryview) -> None:
        self.parts.append(part)

    async def _drain_helper(self) -> None: ...


async def test_no_two_frames_have_the_same_mask() -> None:
    taking = Taking()
    for _ in range(2):
        await LargeFrames(taking, taking).send(b"", bytes(100))
    assert taking.parts[0] != taking.parts[1]


async def test_a_connection_that_closes_takes_nothing_more() -> None:
    taking = Taking(closing=True)
    with pytest.raises(aiohttp.ClientConnectionResetError):
        await LargeFrames(taking, taking).send(b"", bytes(100))
    assert not taking.parts


def test_where_aiohttp_hides_what_it_writes_to_it_sends_itself() -> None:
    hidden: Any = object()
    assert LargeFrames.of(hidden) is None
