"""What pairing, TLS and the checks of answers cost queries and uploads, beside doing without.

    python benchmarks/security_cost.py            # some five minutes
    python benchmarks/security_cost.py --quick    # seconds: shows that it works

Three edges serve the same network at once, over a link of their own each: `plain` in the clear,
with neither audits nor hedging; `checked` in the clear with both, as they are by default; `secure`
paired and encrypted besides, which is what people get. Queries go to each in turn, uploads too, so
that whatever else this machine does hits all alike. Workers are confined in all three.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from link_figures import ours

from ionn_client import Profiled
from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess

LINKS = {"80 Mbit/s, 5 ms": LinkSpec.parse("80mbit", rtt="5ms"), "loopback": None}
QUERY_BYTES = (1_000, 150_000)
MOST_LATENCY, LEAST_GOODPUT = 1.10, 0.95


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to talk to an edge. options: the client's."""

    name: str
    paired: bool
    options: dict[str, Any]


CONTENDERS = (
    Contender("plain", False, {"audit_share": 0.0, "hedging": False}),
    Contender("checked", False, {"hedging": True}),
    Contender("secure", True, {"hedging": True}),
)


@dataclass(frozen=True, slots=True)
class Reached:
    """An edge as its client reaches it: over a link, and paired with or not."""

    contender: Contender
    address: str
    options: dict[str, Any]

    def session(self, profiled: Profiled, query: Any, rate_Bps: float) -> Any:
        return ours.session(profiled, query, self.address, rate_Bps, **self.options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="each gives one ratio")
    parser.add_argument("--queries", type=int, default=80, help="of each contender in a round")
    parser.add_argument("--upload-mb", type=float, default=20.0, help="of each in a round")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.queries, options.upload_mb = 2, 10, 1.0
    torch.set_num_threads(1)
    missed = 0
    for name, spec in LINKS.items():
        with _edges(spec) as edges:
            for row in asyncio.run(_measure(edges, spec, options)):
                missed += row["ok"] is False
                print(json.dumps({"link": name, **row}) if options.json else _line(name, row))
    sys.exit(bool(missed) and not options.quick)  # Seconds prove nothing.


@contextlib.contextmanager
def _edges(spec: LinkSpec | None) -> Iterator[list[Reached]]:
    with contextlib.ExitStack() as stack:
        edges = []
        for contender in CONTENDERS:
            edge = EdgeProcess(paired=contender.paired, options=("--calibration", "off"))
            stack.enter_context(edge)
            address, settings = edge.address, dict(contender.options)
            if spec is not None:
                link = stack.enter_context(LinkProcess(spec, address))
                address = f"{link.host}:{link.port}"
            if edge.state is not None:
                KnownBoxes(edge.state).moved(edge.banner["fingerprint"], f"ionn://{address}")
                settings["state"] = edge.state
            edges.append(Reached(contender, address, settings))
        yield edges


async def _measure(
    edges: list[Reached], spec: LinkSpec | None, options: argparse.Namespace
) -> list[dict[str, Any]]:
    rate_Bps = 1e9 if spec is None else spec.up_Bps
    bounded = spec is not None
    rows = []
    for size in QUERY_BYTES:
        taken = await _latencies(edges, size, rate_Bps, options)
        bound = MOST_LATENCY if bounded else None
        rows += _rows(f"query of {size / 1e3:g} KB, p50", "ms", taken, 1e3, bound, most=True)
    speeds = await _goodputs(edges, int(options.upload_mb * 1e6), rate_Bps, options.rounds)
    bound = LEAST_GOODPUT if bounded else None
    return [*rows, *_rows("upload goodput", "MB/s", speeds, 1e-6, bound, most=False)]


async def _latencies(
    edges: list[Reached], size: int, rate_Bps: float, options: argparse.Namespace
) -> dict[str, list[float]]:
    """The median of each round, for each contender."""
    profiled, query = ours.network(size, ours.tables(1, 0))
    medians: dict[str, list[float]] = {edge.contender.name: [] for edge in edges}
    async with _sessions(edges, profiled, query, rate_Bps) as sessions:
        for number in range(options.rounds + 1):
            taken: dict[str, list[float]] = {name: [] for name in medians}
            for _ in range(options.queries):
                for name, session in sessions.items():
                    began = time.perf_counter()
                    answer = await session.net.query(query)
                    taken[name].append(time.perf_counter() - began)
                    assert answer.served_by != "client" or options.quick, answer.fallback_reason
            for name, times in taken.items():
                if number:  # The first round warms up.
                    medians[name].append(median(times))
    return medians


@contextlib.asynccontextmanager
async def _sessions(
    edges: list[Reached], profiled: Profiled, query: Any, rate_Bps: float
) -> AsyncIterator[dict[str, ours.Session]]:
    async with contextlib.AsyncExitStack() as stack:
        sessions = {}
        for edge in edges:
            session = await stack.enter_async_context(edge.session(profiled, query, rate_Bps))
            await session.reached("ready")
            sessions[edge.contender.name] = session
        yield sessions


async def _goodputs(
    edges: list[Reached], size: int, rate_Bps: float, rounds: int
) -> dict[str, list[float]]:
    speeds: dict[str, list[float]] = {edge.contender.name: [] for edge in edges}
    for number in range(rounds):
        # Bytes that no edge has seen, and no coding shortens.
        profiled, query = ours.network(1_000, ours.tables(size, number + 1))
        for edge in edges:
            async with edge.session(profiled, query, rate_Bps) as session:
                await session.reached("ready")
                speeds[edge.contender.name].append(size / session.upload_s)
    return speeds


def _rows(
    what: str,
    unit: str,
    values: dict[str, list[float]],
    scale: float,
    bound: float | None,
    *,
    most: bool,
) -> Iterator[dict[str, Any]]:
    for name, seen in values.items():
        ratios = [mine / plain for mine, plain in zip(seen, values["plain"], strict=True)]
        ratio = median(ratios)
        ok = None
        if bound is not None and name == "secure":
            ok = ratio <= bound if most else ratio >= bound
        yield {
            "what": what,
            "who": name,
            "median": scale * median(seen),
            "unit": unit,
            "ratio": ratio,
            "spread": [min(ratios), max(ratios)],
            "ok": ok,
        }


def _line(link: str, row: dict[str, Any]) -> str:
    verdict = {None: "", True: "ok", False: "MISSED"}[row["ok"]]
    least, most = row["spread"]
    return (
        f"{link:16} {row['what']:22} {row['who']:8} {row['median']:9.3f} {row['unit']:5}"
        f" {row['ratio']:6.3f}x plain ({least:.3f} to {most:.3f})  {verdict}"
    ).rstrip()


if __name__ == "__main__":
    main()
