"""How soon the estimated rate follows a change of the link, from an upload's acknowledgements."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Any

from ionn_client.emulate import LinkSpec, parse_rate
from link_figures import ours
from link_figures.changing import ChangingLink
from link_figures.figures import Figure, at_most

WITHIN = 0.10
RATES = ("20mbit", "80mbit", "20mbit", "5mbit", "20mbit")
SAMPLE_S = 0.02
MARGIN = 1.3


def change(settings: dict[str, Any]) -> Iterator[Figure]:
    """Seconds after each change until the estimate is, and stays, within 10% of the new rate."""
    for rtt in settings["rtts"]:
        yield from asyncio.run(_follow(rtt, settings["stay_s"], settings["addresses"]["ours"]))


async def _follow(rtt: str, stay_s: float, edge: str) -> list[Figure]:
    size = int(sum(map(parse_rate, RATES)) * stay_s * MARGIN)
    profiled, query = ours.network(1_000, ours.tables(size, time.time_ns()))
    spec = LinkSpec.parse(RATES[0], rtt=rtt, queue="256k")
    figures = []
    with ChangingLink(spec, edge) as link:
        async with ours.session(profiled, query, link.address, spec.up_Bps) as session:
            await session.reached("uploading")
            await asyncio.sleep(stay_s)
            for before, after in itertools.pairwise(RATES):
                link.set_rate(parse_rate(after))
                first_s, last_s = await _settling(session, parse_rate(after), stay_s)
                if "ready" in session.times:
                    raise RuntimeError("the upload ended before the last change")
                label = f"+{rtt} RTT, {before} to {after}: rate right after"
                detail = {"first_within_s": first_s}
                figures.append(Figure(label, "ours", last_s, "s", at_most(2.0), detail))
    return figures


async def _settling(session: ours.Session, rate_Bps: float, stay_s: float) -> tuple[float, float]:
    """Seconds from now until the estimate was first within 10%, and last outside."""
    began, first_s, last_s = time.monotonic(), stay_s, 0.0
    while (elapsed_s := time.monotonic() - began) < stay_s:
        if abs(session.net.status.link.up_Bps / rate_Bps - 1) > WITHIN:
            last_s = elapsed_s
        else:
            first_s = min(first_s, elapsed_s)
        await asyncio.sleep(SAMPLE_S)
    return first_s, last_s
