"""How often a byte of a weight is copied between tensor and socket, on each side."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

from link_figures import ours
from link_figures.counting import copied_bytes
from link_figures.figures import Figure

FAST_BPS = 1e9


def copies(settings: dict[str, Any]) -> Iterator[Figure]:
    """Bytes copied per byte of weights, while nothing but an upload goes on."""
    copied = asyncio.run(_measure(settings))
    for side, value in copied.items():
        yield Figure(f"bytes copied per byte, {side}", "ours", value, "copies")


async def _measure(settings: dict[str, Any]) -> dict[str, float]:
    pids = {"client": os.getpid(), "edge": settings["edge_pid"]}
    profiled, query = ours.network(1_000, ours.tables(settings["bytes"], time.time_ns()))
    address = settings["addresses"]["ours"]
    async with ours.session(profiled, query, address, FAST_BPS) as session:
        await session.reached("uploading")
        before = {side: copied_bytes(pid) for side, pid in pids.items()}
        await session.reached("ready")
        total = session.net.status.total_bytes
        return {side: (copied_bytes(pid) - before[side]) / total for side, pid in pids.items()}
