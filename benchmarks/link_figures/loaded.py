"""Queries beside an upload, ours and the baselines in turn; goodput and processor time with it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import baselines

from link_figures import ours
from link_figures.figures import Bound, Figure, at_least, at_most, median, milliseconds, percentile
from link_figures.path import cpu_s, wire_bytes

Ask = Callable[[], Awaitable[bool]]
# Between an answer and the next query, drawn anew each time so that nothing keeps in step.
PAUSE_S = (0.05, 0.15)
IDLE_SHARE = 0.25
CHUNK_S = 0.0015
SMALLEST_CHUNK_BYTES = 1_514
LONG_RTT_S = 0.02
MAX_BYTES = 512 << 20
TIMEOUT_S = 600.0
_seeds = itertools.count(time.time_ns())


@dataclass
class Sample:
    """What one contender did in all rounds."""

    loaded_s: list[float] = field(default_factory=list)
    idle_s: list[float] = field(default_factory=list)
    goodput: list[float] = field(default_factory=list)
    elsewhere: int = 0  # Queries that the edge did not serve: not counted above.


@dataclass(frozen=True, slots=True)
class Round:
    """What each contender gets in each round. capacity_Bps: what a bare TCP transfer reaches."""

    query_bytes: int
    upload_bytes: int
    idle_s: float
    capacity_Bps: float
    lane: bool

    @classmethod
    def of(
        cls, query_bytes: int, seconds: float, capacity_Bps: float, own_egress: bool = False
    ) -> Round:
        """An upload that takes `seconds`, beside the share of the link that queries take."""
        query_s = query_bytes / capacity_Bps
        share = query_s / (query_s + sum(PAUSE_S) / 2)
        upload_bytes = int(seconds * capacity_Bps * (1 - share))
        # A second connection is for queues that honour priorities.
        return cls(query_bytes, upload_bytes, seconds * IDLE_SHARE, capacity_Bps, lane=own_egress)


def loaded(settings: dict[str, Any]) -> Iterator[Figure]:
    """Query latency while uploading over idle, and how much of the link was used."""
    for query_bytes in settings["query_bytes"]:
        seconds = settings["seconds"] / settings["rounds"]
        what = Round.of(query_bytes, seconds, settings["capacity"], settings["own_egress"])
        samples = {name: Sample() for name in ("ours", "naive", "grpc")}
        for _ in range(settings["rounds"]):
            for name, sample in samples.items():
                if name in settings["addresses"]:
                    asyncio.run(_rounds[name](what, settings["addresses"][name], sample))
        for name, sample in samples.items():
            if name in settings["addresses"]:
                yield from _figures(name, sample, what, settings)


def upload(settings: dict[str, Any]) -> Iterator[Figure]:
    """Our upload alone: its share of the link, and the processor time on both sides."""
    size = min(int(settings["seconds"] * settings["capacity"]), MAX_BYTES)
    seen = asyncio.run(_upload(size, settings))
    share = seen["goodput_Bps"] / settings["capacity"]
    bound = at_least(0.97) if settings["rate"] else None
    yield Figure("upload goodput", "ours", share, "of capacity", bound, seen)
    for side in ("client", "edge"):
        name, value = f"processor time, {side}", seen[f"{side}_cpu_ms_per_MB"]
        yield Figure(name, "ours", value, "ms per MB", at_most(6.0))


async def _upload(size: int, settings: dict[str, Any]) -> dict[str, Any]:
    profiled, query = ours.network(1_000, ours.tables(size, next(_seeds)))
    address, pid = settings["addresses"]["ours"], settings["edge_pid"]
    async with ours.session(profiled, query, address, settings["capacity"]) as session:
        await session.reached("uploading")
        wire, client, edge = wire_bytes(), time.process_time(), cpu_s(pid)
        await session.reached("ready")
        client, edge = time.process_time() - client, cpu_s(pid) - edge
        total = session.net.status.sent_bytes
        seen = {
            "upload_s": session.upload_s,
            "goodput_Bps": total / session.upload_s,
            "client_cpu_ms_per_MB": client * 1e9 / total,
            "edge_cpu_ms_per_MB": edge * 1e9 / total,
        }
        if wire is not None:
            seen["wire_bytes_per_byte"] = ((wire_bytes() or 0) - wire) / total
        return seen


async def _ours(what: Round, address: str, sample: Sample) -> None:
    profiled, query = ours.network(what.query_bytes, ours.tables(what.upload_bytes, next(_seeds)))
    async with ours.session(profiled, query, address, what.capacity_Bps, lane=what.lane) as session:

        async def ask() -> bool:
            result = await session.net.query(query)
            return result.served_by != "client" and result.fallback_reason is None

        await session.reached("uploading")
        queries = await _query_until(session.reached("ready"), ask, sample)
        sent_bytes = session.net.status.sent_bytes + queries * what.query_bytes
        sample.goodput.append(sent_bytes / session.upload_s / what.capacity_Bps)
        await _query_for(what.idle_s, ask, sample)


async def _baseline(
    what: Round, address: str, sample: Sample, kind: type[baselines.Naive] | type[baselines.Grpc]
) -> None:
    host, _, port = address.rpartition(":")
    payload = bytes(what.query_bytes)
    contender = await kind.open(host, int(port))
    try:

        async def ask() -> bool:
            await contender.query(payload)
            return True

        await ask()  # Opens the connection where that was put off.
        began = time.monotonic()
        queries = await _query_until(contender.upload(what.upload_bytes), ask, sample)
        elapsed_s = time.monotonic() - began
        sent_bytes = what.upload_bytes + queries * what.query_bytes
        sample.goodput.append(sent_bytes / elapsed_s / what.capacity_Bps)
        await _query_for(what.idle_s, ask, sample)
    finally:
        await contender.close()


async def _naive(what: Round, address: str, sample: Sample) -> None:
    await _baseline(what, address, sample, baselines.Naive)


async def _grpc(what: Round, address: str, sample: Sample) -> None:
    await _baseline(what, address, sample, baselines.Grpc)


_rounds = {"ours": _ours, "naive": _naive, "grpc": _grpc}


async def _query_until(uploading: Awaitable[None], ask: Ask, sample: Sample) -> int:
    """Query while `uploading` goes on; how many were answered before it ended."""
    upload = asyncio.ensure_future(uploading)
    answered = 0
    async with _giving_up(upload):
        async for served, latency_s in _asked(ask):
            if upload.done():
                break
            answered += 1
            if served:
                sample.loaded_s.append(latency_s)
            else:
                sample.elsewhere += 1
        await upload
    return answered


async def _query_for(seconds: float, ask: Ask, sample: Sample) -> None:
    ends_at = time.monotonic() + seconds
    async for served, latency_s in _asked(ask):
        if served:
            sample.idle_s.append(latency_s)
        else:
            sample.elsewhere += 1
        if time.monotonic() > ends_at:
            return


async def _asked(ask: Ask) -> AsyncIterator[tuple[bool, float]]:
    """One query after the other, with a pause in between: whether it counts, and its latency."""
    chance = random.Random(0)
    while True:
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        began = time.perf_counter()
        async with asyncio.timeout(TIMEOUT_S):
            served = await ask()
        yield served, time.perf_counter() - began


@contextlib.asynccontextmanager
async def _giving_up(task: asyncio.Future[None]) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _figures(name: str, sample: Sample, what: Round, settings: dict[str, Any]) -> Iterator[Figure]:
    size = f"{what.query_bytes / 1e3:g} KB"
    mine = name == "ours"
    detail = {
        "loaded": milliseconds(sample.loaded_s),
        "idle": milliseconds(sample.idle_s),
        "not_served_by_edge": sample.elsewhere,
    }
    idle_s, loaded_s = median(sample.idle_s), median(sample.loaded_s)
    yield Figure(f"{size}: idle p50", name, 1e3 * idle_s, "ms", None, detail)
    yield Figure(f"{size}: loaded p50", name, 1e3 * loaded_s, "ms")
    p50_bound, p95_bound, extra_bound = _bounds(settings) if mine else (None, None, None)
    yield Figure(f"{size}: p50 inflation", name, loaded_s / idle_s, "x idle", p50_bound)
    p95 = percentile(sample.loaded_s, 0.95) / idle_s
    yield Figure(f"{size}: p95 inflation", name, p95, "x idle", p95_bound)
    # A bucket that filled up while nobody sent lets an idle query's beginning pass at once, which
    # no link does; beside an upload it is empty.
    gift_s = min(settings["burst_bytes"], what.query_bytes) / (settings["rate"] or math.inf)
    added_ms = 1e3 * (loaded_s - idle_s - gift_s)
    yield Figure(f"{size}: p50 added", name, added_ms, "ms", extra_bound, {"gift_ms": 1e3 * gift_s})
    if sample.elsewhere:
        count = float(sample.elsewhere)
        yield Figure(f"{size}: not served by the edge", name, count, "queries", at_most(0))
    used = sum(sample.goodput) / len(sample.goodput)
    bound = at_least(0.95) if mine else None
    yield Figure(f"{size}: upload and queries", name, used, "of capacity", bound)


def _bounds(settings: dict[str, Any]) -> tuple[Bound | None, Bound | None, Bound | None]:
    """For p50 and p95 inflation, and for what is added to p50 in ms."""
    if settings["own_egress"]:
        return at_most(1.05), None, None
    if settings["rtt_s"] >= LONG_RTT_S:
        return at_most(1.15), at_most(1.35), None
    # One chunk: 1.5 ms of the link, and no less than a packet.
    return None, None, at_most(1e3 * max(CHUNK_S, SMALLEST_CHUNK_BYTES / settings["rate"]))
