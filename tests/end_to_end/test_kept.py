"""What an edge gets when first and last layers are kept, read off the socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import torch
from torch import nn

import ionn_client
from ionn_client import Options, prepare
from ionn_client.machine.kept import kept_layers
from ionn_client.processes import EdgeProcess
from planner import Link
from wire import Decoder, messages

OPTIONS = Options(
    device_slowdown=3000.0,
    assumed_link=Link(1e7, 1e7, 0.001),
    profile_runs=1,
    hedging=False,
    keep_local=(1, 1),
)


class Tap:
    """A relay to the edge that keeps a copy of what goes up."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.streams: list[bytearray] = []

    async def __aenter__(self) -> Tap:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self.streams.append(bytearray())
        await asyncio.gather(
            _pump(reader, far_writer, self.streams[-1]), _pump(far_reader, writer, bytearray())
        )

    def messages(self) -> list[messages.Message]:
        """Everything that the client said, decoded."""
        heard = []
        for stream in self.streams:
            decoder = Decoder()
            heard += [decoder.feed(payload) for payload in _payloads(bytes(stream))]
        return [message for message in heard if message is not None]


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, copy: bytearray
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            copy += data
            writer.write(data)
            await writer.drain()
    writer.close()


def _payloads(stream: bytes) -> Iterator[bytes]:
    """Of the client's binary WebSocket frames (RFC 6455, section 5.2), which are masked."""
    at = stream.index(b"\r\n\r\n") + 4
    while at < len(stream):
        opcode, length = stream[at] & 15, stream[at + 1] & 127
        extended = {126: 2, 127: 8}.get(length, 0)
        at += 2
        if extended:
            length = int.from_bytes(stream[at : at + extended])
        at += extended
        mask, data = stream[at : at + 4], stream[at + 4 : at + 4 + length]
        at += 4 + length
        if opcode == 2:
            key = int.from_bytes((mask * (length // 4 + 1))[:length])
            yield (int.from_bytes(data) ^ key).to_bytes(length)


async def test_the_edge_gets_no_byte_of_kept_weights_nor_the_raw_input(edge: EdgeProcess) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Linear(64, 192), nn.ReLU(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 192),
        nn.ReLU(), nn.Linear(192, 10),
    ).eval()  # fmt: skip
    x = torch.randn(1, 64)
    with torch.inference_mode():
        reference = model(x)
    profiled = prepare(model, (x,), options=OPTIONS)
    kept = kept_layers(profiled.graph, OPTIONS.keep_local)
    assert kept == {0, 3}
    host, _, port = edge.address.removeprefix("ionn://").rpartition(":")
    async with Tap(host, int(port)) as tap:
        address = f"ionn://127.0.0.1:{tap.port}"
        async with ionn_client.connect(profiled, (x,), edge=address, options=OPTIONS) as net:
            await net.uploaded(timeout_s=60)
            result = await net.query(x, deadline_s=60)
            assert torch.equal(result.value, reference)
            assert result.served_by == "both"
            assert net.status.held_bytes == net.status.total_bytes == 2 * (192 * 193 * 4)
        said = tap.messages()
    layers = profiled.graph.layers
    secret = {weight for layer in kept for weight in layers[layer].weights}
    uploaded = {m.weight for m in said if isinstance(m, messages.Segment)}
    assert uploaded == set(range(len(profiled.graph.weights))) - secret
    executed = [m for m in said if isinstance(m, messages.Execute)]
    assert executed
    assert all((m.start, m.stop) == (1, 3) for m in executed)
    everything = b"".join(bytes(t.data) for m in executed for t in m.tensors)
    assert x.numpy().tobytes() not in everything
