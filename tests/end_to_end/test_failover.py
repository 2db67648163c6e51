"""Edges that die, freeze or fall silent while queries run: each query has the right answer."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable

import pytest
import torch
from torch import nn

import ionn_client
from ionn_client import Offload, Options, Profiled, QueryResult, prepare
from ionn_client.processes import EdgeProcess
from planner import Link
from tests.support import quick_edge

# So slow a device that the edge always pays; generous, since this machine may be busy.
OPTIONS = Options(device_slowdown=3000.0, assumed_link=Link(1e7, 1e7, 0.001), profile_runs=1)
X = torch.linspace(-1, 1, 256).reshape(1, 256)
SOON_S = 60.0


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(5)
    layers = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def profiled(model: nn.Module) -> Profiled:
    return prepare(model, (X,), options=OPTIONS)


class Asking:
    """Queries one after the other, whatever happens, each compared with the model's answer."""

    def __init__(self, net: Offload, model: nn.Module) -> None:
        self.net, self.results = net, list[QueryResult]()
        with torch.inference_mode():
            self._reference = model(X)

    async def __aenter__(self) -> Asking:
        self._task = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ask(self) -> None:
        while True:
            result = await self.net.query(X)
            assert torch.equal(result.value, self._reference)
            self.results.append(result)

    async def until(self, found: Callable[[QueryResult], bool]) -> QueryResult:
        """The first result from now on that is so."""
        seen = len(self.results)
        async with asyncio.timeout(SOON_S):
            while True:
                assert not self._task.done(), self._task.exception()
                for result in self.results[seen:]:
                    if found(result):
                        return result
                seen = len(self.results)
                await asyncio.sleep(0.005)


def by_edge(result: QueryResult) -> bool:
    return result.served_by == "edge" and result.fallback_reason is None


def by_client(result: QueryResult) -> bool:
    return result.served_by == "client"


async def test_a_killed_edge_moves_queries_here(model: nn.Module, profiled: Profiled) -> None:
    with quick_edge() as edge:
        async with (
            ionn_client.connect(profiled, (X,), edge=edge.address, options=OPTIONS) as net,
            Asking(net, model) as asking,
        ):
            await asking.until(by_edge)
            edge.kill()
            moved = await asking.until(by_client)
            assert moved.fallback_reason or net.status.phase == "connecting"
            await asking.until(by_client)
            assert net.status.quarantine is None


async def test_a_frozen_edge_is_missed_and_taken_up_again(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    async with (
        ionn_client.connect(profiled, (X,), edge=edge.address, options=OPTIONS) as net,
        Asking(net, model) as asking,
    ):
        await asking.until(by_edge)
        os.kill(edge.process.pid, signal.SIGSTOP)
        try:
            late = await asking.until(by_client)
            assert late.fallback_reason is not None
            async with asyncio.timeout(SOON_S):
                while net.status.phase == "ready":
                    await net.query(X)
            assert "said nothing" in (net.status.error or "")
            assert net.status.hedges_won >= 1
        finally:
            os.kill(edge.process.pid, signal.SIGCONT)
        await asking.until(by_edge)


class Swallowing:
    """A relay that can stop passing anything on, in both directions, without closing."""

    def __init__(self, edge: str) -> None:
        self._host, _, port = edge.rpartition(":")
        self._port = int(port)
        self._passes = asyncio.Event()
        self._passes.set()

    async def __aenter__(self) -> Swallowing:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._tasks = set[asyncio.Task[None]]()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def swallow(self, swallows: bool = True) -> None:
        (self._passes.clear if swallows else self._passes.set)()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._host, self._port)
        ways = ((reader, there[1]), (there[0], writer))
        tasks = [asyncio.create_task(self._pass(*way)) for way in ways]
        self._tasks.update(tasks)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                if self._passes.is_set():
                    writer.write(data)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.mark.parametrize("busy", [True, False])
async def test_a_half_open_connection_is_given_up_busy_or_idle(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess, busy: bool
) -> None:
    async with (
        Swallowing(edge.address) as relay,
        ionn_client.connect(profiled, (X,), edge=relay.address, options=OPTIONS) as net,
    ):
        async with Asking(net, model) as asking:
            await asking.until(by_edge)
            if busy:
                relay.swallow()
                assert (await asking.until(by_client)).fallback_reason is not None
        if not busy:
            await net.query(X)
            relay.swallow()
        async with asyncio.timeout(SOON_S):
            while net.status.phase == "ready":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert "said nothing" in (net.status.error or "")
        relay.swallow(False)
        async with Asking(net, model) as asking:
            await asking.until(by_edge)


async def test_without_hedging_a_frozen_edge_is_waited_for_until_it_is_missed(
    model: nn.Module, profiled: Profiled, edge: EdgeProcess
) -> None:
    options = dataclasses.replace(OPTIONS, hedging=False, silence_s=0.5, patience=1e6)
    async with (
        Swallowing(edge.address) as relay,
        ionn_client.connect(profiled, (X,), edge=relay.address, options=options) as net,
        Asking(net, model) as asking,
    ):
        await asking.until(by_edge)
        relay.swallow()
        moved = await asking.until(by_client)
        assert "said nothing" in (moved.fallback_reason or "")
        assert net.status.hedges == 0
