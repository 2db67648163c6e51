"""What a query costs beyond its bytes: ours, a bare asyncio echo and gRPC in turn.

The echo is in the clear and computes nothing; ours is encrypted, and runs a layer in a process that
is shut in. The layer is next to free, all of it on the edge, and its time is told. What encryption
alone costs says the encrypted echo; with the layer in another process besides, the isolated echo:
what ours takes beyond that one is IONN's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import baselines
from torch import Tensor

from ionn_client import Offload
from link_figures import ours
from link_figures.figures import Figure, at_most, median, milliseconds

Ask = Callable[[], Awaitable[Any]]
Taken = dict[str, list[float]]


def overhead(settings: dict[str, Any]) -> Iterator[Figure]:
    """Idle query latency over that of the echo, in the same minute."""
    for query_bytes in settings["query_bytes"]:
        taken, computed_s = asyncio.run(_measure(query_bytes, settings))
        echo_s, isolated_s = median(taken["echo"]), median(taken["isolated echo"])
        for name, times in taken.items():
            bound = at_most(1.15) if name == "ours" else None
            label = f"{query_bytes / 1e3:g} KB: query"
            yield Figure(label, name, 1e3 * median(times), "ms", None, milliseconds(times))
            yield Figure(f"{label} over echo", name, median(times) / echo_s, "x echo", bound)
        over_isolated = median(taken["ours"]) / isolated_s
        yield Figure(f"{label} over isolated echo", "ours", over_isolated, "x isolated echo")
        yield Figure(f"{label}: its layer alone", "ours", 1e3 * median(computed_s), "ms")


async def _measure(query_bytes: int, settings: dict[str, Any]) -> tuple[Taken, list[float]]:
    addresses, payload = settings["addresses"], bytes(query_bytes)
    query = ours.query_of(query_bytes)
    profiled = ours.captured(ours.Touch().eval(), (query,), ours.NEVER_HERE_S)
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
        asks["ours"] = lambda: _on_the_edge(session.net, query)
        taken = await _in_turn(asks, settings["seconds"])
        return taken, session.computed_s


async def _on_the_edge(net: Offload, query: Tensor) -> None:
    result = await net.query(query)
    if result.served_by != "edge":
        raise RuntimeError(f"a query ran elsewhere: {result.fallback_reason or result.ranges}")


_BARE: dict[str, type[baselines.Echo] | type[baselines.Grpc]] = {
    "echo": baselines.Echo,
    "encrypted echo": baselines.EncryptedEcho,
    "isolated echo": baselines.IsolatedEcho,
    "grpc": baselines.Grpc,
}


async def _in_turn(asks: dict[str, Ask], seconds: float) -> Taken:
    taken: Taken = {name: [] for name in asks}
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
