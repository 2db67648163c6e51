"""Large frames go out in slices: whole, in order, and with nothing in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from ionn_edge.doors.frames import Pieces
from ionn_edge.doors.pace import SLICE_BYTES, Pace, PacedSocket
from ionn_edge.outbox import Outbox
from wire import DEFAULT_LIMITS, Decoder, messages
from wire.messages import Tensor

pytestmark = pytest.mark.asyncio(loop_scope="session")

# More than both sockets' buffers take while nobody reads.
ENDLESS_BYTES = 64 << 20


class _Pace(Pace):
    """Tells when the socket takes no more."""

    full: asyncio.Event

    def pause_writing(self) -> None:
        super().pause_writing()
        self.full.set()


class Edge:
    """One connection, as routes make it; `spent_s` is what it was told to count."""

    def __init__(self) -> None:
        self.came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.over, self.full = asyncio.Event(), asyncio.Event()
        self.socket = PacedSocket(compress=False, autoping=False, timeout=2.0)
        self.spent_s: list[float] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        await self.socket.prepare(request)
        assert request.transport is not None
        self.transport = request.transport
        pieces = Pieces(DEFAULT_LIMITS.max_frame_bytes)
        self.pace = _Pace(self.transport, pieces, self._rest, lambda _came, _missing: 0).attach()
        self.pace.full = self.full
        self.socket.pace = self.pace
        self.came.set_result(None)
        await self.over.wait()
        return self.socket

    def _rest(self, spent_s: float) -> float:
        self.spent_s.append(spent_s)
        return 0.0


@contextlib.asynccontextmanager
async def met() -> AsyncIterator[tuple[Edge, aiohttp.ClientWebSocketResponse]]:
    edge = Edge()
    app = web.Application()
    app.router.add_get("/", edge.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{port}/"
        client = await http.ws_connect(url, autoping=False, compress=0, max_msg_size=1 << 28)
        try:
            await edge.came
            yield edge, client
        finally:
            edge.over.set()
            edge.transport.abort()
            await client.close()
            await runner.cleanup()


@contextlib.asynccontextmanager
async def unread(
    edge: Edge, client: aiohttp.ClientWebSocketResponse, frame: bytes
) -> AsyncIterator[asyncio.Task[None]]:
    """Inside, the client does not read on in a frame that has begun."""
    transport = client._response.connection.transport  # type: ignore[union-attr]
    assert transport is not None
    transport.pause_reading()
    sending = asyncio.create_task(edge.socket.send_bytes(frame))
    await edge.full.wait()
    assert edge.pace.within_frame
    yield sending
    if not transport.is_closing():
        transport.resume_reading()


async def test_frames_of_all_lengths_arrive_in_order() -> None:
    sizes = [10, SLICE_BYTES, SLICE_BYTES + 1, 3, 9 * SLICE_BYTES + 7, 0]
    frames = [os.urandom(size) for size in sizes]
    async with met() as (edge, client):

        async def say() -> None:
            for frame in frames:
                await edge.socket.send_bytes(memoryview(frame))

        saying = asyncio.create_task(say())
        assert [await client.receive_bytes(timeout=20) for _ in frames] == frames
        await saying


async def test_messages_keep_their_order_around_a_large_answer() -> None:
    tensor = Tensor("uint8", (4 << 20,), (0,), os.urandom(4 << 20))
    answer = messages.Result(1, 0, 1, "exact", 0.0, 0.0, 0.0, (tensor,))
    said = [messages.Pong(1, 0.0), answer, messages.Pong(2, 0.0), answer, messages.Pong(3, 0.0)]
    heard: list[messages.Message] = []
    async with met() as (edge, client):
        outbox, decoder = Outbox(edge.socket, edge.transport, DEFAULT_LIMITS), Decoder()
        running = asyncio.create_task(outbox.run())
        for message in said:
            outbox.add(message)
            outbox.flush()
        while len(heard) < len(said):
            message_or_part = decoder.feed(await client.receive_bytes(timeout=20))
            heard += [] if message_or_part is None else [message_or_part]
        outbox.close()
        await client.receive(timeout=20)
        await client.close()
        await running
    assert [type(each) for each in heard] == [type(each) for each in said]
    assert [bytes(each.tensors[0].data) for each in heard if isinstance(each, messages.Result)] == [
        tensor.data,
        tensor.data,
    ]


async def test_others_have_a_turn_between_slices_and_each_counts() -> None:
    turns, slices = 0, 40

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with met() as (edge, client):
        other = asyncio.create_task(others())
        sending = asyncio.create_task(edge.socket.send_bytes(bytes(slices * SLICE_BYTES)))
        await client.receive_bytes(timeout=20)
        await sending
        other.cancel()
        assert turns >= slices
        assert len(edge.spent_s) == 1 + slices
        assert sum(edge.spent_s) > 0


async def test_pings_are_answered_after_the_frame_that_they_came_in() -> None:
    frame = os.urandom(1 << 20) * (ENDLESS_BYTES >> 20)
    async with met() as (edge, client):
        async with unread(edge, client, frame) as sending:
            await edge.socket.pong(b"an earlier one")
            await edge.socket.pong(b"the latest")
        assert await client.receive_bytes(timeout=60) == frame
        answer = await client.receive(timeout=20)
        assert (answer.type, bytes(answer.data)) == (WSMsgType.PONG, b"the latest")
        await sending


async def test_a_goodbye_within_a_frame_is_no_part_of_it() -> None:
    async with met() as (edge, client):
        async with unread(edge, client, bytes(ENDLESS_BYTES)) as sending:
            await edge.socket.close()
            with pytest.raises(ConnectionError):
                await sending
        said = await client.receive(timeout=20)
        assert said.type in (WSMsgType.CLOSED, WSMsgType.ERROR, WSMsgType.CLOSING)


async def test_who_hangs_up_within_a_frame_ends_it() -> None:
    async with met() as (edge, client), unread(edge, client, bytes(ENDLESS_BYTES)) as sending:
        client._response.connection.transport.abort()  # type: ignore[union-attr]
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(20):
                await sending
