"""Lossless coding of weights: bytes over raw, and time against bytes that no coding shortens."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ionn_client import Profiled
from layergraph.load import load
from link_figures import ours
from link_figures.figures import Figure, at_most, median
from link_figures.path import wire_bytes

LEAST_SAVING = 1 / 1.12
# Two uploads of the same bytes differ by this much from one to the next.
NOISE = 1.02
MAX_BYTES = 256 << 20
_seeds = itertools.count(time.time_ns())


def coding(settings: dict[str, Any]) -> Iterator[Figure]:
    """Seeded fp32 weights, and as many random bytes in their place: the upload not coded."""
    size = min(int(settings["seconds"] * settings["capacity"]), MAX_BYTES)
    seconds: dict[torch.dtype, list[float]] = {torch.uint8: [], torch.float32: []}
    shares = []
    for _ in range(settings["rounds"]):
        for dtype, taken in seconds.items():
            ballast = ours.tables(size, next(_seeds), dtype)
            upload_s, share = asyncio.run(_upload(ballast, settings))
            taken.append(upload_s)
            if dtype == torch.float32:
                shares.append(share)
    yield Figure("bytes sent over raw, seeded fp32", "ours", median(shares), "x raw", None)
    raw_s, coded_s = median(seconds[torch.uint8]), median(seconds[torch.float32])
    detail = {"raw_s": seconds[torch.uint8], "coded_s": seconds[torch.float32], "bytes": size}
    yield Figure("upload time, coded", "ours", coded_s / raw_s, "x raw", at_most(NOISE), detail)


async def _upload(ballast: Sequence[Tensor], settings: dict[str, Any]) -> tuple[float, float]:
    profiled, query = ours.network(1_000, list(ballast))
    address = settings["addresses"]["ours"]
    async with ours.session(profiled, query, address, settings["capacity"]) as session:
        await session.reached("ready")
        status = session.net.status
        return session.upload_s, status.sent_bytes / status.total_bytes


def networks(settings: dict[str, Any]) -> Iterator[Figure]:
    """Bytes that whole networks cost in exact mode."""
    for name in settings["networks"]:
        loaded = load(name)
        yield asyncio.run(
            _network(name, ours.captured(loaded.model, loaded.args), loaded.args, settings)
        )


async def _network(
    name: str, profiled: Profiled, args: Sequence[Any], settings: dict[str, Any]
) -> Figure:
    address = settings["addresses"]["ours"]
    async with ours.session(profiled, args, address, settings["capacity"]) as session:
        await session.reached("greeting")
        before = wire_bytes()
        await session.reached("ready")
        status = session.net.status
        detail: dict[str, Any] = {"bytes": status.total_bytes}
        if before is not None:
            detail["on_the_wire"] = ((wire_bytes() or 0) - before) / status.total_bytes
        share = status.sent_bytes / status.total_bytes
        label = f"bytes sent over raw, {name}"
        return Figure(label, "ours", share, "x raw", at_most(LEAST_SAVING), detail)
