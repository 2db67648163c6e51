"""Kills the edge box at random moments of an upload while queries run, and counts what is lost.

Shows: every query is answered, every answer equals the local model's, the upload resumes, and
how many bytes were sent twice. Run: python benchmarks/kill.py [--kills 10] [--seed 0] [--quick]
[--precision progressive]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from typing import Any

from link_figures.capacity import free_port

from ionn_client import Offload, Options, Status, connect
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from ionn_client.scenario import EXACT, Asked, run_scenario
from ionn_client.trial import Subject, subject
from wire import DEFAULT_LIMITS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="alexnet")
    parser.add_argument("--rate", default="80mbit")
    parser.add_argument("--rtt", default="5ms")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", default="exact", choices=["exact", "progressive"])
    parser.add_argument("--quick", action="store_true", help="lenet, two kills")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.network, options.rate, options.kills = "lenet", "4mbit", 2
    spec = LinkSpec.parse(options.rate, rtt=options.rtt)
    what = subject(options.network, runs=1)
    chance = random.Random(options.seed)
    report = asyncio.run(_measure(what, spec, options.kills, options.precision, chance))
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, value in report.items():
            print(f"{name:28} {value}")
    sys.exit(_failures(report))


async def _measure(
    what: Subject, spec: LinkSpec, kills: int, precision: str, chance: random.Random
) -> dict[str, Any]:
    port = free_port()
    # Kills spread over the time that the upload takes, coded, if nothing happens.
    pauses = [chance.uniform(0.1, 1.0) * what.total_bytes / spec.up_Bps / (kills + 2)
              for _ in range(kills)]  # fmt: skip
    events: list[dict[str, Any]] = []
    phases: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ionn-kill-") as store:
        edge = EdgeProcess(store, port=port).__enter__()
        try:
            with LinkProcess(spec, f"127.0.0.1:{port}") as link:
                address = f"{link.host}:{link.port}"
                # Slow enough that queries want the edge whenever it is there.
                trace = Options(trace=events.append, device_slowdown=10.0, precision=precision)
                async with connect(
                    what.profiled, what.inputs[0], edge=address, options=trace
                ) as net:
                    ended = asyncio.Event()
                    querying = asyncio.create_task(
                        run_scenario(net, what.inputs, what.references,
                                     lambda *_: ended.is_set(), preparation_s=0.05)
                    )  # fmt: skip
                    for pause in pauses:
                        await _upload_runs(net)
                        await asyncio.sleep(pause)
                        phases.append(net.status.phase)
                        edge.kill()
                        edge = await asyncio.to_thread(EdgeProcess(store, port=port).__enter__)
                    await net.uploaded(timeout_s=20 + 4 * what.total_bytes / spec.up_Bps)
                    ended.set()
                    asked = await querying
                    status = net.status
        finally:
            edge.__exit__(None, None, None)
    return _report(asked, status, phases, events)


async def _upload_runs(net: Offload) -> None:
    """Until the client and the edge agree on what is held, and bytes flow or all are there."""
    async with asyncio.timeout(60):
        while net.status.phase not in ("uploading", "ready"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def _failures(report: dict[str, Any]) -> int:
    """How much of what must hold does not; what is lost is the segments that were on their way."""
    return sum(
        (
            report["unequal_answers"] > 0,
            not report["uploaded"],
            report["resumed"] != report["kills"],
            report["kills_while_uploading"] != report["kills"],
            report["resent_bytes"] > sum(report["lost_in_flight_bytes"]),
            report["lost_in_flight_most_bytes"] > 2 * DEFAULT_LIMITS.max_segment_bytes,
        )
    )


def _report(
    asked: list[Asked], status: Status, phases: list[str], events: list[dict[str, Any]]
) -> dict[str, Any]:
    resumed = [e for e in events if e["event"] == "phase" and e["phase"] == "uploading"][1:]
    lost = [event["lost_bytes"] for event in resumed]
    return {
        "kills": len(phases),
        "kills_while_uploading": phases.count("uploading"),
        "resumed": len(resumed),
        "queries": len(asked),
        "exact_answers": sum(query.precision == EXACT for query in asked),
        "unequal_answers": sum(q.difference > 0 for q in asked if q.precision == EXACT),
        "fallbacks": sum(query.fallback_reason is not None for query in asked),
        "longest_query_s": round(max(query.latency_s for query in asked), 3),
        "uploaded": status.phase == "ready",
        "total_bytes": status.total_bytes,
        "sent_bytes": status.sent_bytes,
        "resent_bytes": status.resent_bytes,
        "lost_in_flight_bytes": lost,
        "lost_in_flight_most_bytes": max(lost, default=0),
    }


if __name__ == "__main__":
    main()
