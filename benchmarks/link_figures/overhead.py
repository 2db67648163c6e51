"""What a query costs beyond its bytes: ours, a bare asyncio echo and gRPC in turn.

The echo is in the clear, and ours is not: what encryption alone costs says the encrypted echo.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import baselines

from link_figures import ours
from link_figures.figures import Figure, at_most, median, milliseconds

Ask = Callable[[], Awaitable[Any]]


def overhead(settings: dict[str, Any]) -> Iterator[Figure]:
    """Idle query latency over that of the echo, in the same minute."""
    for query_bytes in settings["query_bytes"]:
        taken = asyncio.run(_measure(query_bytes, settings))
        echo_s = median(taken["echo"])
        for name, times in taken.items():
            bound = at_most(1.15) if name == "ours" else None
            label = f"{query_bytes / 1e3:g} KB: query"
            yield Figure(label, name, 1e3 * median(times), "ms", None, milliseconds(times))
            yield Figure(f"{label} over echo", name, median(times) / echo_s, "x echo", bound)


async def _measure(query_bytes: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    addresses, payload = settings["addresses"], bytes(query_bytes)
    # The first layer on the edge; the rest, one row of a few tables, wherever that is sooner.
    profiled, query = ours.network(query_bytes, ours.tables(1, 0))
    async with contextlib.AsyncExitStack() as stack:
        asks: dict[str, Ask] = {}
        for name, kind in _BARE.items():
            if name in addresses:
                host, _, port = addresses[name].rpartition(":")
                contender = await kind.open(host, int(port))
                stack.push_async_callback(contender.close)
                asks[name] = lambda contender=contender: contender.query(payload)
        connected = ours.session(profiled, query, addresses["ours"], settings["capacity"])
        session = await stack.enter_async_context(connected)
        await session.reached("ready")
        asks["ours"] = lambda: session.net.query(query)
        return await _in_turn(asks, settings["seconds"])


_BARE: dict[str, type[baselines.Echo] | type[baselines.Grpc]] = {
    "echo": baselines.Echo,
    "encrypted echo": baselines.EncryptedEcho,
    "grpc": baselines.Grpc,
}


async def _in_turn(asks: dict[str, Ask], seconds: float) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in asks}
    ends_at = time.monotonic() + seconds
    warm = False
    while time.monotonic() < ends_at or not warm:
        for name, ask in asks.items():
            began = time.perf_counter()
            await ask()
            if warm:
                taken[name].append(time.perf_counter() - began)
        warm = True
    return taken
