"""A client that comes back to an edge that holds everything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from ionn_client.emulate import LinkCounters, LinkProcess, LinkSpec, parse_rate, parse_time
from link_figures import ours
from link_figures.figures import Figure, at_most, median

RATE, RTT = "80mbit", "40ms"
QUERY_BYTES = 1_000
# A query is at full speed if it takes no longer than this times the usual.
FULL_SPEED = 1.25
VISITS = 5


def revisit(settings: dict[str, Any]) -> Iterator[Figure]:
    """Round trips from the open connection to the first query's start, and bytes sent again."""
    yield from asyncio.run(_measure(settings))


async def _measure(settings: dict[str, Any]) -> list[Figure]:
    spec = LinkSpec.parse(RATE, rtt=RTT, queue="256k")
    profiled, query = ours.network(QUERY_BYTES, ours.tables(settings["bytes"], time.time_ns()))
    with LinkProcess(spec, settings["addresses"]["ours"]) as link:
        address = f"{link.host}:{link.port}"
        async with ours.session(profiled, query, address, parse_rate(RATE)) as session:
            await session.reached("ready")
            usual_s = median([await _timed(session, query) for _ in range(10)])
        waits, firsts, sent, carried = [], [], [], []
        for _ in range(VISITS):
            before = link.counters()
            async with ours.session(profiled, query, address, parse_rate(RATE)) as session:
                await session.reached("ready")
                waits.append(session.times["ready"] - session.times["greeting"])
                carried.append(_up_bytes(before, link.counters()))
                firsts.append(await _timed(session, query))
                sent.append(session.net.status.sent_bytes)
    rtt_s = parse_time(RTT)
    detail = {"wait_s": waits, "first_query_s": firsts, "usual_query_s": usual_s}
    return [
        Figure("round trips to ready", "ours", median(waits) / rtt_s, "RTT", at_most(2.5), detail),
        Figure(
            "first query over usual", "ours", median(firsts) / usual_s, "x", at_most(FULL_SPEED)
        ),
        Figure("weights sent again", "ours", max(sent), "bytes", at_most(0)),
        Figure("sent until ready", "ours", max(carried), "bytes"),
    ]


async def _timed(session: ours.Session, query: Any) -> float:
    began = time.perf_counter()
    await session.net.query(query)
    return time.perf_counter() - began


def _up_bytes(before: LinkCounters, after: LinkCounters) -> int:
    return after.up_bytes - before.up_bytes
