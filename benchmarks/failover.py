"""Kills the edge, and lets the link fall silent, while queries run: how soon is each answered?

Shows, with hedging and without, in turn: how long the first query that the edge fails waits until
it moves to this side and until it is answered, from the fault on or from when it was asked if that
was later; until the edge is given up; and how many queries were hedged before anything failed.
The link is emulated (80 Mbit/s, 2 ms); a silent one is its process stopped (SIGSTOP), so that
nothing comes, not even the end of the connection.
Run: python benchmarks/failover.py [--rounds 10] [--seed 0] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from link_figures.capacity import free_port

from ionn_client import Offload, Options, QueryResult, connect
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from ionn_client.scenario import difference
from ionn_client.trial import Subject, subject

FAULTS = ("kill", "silence")
WAYS = ("hedging", "waiting")
QUERIES_BEFORE = 25
# Longer than any detection takes.
GIVEN_UP_S = 10.0
LAN_S, HALF_OPEN_S = 0.15, 2.0


@dataclass(slots=True)
class Trial:
    """One fault. Seconds from it on, or from the first query asked after it."""

    fault: str
    way: str
    moved_s: float | None = None
    answered_s: float | None = None
    given_up_s: float | None = None
    queries: int = 0
    hedges_before: int = 0
    wrong: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)

    def trace(self, record: dict[str, Any]) -> None:
        kind = record["event"] if record["event"] != "phase" else record["phase"]
        self.times.setdefault(kind, []).append(time.monotonic())

    def since(self, fault_at: float, *kinds: str) -> float | None:
        """When the first of these was recorded after the fault."""
        seen = [at for kind in kinds for at in self.times.get(kind, []) if at >= fault_at]
        return min(seen) - fault_at if seen else None


class Bed:
    """An edge that comes back where it was, with what it stored."""

    def __init__(self, store: str) -> None:
        self._store, self._port = store, free_port()
        self.edge: EdgeProcess

    @contextmanager
    def running(self) -> Iterator[Bed]:
        self.start()
        try:
            yield self
        finally:
            self.edge.__exit__(None, None, None)

    def start(self) -> None:
        options = ("--calibration", "off")
        self.edge = EdgeProcess(self._store, port=self._port, options=options).__enter__()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--rate", default="80mbit")
    parser.add_argument("--rtt", default="2ms")
    parser.add_argument("--slowdown", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="lenet, one round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.network, options.rounds, options.slowdown = "lenet", 1, 200.0
    spec = LinkSpec.parse(options.rate, rtt=options.rtt)
    what = subject(options.network, runs=2)
    local_s = options.slowdown * sum(what.profiled.client_s)
    chance = random.Random(options.seed)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="ionn-failover-") as store, Bed(store).running() as bed:
        for number in range(options.rounds):
            for fault in FAULTS:
                # In turn, and not always the same one first.
                for way in WAYS if number % 2 == 0 else WAYS[::-1]:
                    trial = Trial(fault, way)
                    asyncio.run(_run(trial, what, spec, bed, options.slowdown, chance))
                    trials.append(trial)
    report = _report(trials, local_s)
    print(json.dumps(report, indent=2) if options.json else _text(report, local_s))
    sys.exit(sum(trial.wrong for trial in trials) + sum(t.answered_s is None for t in trials))


async def _run(
    trial: Trial, what: Subject, spec: LinkSpec, bed: Bed, slowdown: float, chance: random.Random
) -> None:
    options = Options(
        device_slowdown=slowdown, hedging=trial.way == "hedging", trace=trial.trace
    )  # fmt: skip
    with LinkProcess(spec, bed.address) as link:
        address = f"{link.host}:{link.port}"
        async with connect(what.profiled, what.inputs[0], edge=address, options=options) as net:
            await net.uploaded(timeout_s=60 + 4 * what.total_bytes / spec.up_Bps)
            for number in range(QUERIES_BEFORE):
                await _ask(net, what, trial, number)
            trial.hedges_before = net.status.hedges
            try:
                await _break(net, what, trial, bed, link, chance)
            finally:
                os.kill(link.pid, signal.SIGCONT)
    if trial.fault == "kill":
        await asyncio.to_thread(bed.start)


async def _break(
    net: Offload, what: Subject, trial: Trial, bed: Bed, link: LinkProcess, chance: random.Random
) -> None:
    """A fault at any moment of a query; measured on the first one that the edge fails."""
    began = time.monotonic()
    await _ask(net, what, trial, 0)
    usual_s = time.monotonic() - began
    query = asyncio.create_task(_ask(net, what, trial, 1))
    await asyncio.sleep(chance.uniform(0.0, 0.9) * usual_s)
    fault_at = asked_at = time.monotonic()
    if trial.fault == "kill":
        os.kill(bed.edge.process.pid, signal.SIGKILL)
    else:
        os.kill(link.pid, signal.SIGSTOP)
    result = await query
    while result.served_by == "edge":
        # Its answer was there already, or on its way.
        asked_at = time.monotonic()
        result = await _ask(net, what, trial, 2)
    trial.answered_s = time.monotonic() - asked_at
    async with asyncio.timeout(GIVEN_UP_S):
        while trial.since(fault_at, "connecting") is None:
            await _ask(net, what, trial, 3)
    trial.given_up_s = trial.since(fault_at, "connecting")
    trial.moved_s = trial.since(asked_at, "connecting", "hedge")
    if "edge slow" in (result.fallback_reason or "") and trial.way == "waiting":
        # Given up for its time, which is recorded nowhere else.
        trial.moved_s = max(0.0, trial.answered_s - net.status.local_latency_s)
    if trial.fault == "kill":
        await asyncio.to_thread(bed.edge.kill)


async def _ask(net: Offload, what: Subject, trial: Trial, number: int) -> QueryResult:
    index = number % len(what.inputs)
    result = await net.query(*what.inputs[index])
    trial.queries += 1
    trial.wrong += difference(result.value, what.references[index]) > 0
    return result


def _report(trials: Sequence[Trial], local_s: float) -> dict[str, Any]:
    report: dict[str, Any] = {"local_s": round(local_s, 3)}
    for fault in FAULTS:
        for way in WAYS:
            these = [trial for trial in trials if (trial.fault, trial.way) == (fault, way)]
            report[f"{fault}, {way}"] = {
                "trials": len(these),
                "queries": sum(trial.queries for trial in these),
                "wrong": sum(trial.wrong for trial in these),
                "hedges_before": sum(trial.hedges_before for trial in these),
                **{
                    name: _spread([getattr(trial, name) for trial in these])
                    for name in ("moved_s", "answered_s", "given_up_s")
                },
            }
        pair = [report[f"{fault}, {way}"]["answered_s"] for way in WAYS]
        if all(pair):
            report[f"{fault}, waiting over hedging"] = round(
                pair[1]["median"] / pair[0]["median"], 2
            )
    report["kill_moved_within_150_ms"] = _within(trials, "kill", "moved_s", LAN_S)
    report["silence_given_up_within_2_s"] = _within(trials, "silence", "given_up_s", HALF_OPEN_S)
    return report


def _within(trials: Sequence[Trial], fault: str, name: str, limit_s: float) -> str:
    seen = [getattr(trial, name) for trial in trials if trial.fault == fault]
    seen = [seconds for seconds in seen if seconds is not None]
    return f"{sum(seconds <= limit_s for seconds in seen)} of {len(seen)}"


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return {
        "median": round(statistics.median(known), 4),
        "least": round(known[0], 4),
        "most": round(known[-1], 4),
    }


def _text(report: dict[str, Any], local_s: float) -> str:
    lines = [f"Seconds from the fault; a query takes {local_s:.2f} s here alone.", ""]
    lines.append(f"{'':20} {'moved':>22} {'answered':>22} {'edge given up':>22}  hedges before")
    for name, row in report.items():
        if isinstance(row, dict):
            spreads = "".join(
                f" {_cell(row[key]):>22}" for key in ("moved_s", "answered_s", "given_up_s")
            )
            lines.append(f"{name:20}{spreads}  {row['hedges_before']} of {row['queries']}")
    lines += ["", *(f"{k}: {v}" for k, v in report.items() if not isinstance(v, dict))]
    return "\n".join(lines)


def _cell(spread: dict[str, float] | None) -> str:
    if spread is None:
        return "-"
    return f"{spread['median']:.3f} ({spread['least']:.3f}-{spread['most']:.3f})"


if __name__ == "__main__":
    main()
