"""Attacks on an edge box, each in a process of its own: `python benchmarks/attacks.py NAME ...`.

Some come from strangers, who know an address only; the others from a device that is paired like
any other, and hostile. Runs until it is ended, on what nobody else wants of the processors: a real
attacker brings one of its own. Used by benchmarks/hostile.py.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import logging
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import msgpack
import numpy

from ionn_client.boxes.access import Access
from layergraph import LayerGraph
from layergraph.nodes import Layer, Node, Ref, TensorSpec, Weight, WeightRef
from wire import Decoder, encode, encode_segment, encode_tensor, hello, messages
from wire.messages import Tensor

HALF_OPEN = 1000
TROUBLE = (aiohttp.ClientError, OSError, TimeoutError, ConnectionError, ssl.SSLError)
# Of a device's eight connections, and one is its last query's.
PARALLEL = 6


class Talk:
    """A WebSocket to the edge on which anything may be said."""

    def __init__(self, link: aiohttp.ClientWebSocketResponse) -> None:
        self.link = link
        self._decoder = Decoder()

    async def say(self, *said: messages.Message) -> None:
        for message in said:
            for frame in encode(message):
                await self.link.send_bytes(frame)

    async def hear(self, timeout_s: float = 30.0) -> messages.Message:
        """The next message, but for how busy the box is. Raises ConnectionError where the edge has
        closed."""
        while True:
            frame = await self.link.receive(timeout_s)
            if frame.type is not aiohttp.WSMsgType.BINARY:
                raise ConnectionError("the edge closed the connection")
            message = self._decoder.feed(frame.data)
            if message is not None and not isinstance(message, messages.Load):
                return message

    async def until_closed(self) -> None:
        while True:
            await self.hear()


@asynccontextmanager
async def talk(access: Access) -> AsyncIterator[Talk]:
    """Greeted."""
    # Their timeout is of a whole conversation.
    async with access.http(aiohttp.ClientTimeout(sock_connect=5.0)) as http:
        link = await http.ws_connect(
            access.url("/ionn"), headers=access.headers, ssl=access.tls, compress=0, max_msg_size=0
        )
        async with link:
            talking = Talk(link)
            await talking.say(hello("attacks"))
            await talking.hear()
            yield talking


# Models, made by hand.


def dense(layers: int, width: int, seed: int = 0) -> tuple[LayerGraph, list[bytes]]:
    """A chain of linear layers, and their weights' bytes; zeros for seed 0."""
    rng = numpy.random.default_rng(seed)
    row, spec = TensorSpec("float32", (1, width)), TensorSpec("float32", (width, width))
    blobs = [
        (rng.normal(0, 0.02, (width, width)) * bool(seed) + number * 1e-30 * (not seed))
        .astype("<f4")
        .tobytes()
        for number in range(layers)
    ]
    weights = tuple(
        Weight(f"{number}.weight", spec, hashlib.sha256(blob).digest())
        for number, blob in enumerate(blobs)
    )
    nodes = tuple(
        Node("aten.linear.default", (Ref(at), WeightRef(at)), (), (row,), str(at))
        for at in range(layers)
    )
    each = tuple(Layer(str(at), at, at + 1, (at,)) for at in range(layers))
    return LayerGraph((row,), weights, (), nodes, each, (Ref(layers),)), blobs


def wide(rows: int = 4000) -> LayerGraph:
    """One ReLU of 61 MiB; an answer may have 64."""
    spec = TensorSpec("float32", (rows, rows))
    node = Node("aten.relu.default", (Ref(0),), (), (spec,), "relu")
    return LayerGraph((spec,), (), (), (node,), (Layer("relu", 0, 1, ()),), (Ref(1),))


def offer(graph: LayerGraph) -> messages.Offer:
    return messages.Offer(graph.fingerprint, msgpack.packb(graph.to_plain()))


async def upload(talking: Talk, graph: LayerGraph, blobs: list[bytes]) -> None:
    """Offer, then send every weight that is lacking, each segment awaited."""
    await talking.say(offer(graph))
    have = await talking.hear()
    assert isinstance(have, messages.Have), have
    held = itertools.chain.from_iterable(
        [bool(place % 2)] * length for place, length in enumerate(have.runs)
    )
    for number, (blob, there) in enumerate(zip(blobs, held, strict=True)):
        for start in () if there else range(0, len(blob) // 4, 1 << 16):
            count = min(1 << 16, len(blob) // 4 - start)
            payload = encode_segment("float32", 0, blob, start, count, "planes")
            announced = messages.Segment(number, 0, start, count, "planes", payload.nbytes)
            await talking.say(announced, messages.Chunk(payload))
            while not isinstance(answer := await talking.hear(), messages.Held):
                assert isinstance(answer, messages.ChunkAck), answer


async def nothing(_: Access) -> None:
    """No attack: what the measurement itself makes of a quiet neighbour."""
    await asyncio.sleep(60)


# Attacks by a paired device.


def _declared() -> list[list[bytes]]:
    """Frames that announce much and bring nothing."""
    mebi = 1 << 20
    tensor = ["uint8", [64 * mebi], [0], "planes", 64 * mebi - 1]
    execute = [7, 0, 0, 1, None, "exact", "raw"]
    lists = b"\xdc\xff\xff" * 1000
    return [
        [msgpack.packb([*execute, [tensor]])],
        [msgpack.packb([*execute, [["uint8", [mebi], [0], "planes", 0]] * 256])],
        [msgpack.packb([*execute, [["float64", [1 << 40] * 16, list(range(16)), "planes", 1]]])],
        [msgpack.packb([3, "f" * 64, 16 * mebi])],
        [msgpack.packb([5, mebi])],
        [b"\x97\x07\x00\x00\x01\xc0\xa5exact\xa3raw" + lists],
        [b"\x98\x07\x00\x00\x01\xc0\xa5exact\xa3raw" + b"\xdd\x00\x10\x00\x00" * 1000],
        [b"\x9c\x02" + b"\x81\xa1a" * 3000],
        [msgpack.packb([4, "f", "e", list(range(65_537)), []])],
    ]


async def declared(access: Access) -> None:
    for frames in _declared():
        async with talk(access) as talking:
            for frame in frames:
                await talking.link.send_bytes(frame)
            await talking.say(messages.Bye("done"))
            try:
                await talking.until_closed()
            except TROUBLE:
                continue


async def recursion(access: Access) -> None:
    """Graphs that are nested deep, or are a million small things."""
    for graph in (
        b"\x91" * (1 << 20),
        b"\x81\xa1a" * (1 << 18),
        msgpack.packb({"format": 1, "nodes": [[]] * 1_000_000}),
        msgpack.packb([0] * 8_000_000),
        b"\xdd\x00\xff\xff\xff" * 3_000_000,
    ):
        async with talk(access) as talking:
            await talking.say(messages.Offer("f" * 64, graph))
            try:
                await talking.until_closed()
            except TROUBLE:
                continue


async def compression(access: Access) -> None:
    """61 MiB in a few bytes, over and over: as a query's tensor, and as its answer."""
    graph = wide()
    zeros = messages.Tensor("float32", (4000, 4000), (0, 1), bytes(4 * 4000**2))
    few_bytes = encode_tensor(zeros, "planes")
    async with talk(access) as talking:
        await talking.say(offer(graph))
        await talking.hear()
        for query in itertools.count():
            await talking.say(messages.Execute(query, 0, 1, None, "exact", "planes", (few_bytes,)))
            await talking.hear()


async def segments(access: Access) -> None:
    """64 MiB of a weight, each MiB in a few bytes, over and over: its digest is wrong."""
    graph, (zeros,) = dense(1, 4096)
    weight = replace(graph.weights[0], digest=os.urandom(32))
    graph, count = replace(graph, weights=(weight,)), 1 << 18
    few_bytes = encode_segment("float32", 0, zeros, 0, count, "planes")
    while True:
        async with talk(access) as talking:
            await talking.say(offer(graph))
            await talking.hear()
            hearing = asyncio.create_task(talking.until_closed())
            try:
                for start in range(0, len(zeros) // 4, count):
                    announced = messages.Segment(0, 0, start, count, "planes", few_bytes.nbytes)
                    await talking.say(announced, messages.Chunk(few_bytes))
                await hearing
            except TROUBLE:
                await asyncio.sleep(0)
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)


async def held_back(access: Access) -> None:
    """61 MiB of a query, all but its last byte; then nothing."""
    rows = 4000
    size = 4 * rows**2
    tensor = ["float32", [rows, rows], [0, 1], "raw", size]
    async with talk(access) as talking:
        await talking.say(offer(wide(rows)))
        await talking.hear()
        await talking.link.send_bytes(msgpack.packb([7, 0, 0, 1, None, "exact", "raw", [tensor]]))
        # A frame, masked by zeros, whose last byte never comes.
        transport = talking.link._response.connection.transport  # type: ignore[union-attr]
        transport.write(b"\x82\xff" + size.to_bytes(8) + bytes(4 + size - 1))
        await talking.until_closed()


async def drip(access: Access) -> None:
    """A message, a byte a second."""
    async with talk(access) as talking:
        transport = talking.link._response.connection.transport  # type: ignore[union-attr]
        for byte in b"\x82\xff" + bytes(100):
            transport.write(bytes([byte]))
            await asyncio.sleep(1)


async def small(access: Access) -> None:
    """Small messages as fast as they go, answers unread but for what the socket holds."""
    async with talk(access) as talking:
        said = (messages.Ping(1), messages.GetLoad(), messages.Cancel(1))
        frames = [bytes(frame) for message in said for frame in encode(message)]
        reading = asyncio.create_task(talking.until_closed())
        try:
            while not reading.done():
                for frame in frames * 30:
                    await talking.link.send_bytes(frame)
                await asyncio.sleep(0)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def records(access: Access) -> None:
    """A large frame in TLS records of one byte, some hundred at a time."""
    async with talk(access) as talking:
        transport = talking.link._response.connection.transport  # type: ignore[union-attr]
        transport.write(b"\x82\xff" + (1 << 20).to_bytes(8) + bytes(4))
        while not transport.is_closing():
            for _ in range(400):
                transport.write(b"\0")
            await asyncio.sleep(0.001)
        raise ConnectionError("the edge closed the connection")


async def offers(access: Access) -> None:
    """A new model each time, which needs a worker to be checked."""
    for width in itertools.count(os.getpid() % 1000 + 8):
        async with talk(access) as talking:
            await talking.say(offer(dense(8, width % 4000 + 8, seed=1)[0]))
            await talking.hear()


async def returns(access: Access) -> None:
    """A model of many small weights, by its name, over and over; and how much of it is there."""
    graph, _ = dense(4000, 1)
    known = False
    while True:
        async with talk(access) as talking:
            await talking.say(messages.Offer(graph.fingerprint, b"") if known else offer(graph))
            known = isinstance(await talking.hear(120.0), messages.Have)
            for _ in range(10 if known else 0):
                await talking.say(messages.GetLoad())
                await talking.hear()


async def executes(access: Access) -> None:
    """Queries as many as are taken, all of the processor's work."""
    graph, blobs = dense(4, 1024, seed=9)
    row = Tensor("float32", (1, 1024), (0, 1), bytes(4096))
    async with talk(access) as talking:
        await upload(talking, graph, blobs)
        for query in itertools.count():
            await talking.say(messages.Execute(query, 0, 4, None, "exact", "raw", (row,)))
            if query >= 30:
                await talking.hear()


# Attacks by strangers.


def _sockets(access: Access, count: int) -> list[socket.socket]:
    address = (access.address.host, access.address.port)
    return [socket.create_connection(address, 5.0) for _ in range(count)]


async def half_open(access: Access) -> None:
    """1,000 connections that say nothing, made anew as they are ended."""
    links: list[socket.socket] = []
    try:
        while True:
            links += await asyncio.to_thread(_sockets, access, HALF_OPEN // 10)
            while len(links) > HALF_OPEN:
                links.pop(0).close()
            await asyncio.sleep(0.05)
    finally:
        for link in links:
            link.close()


async def handshakes(access: Access) -> None:
    """TLS without a certificate, then half a request for the pairing desk."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        access.address.host, access.address.port, ssl=context if access.box else None
    )
    try:
        writer.write(b"GET /pair HTTP/1.1\r\nHost: x\r\n")
        await writer.drain()
        await asyncio.sleep(0.5)
    finally:
        writer.close()


ATTACKS: dict[str, tuple[Callable[[Access], Awaitable[None]], int]] = {
    "nothing": (nothing, 1),
    "declared": (declared, PARALLEL),
    "recursion": (recursion, PARALLEL),
    "compression": (compression, PARALLEL),
    "segments": (segments, PARALLEL),
    "held-back": (held_back, PARALLEL),
    "drip": (drip, PARALLEL),
    "small": (small, PARALLEL),
    "records": (records, PARALLEL),
    "offers": (offers, PARALLEL),
    "returns": (returns, PARALLEL),
    "executes": (executes, PARALLEL),
    "half-open": (half_open, 1),
    "handshakes": (handshakes, 64),
}
# Nobody grants them anything.
STRANGERS = frozenset({"nothing", "half-open", "handshakes"})


async def attack(name: str, access: Access) -> None:
    """For ever."""
    # Whoever is hung up on goes on talking for a while, of which asyncio warns each time.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    once, parallel = ATTACKS[name]

    async def again() -> None:
        while True:
            try:
                await once(access)
            except TROUBLE:
                await asyncio.sleep(0.02)

    await asyncio.gather(*(again() for _ in range(parallel)))


def step_behind() -> None:
    """Run on what nobody else wants of the processors."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        # Niceness alone lets it finish its slice first, for milliseconds.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("edge")
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    step_behind()
    print("attacking", flush=True)
    asyncio.run(attack(options.name, Access.to(options.edge, options.state)))


if __name__ == "__main__":
    sys.exit(main())
