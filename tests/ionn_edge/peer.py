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
from wire import Decoder, chunks, encode, hello, messages

TIMEOUT_S = 20.0
Answer = TypeVar("Answer", bound=messages.Message)


class Peer:
    """One connection; `async with Peer.connect(url)`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._decoder = Decoder()

    async def __aenter__(self) -> Peer:
        self._http = aiohttp.ClientSession()
        self.socket = await self._http.ws_connect(self._url, compress=0, max_msg_size=1 << 28)
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

    async def upload(self, weight: int, blob: memoryview, chunk_bytes: int = 100) -> None:
        """One weight from its start, chunk by chunk, all acknowledged."""
        for chunk in chunks(weight, blob, chunk_bytes):
            await self.send(chunk)
            ack = await self.hear(messages.ChunkAck)
            assert (ack.weight, ack.held_bytes) == (weight, chunk.offset + len(chunk.payload))
            assert ack.complete == (ack.held_bytes == blob.nbytes)

    async def open(self, graph: LayerGraph, weights: dict[str, torch.Tensor]) -> None:
        """Greet, offer, upload everything that is missing."""
        await self.greet()
        have = await self.offer(graph)
        for number, blob in enumerate(blobs(graph, weights)):
            if have.held_bytes[number] < blob.nbytes:
                await self.upload(number, blob)

    async def run(self, query: int, start: int, stop: int, live: Sequence[torch.Tensor]) -> Any:
        """Execute a range; its Result and the tensors in it."""
        await self.send(execute(query, start, stop, live))
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


def execute(
    query: int,
    start: int,
    stop: int,
    live: Sequence[torch.Tensor],
    deadline_s: float | None = None,
) -> messages.Execute:
    tensors = tuple(messages.Tensor(*tensor_to_buffer(tensor)) for tensor in live)
    return messages.Execute(query, start, stop, deadline_s, tensors)


def tensors_of(result: messages.Result) -> tuple[torch.Tensor, ...]:
    return tuple(tensor_from_buffer(t.dtype, t.shape, t.order, t.data) for t in result.tensors)


__all__ = ["Peer", "blobs", "chain", "execute", "offer", "tensors_of"]
