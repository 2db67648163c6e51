"""Weights over a second connection to a real edge process, which breaks, stalls or is refused."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Options, prepare
from ionn_client.processes import EdgeProcess
from planner import Link

OPTIONS = Options(
    lane=True,
    hedging=False,
    device_slowdown=200.0,
    assumed_link=Link(5e6, 5e6, 0.002),
    profile_runs=1,
)
X = torch.linspace(-1, 1, 512).reshape(1, 512)
# Of the lane: after so many bytes something happens to it, in the middle of a segment.
SOON_BYTES = 1_234_567
PIECE_BYTES = 4096


FATES = ("none", "refused", "broken", "frozen", "half-open")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 1024)).eval()


class Relay:
    """Between client and edge; `fate` is what becomes of every second connection."""

    def __init__(self, edge: str, fate: str) -> None:
        host, _, port = edge.rpartition(":")
        self._edge = host, int(port)
        self._fate = fate
        self._pumps: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        second = self.connections > 1
        if second and self._fate == "refused":
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._edge)
        fate = self._fate if second else "none"
        up = asyncio.create_task(self._pump(reader, far_writer, fate, writer))
        down = asyncio.create_task(self._pump(far_reader, writer, "none", far_writer))
        self._pumps.update((up, down))

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        fate: str,
        back: asyncio.StreamWriter,
    ) -> None:
        passed = 0
        try:
            while data := await reader.read(PIECE_BYTES):
                passed += len(data)
                if fate != "none" and passed > SOON_BYTES:
                    if fate == "frozen":
                        await asyncio.Event().wait()
                    if fate == "broken":
                        back.transport.abort()
                    # Whichever end is told: "half-open" is one of which the edge does not hear.
                    if fate == "half-open":
                        back.transport.abort()
                        await asyncio.Event().wait()
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        # The loop needs a moment to close what was closed.
        await asyncio.sleep(0)


@asynccontextmanager
async def relayed(edge: EdgeProcess, fate: str) -> AsyncIterator[str]:
    relay = Relay(edge.address.removeprefix("ionn://"), fate)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        await relay.close()


@pytest.mark.parametrize("fate", FATES)
async def test_whatever_becomes_of_the_lane_all_is_uploaded_and_answers_are_right(
    edge: EdgeProcess, fate: str
) -> None:
    # The edge knows none of the others' weights.
    model = network(seed=FATES.index(fate))
    profiled = prepare(model, (X,), options=OPTIONS)
    with torch.inference_mode():
        reference = model(X)
    seen: list[dict[str, Any]] = []
    # The lane's silence is to be found out; on a busy machine the first connection has some, too.
    silence_s = 1.5 if fate in ("frozen", "half-open") else 10.0
    options = dataclasses.replace(OPTIONS, trace=seen.append, silence_s=silence_s)
    async with (
        relayed(edge, fate) as address,
        ionn_client.connect(profiled, (X,), edge=address, options=options) as net,
    ):
        async with asyncio.timeout(60):
            while net.status.phase != "ready":
                assert torch.equal((await net.query(X)).value, reference)
        result = await net.query(X)
        status = net.status
    assert result.served_by != "client"
    assert torch.equal(result.value, reference)
    assert status.held_bytes == status.total_bytes
    lane = [record["phase"] for record in seen if record["event"] == "lane"]
    phases = [record["phase"] for record in seen if record["event"] == "phase"]
    assert phases.count("greeting") == 1, "the first connection never ends"
    assert lane.count("opening") == 1
    carried = fate != "refused"
    assert ("carrying" in lane) == carried
    assert ("asking" in lane) == (carried and fate != "none")
    # What was under way, and no more.
    assert status.resent_bytes <= 2 << 20
    assert carried or status.resent_bytes == 0
