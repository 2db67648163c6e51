"""What IONN's link is measured against: one plain connection, a bare echo, and gRPC.

    python benchmarks/baselines.py --bind 127.0.0.1     # serves both; prints their ports as JSON

A query is some bytes up and ANSWER_BYTES down; an upload is confirmed when the server has it all.
`Naive` is what one writes first: frames over one asyncio stream with its default buffers, queries
first in user space. `Echo` is the least that a query can cost, `EncryptedEcho` the least with the
encryption that a paired edge has, `IsolatedEcho` with the layers in a process of their own too
(isolated.py). gRPC (asyncio, one channel) sends
the upload as a stream and queries as unary calls; no protobuf on either side.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol, Self

from isolated import ANSWER_BYTES, Isolated

from pairing.identity import Identity
from pairing.tls import client_context, server_context

try:
    import grpc
except ImportError:  # A development dependency.
    grpc = None

PIECE_BYTES = 65_536
HEADER = struct.Struct("!BII")  # kind, number, bytes that follow
BULK, LAST, QUERY, ANSWER = range(4)
QUERY_METHOD, BULK_METHOD = "/link/query", "/link/bulk"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


class Contender(Protocol):
    """Queries and uploads over one connection."""

    async def query(self, payload: bytes) -> None:
        """Until the answer is there."""

    async def upload(self, size: int) -> None:
        """Until the other side has `size` bytes."""

    async def close(self) -> None: ...


class Echo:
    """A bare asyncio stream: one query at a time, nothing else."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await _stream(host, port))

    async def query(self, payload: bytes) -> None:
        self._writer.write(HEADER.pack(QUERY, 0, len(payload)))
        self._writer.write(payload)
        await self._writer.drain()
        await self._reader.readexactly(HEADER.size + ANSWER_BYTES)

    async def close(self) -> None:
        await _end(self._writer)


class EncryptedEcho(Echo):
    """The same over TLS 1.3. Whose the server is does not matter here."""

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await _stream(host, port, client_context(None, None)))


class IsolatedEcho(EncryptedEcho):
    """The same, where the server has another process answer."""


class Naive:
    """One connection for everything: the upload as fast as it takes it, queries before the rest."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._queries: deque[tuple[int, bytes]] = deque()
        self._bulk_bytes = 0
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._wanted = asyncio.Event()
        self._tasks = (asyncio.create_task(self._send()), asyncio.create_task(self._receive()))

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await _stream(host, port))

    async def query(self, payload: bytes) -> None:
        number = next(self._numbers)
        self._queries.append((number, payload))
        await self._answered(number)

    async def upload(self, size: int) -> None:
        self._bulk_number = next(self._numbers)
        self._bulk_bytes = size
        await self._answered(self._bulk_number)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _end(self._writer)

    async def _answered(self, number: int) -> None:
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._wanted.set()
        try:
            await answer
        finally:
            del self._answers[number]

    async def _send(self) -> None:
        piece = bytes(PIECE_BYTES)
        while True:
            await self._wanted.wait()
            if self._queries:
                self._frame(QUERY, *self._queries.popleft())
            elif self._bulk_bytes:
                size = min(self._bulk_bytes, PIECE_BYTES)
                self._bulk_bytes -= size
                kind = BULK if self._bulk_bytes else LAST
                self._frame(kind, self._bulk_number, piece[:size])
            else:
                self._wanted.clear()
            await self._writer.drain()

    def _frame(self, kind: int, number: int, payload: bytes) -> None:
        self._writer.write(HEADER.pack(kind, number, len(payload)))
        self._writer.write(payload)

    async def _receive(self) -> None:
        while True:
            _, number, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            await self._reader.readexactly(size)
            self._answers[number].set_result(None)


class Grpc:
    """gRPC's own asyncio client: one channel, a stream for the upload beside unary queries."""

    def __init__(self, host: str, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"{host}:{port}", options=UNLIMITED)
        self._query = self._channel.unary_unary(QUERY_METHOD)
        self._bulk = self._channel.stream_unary(BULK_METHOD)

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(host, port)

    async def query(self, payload: bytes) -> None:
        await self._query(payload)

    async def upload(self, size: int) -> None:
        await self._bulk(_pieces(size))

    async def close(self) -> None:
        await self._channel.close()


async def _pieces(size: int) -> AsyncIterator[bytes]:
    piece = bytes(PIECE_BYTES)
    for sent in range(0, size, PIECE_BYTES):
        yield piece[: size - sent]


async def _stream(
    host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reader, writer


async def _end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        return  # The server was faster.


# -- the servers --------------------------------------------------------------------------------


async def serve_frames(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    respond: Callable[[bytes], Awaitable[bytes]] | None = None,
) -> None:
    """One connection of an echo or of `Naive`, until it ends. respond: what an answer holds."""
    answer = bytes(ANSWER_BYTES)
    try:
        while True:
            kind, number, size = HEADER.unpack(await reader.readexactly(HEADER.size))
            payload = await reader.readexactly(size)
            if kind in (QUERY, LAST):
                if respond is not None:
                    answer = await respond(payload)
                writer.write(HEADER.pack(ANSWER, number, ANSWER_BYTES) + answer)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        await _end(writer)


async def _answer(_: bytes, __: Any) -> bytes:
    return bytes(ANSWER_BYTES)


async def _swallow(pieces: AsyncIterator[bytes], _: Any) -> bytes:
    async for _piece in pieces:
        pass
    return bytes(ANSWER_BYTES)


async def serve_grpc(bind: str) -> tuple[Any, int]:
    """gRPC's server and its port."""
    server = grpc.aio.server(options=UNLIMITED)
    methods = {
        "query": grpc.unary_unary_rpc_method_handler(_answer),
        "bulk": grpc.stream_unary_rpc_method_handler(_swallow),
    }
    handlers = grpc.method_handlers_generic_handler("link", methods)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port(f"{bind}:0")
    await server.start()
    return server, port


async def _serve(bind: str) -> None:
    frames = await asyncio.start_server(serve_frames, bind, 0)
    ports = {"frames": frames.sockets[0].getsockname()[1]}
    tls = server_context(Identity.create("echo"), ())
    encrypted = await asyncio.start_server(serve_frames, bind, 0, ssl=tls)
    ports["encrypted frames"] = encrypted.sockets[0].getsockname()[1]
    respond = partial(serve_frames, respond=Isolated().run)
    isolated = await asyncio.start_server(respond, bind, 0, ssl=tls)
    ports["isolated frames"] = isolated.sockets[0].getsockname()[1]
    if grpc is not None:
        _server, ports["grpc"] = await serve_grpc(bind)
    print(json.dumps(ports), flush=True)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bind", default="127.0.0.1")
    asyncio.run(_serve(parser.parse_args().bind))


if __name__ == "__main__":
    main()
