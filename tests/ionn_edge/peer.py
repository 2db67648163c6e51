"""A client written by hand, message by message, to talk to a real edge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import aiohttp
import msgpack
import torch

from layergraph import LayerGraph, tensor_from_buffer, tensor_to_buffer
from tests.support import blobs, chain
from wire import DTYPE_BYTES, Decoder, encode, hello, messages
from wire.planes import COARSE, FINE, MIDDLE, WHOLE
from wire.segments import encode_segment

TIMEOUT_S = 60.0
Answer = TypeVar("Answer", bound=messages.Message)


# A box that was flooded, or is held up, says no goodbye.
SOON_CLOSED = aiohttp.ClientWSTimeout(ws_close=1.0)


class Peer:
    """One connection; `async with Peer.connect(url)`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._decoder = Decoder()

    async def __aenter__(self) -> Peer:
        self._http = aiohttp.ClientSession()
        try:
            self.socket = await self._http.ws_connect(
                self._url, compress=0, max_msg_size=1 << 28, timeout=SOON_CLOSED
            )
        except BaseException:
            await self._http.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()
        await self._http.close()

    async def send(self, *said: messages.Message) -> None:
        for message in said:
            for frame in encode(message):
                await self.socket.send_bytes(frame)

    async def hear(self, of: type[Answer]) -> Answer:
        """The next message, which must be of this type."""
        message = await self._hear()
        while isinstance(message, messages.Ping) and not isinstance(message, of):
            # On a busy machine this side may have been silent for so long that it is asked.
            message = await self._hear()
        assert isinstance(message, of), message
        return message

    async def heard_close(self) -> int | None:
        """Until the edge has closed; its WebSocket close code."""
        async with asyncio.timeout(TIMEOUT_S):
            frame = await self.socket.receive()
        assert frame.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), frame
        return self.socket.close_code

    async def fails_with(self, code: str, *said: messages.Message) -> str:
        """Say something that ends the connection; the error's text."""
        await self.send(*said)
        error = await self.hear(messages.Error)
        assert (error.code, error.query) == (code, None), error
        assert await self.heard_close() == 1000
        return error.text

    async def greet(self) -> messages.Welcome:
        await self.send(hello("test"))
        return await self.hear(messages.Welcome)

    async def offer(self, graph: LayerGraph) -> messages.Have:
        await self.send(offer(graph))
        return await self.hear(messages.Have)

    async def ask(self, graph: LayerGraph) -> messages.Have | messages.Unknown:
        """Offer by fingerprint alone."""
        await self.send(messages.Offer(graph.fingerprint, b""))
        answer = await self._hear()
        assert isinstance(answer, messages.Have | messages.Unknown), answer
        return answer

    async def upload(
        self,
        weight: int,
        blob: memoryview,
        plane: int = WHOLE,
        start: int = 0,
        stop: int | None = None,
        step: int = 25,
        coding: str = "raw",
    ) -> messages.Held:
        """Elements of a float32 weight's plane, segment by segment, all acknowledged."""
        stop = blob.nbytes // DTYPE_BYTES["float32"] if stop is None else stop
        for first in range(start, stop, step):
            count = min(step, stop - first)
            said = segment(weight, blob, first, count, plane, coding)
            await self.send(*said)
            for _ in said[1:]:
                await self.hear(messages.ChunkAck)
            held = await self.hear(messages.Held)
            assert (held.weight, held.plane, held.count) == (weight, plane, first + count)
        return held

    async def open(self, graph: LayerGraph, weights: dict[str, torch.Tensor]) -> None:
        """Greet, offer, upload everything that is missing, which is nothing or whole."""
        await self.greet()
        await self.open_offered(graph, weights)

    async def open_offered(self, graph: LayerGraph, weights: dict[str, torch.Tensor]) -> None:
        """The same after the greeting."""
        missing = lacking(await self.offer(graph))
        for number, blob in enumerate(blobs(graph, weights)):
            if number in missing:
                assert (await self.upload(number, blob, step=64)).complete

    async def run(
        self,
        query: int,
        start: int,
        stop: int,
        live: Sequence[torch.Tensor],
        precision: str = "exact",
    ) -> Any:
        """Execute a range; its Result and the tensors in it."""
        await self.send(execute(query, start, stop, live, precision=precision))
        result = await self.hear(messages.Result)
        assert (result.query, result.start) == (query, start)
        return result, tensors_of(result)

    async def _hear(self) -> messages.Message:
        while True:
            async with asyncio.timeout(TIMEOUT_S):
                frame = await self.socket.receive()
            assert frame.type is aiohttp.WSMsgType.BINARY, frame
            message = self._decoder.feed(frame.data)
            if message is not None:
                return message


def offer(graph: LayerGraph) -> messages.Offer:
    return messages.Offer(graph.fingerprint, msgpack.packb(graph.to_plain()))


def segment(
    weight: int,
    blob: memoryview,
    start: int,
    count: int,
    plane: int = WHOLE,
    coding: str = "raw",
    chunk_bytes: int = 40,
    dtype: str = "float32",
) -> list[messages.Message]:
    """A segment and its chunks."""
    payload = encode_segment(dtype, plane, blob, start, count, coding)
    announced = messages.Segment(weight, plane, start, count, coding, payload.nbytes)
    chunks = range(0, payload.nbytes, chunk_bytes)
    return [announced, *(messages.Chunk(payload[at : at + chunk_bytes]) for at in chunks)]


def lacking(have: messages.Have) -> set[int]:
    """Weights that are not held."""
    missing: set[int] = set()
    first = 0
    for place, length in enumerate(have.runs):
        if place % 2 == 0:
            missing.update(range(first, first + length))
        first += length
    return missing


def partial(have: messages.Have) -> list[tuple[int, int, int]]:
    """(weight, plane, count) of what is held of lacking weights."""
    return [(each.weight, each.plane, each.count) for each in have.partial]


def execute(
    query: int,
    start: int,
    stop: int,
    live: Sequence[torch.Tensor],
    deadline_s: float | None = None,
    precision: str = "exact",
    reply_coding: str = "raw",
) -> messages.Execute:
    tensors = tuple(messages.Tensor(*tensor_to_buffer(tensor)) for tensor in live)
    return messages.Execute(query, start, stop, deadline_s, precision, reply_coding, tensors)


def tensors_of(result: messages.Result) -> tuple[torch.Tensor, ...]:
    return tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in result.tensors)


__all__ = [
    "COARSE", "FINE", "MIDDLE", "WHOLE", "Peer", "blobs", "chain", "execute", "lacking", "offer",
    "partial", "segment", "tensors_of",
]  # fmt: skip
