"""Progressive precision against exact: mean latency while uploading, and what answers are worth."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ionn_client import Offload, Options, connect
from ionn_client.device import device_slowdown
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.processes import EdgeProcess
from ionn_client.scenario import difference
from ionn_client.trial import Subject, planner_link, subject
from link_figures.figures import Figure, at_least, at_most

# The median of the Wi-Fi links in SoCC'18's evaluation, as in the comparison.
RATE, RTT, QUEUE = "18.88mbit", "5ms", "256k"
GAIN = 2.5
AFTER = 4  # queries after the upload


@dataclass(frozen=True, slots=True)
class Answered:
    """One query: when asked, how long it took, at which precision, and what came of it."""

    time_s: float
    latency_s: float
    precision: str
    same_top1: bool
    difference: float


@dataclass(frozen=True, slots=True)
class Run:
    answers: tuple[Answered, ...]
    upload_s: float
    sent_bytes: int

    def mean_latency_s(self, horizon_s: float) -> float:
        latencies = [each.latency_s for each in self.answers if each.time_s < horizon_s]
        return sum(latencies) / len(latencies)


def progressive(settings: dict[str, Any]) -> Iterator[Figure]:
    """Both precisions one after the other on the same link; the horizon is exact's upload time."""
    for name in settings["networks"]:
        what = subject(name, runs=settings["profile_runs"])
        slowdown = device_slowdown(settings["slowdown"])
        runs = {
            precision: asyncio.run(_run(what, precision, slowdown, settings))
            for precision in ("exact", "progressive")
        }
        yield from _figures(name, runs["exact"], runs["progressive"])


async def _run(what: Subject, precision: str, slowdown: float, settings: dict[str, Any]) -> Run:
    spec = LinkSpec.parse(settings["rate"], rtt=RTT, queue=QUEUE)
    times: dict[str, float] = {}
    options = Options(
        precision=precision,
        device_slowdown=slowdown,
        assumed_link=planner_link(spec),
        trace=lambda r: times.update({r["phase"]: r["time_s"]}) if r["event"] == "phase" else None,
    )
    with (
        tempfile.TemporaryDirectory(prefix="ionn-link-") as store,
        EdgeProcess(store) as edge,
        LinkProcess(spec, edge.address) as link,
    ):
        where = f"{link.host}:{link.port}"
        async with connect(what.profiled, what.inputs[0], edge=where, options=options) as net:
            answers = await _ask(net, what, settings["pause_s"])
            return Run(tuple(answers), times["ready"], net.status.sent_bytes)


async def _ask(net: Offload, what: Subject, pause_s: float) -> list[Answered]:
    """Queries until a few after the upload."""
    loop = asyncio.get_running_loop()
    began, after, answers = loop.time(), 0, list[Answered]()
    while after < AFTER:
        await asyncio.sleep(pause_s)
        after += net.status.phase == "ready"
        index = len(answers) % len(what.inputs)
        asked_s = loop.time() - began
        result = await net.query(*what.inputs[index])
        answers.append(_answered(asked_s, result, what.references[index]))
    return answers


def _answered(time_s: float, result: Any, reference: torch.Tensor) -> Answered:
    value = result.value
    return Answered(
        time_s,
        result.latency_s,
        result.precision,
        bool(value.argmax() == reference.argmax()),
        difference(value, reference),
    )


def _figures(name: str, exact: Run, progressive: Run) -> Iterator[Figure]:
    horizon_s = exact.upload_s
    means = [run.mean_latency_s(horizon_s) for run in (exact, progressive)]
    yield Figure(f"{name}: mean latency while uploading", "exact", means[0], "s")
    yield Figure(f"{name}: mean latency while uploading", "progressive", means[1], "s")
    ratio = means[0] / means[1]
    yield Figure(f"{name}: exact over progressive", "ours", ratio, "x", at_least(GAIN))
    sent = progressive.sent_bytes / exact.sent_bytes
    yield Figure(f"{name}: bytes, progressive over exact", "ours", sent, "x", at_most(1.01))
    wrong = _unequal(progressive.answers[-AFTER:]) + _unequal(exact.answers)
    yield Figure(f"{name}: final answers not bit-exact", "ours", wrong, "answers", at_most(0))
    coarse = [each for each in progressive.answers if each.precision != "exact"]
    if coarse:
        agreement = sum(each.same_top1 for each in coarse) / len(coarse)
        detail = {
            "answers": len(coarse),
            "largest_difference": max(each.difference for each in coarse),
        }
        label = f"{name}: top-1 agreement below exact"
        yield Figure(label, "progressive", agreement, "of answers", None, detail)


def _unequal(answers: Sequence[Answered]) -> int:
    return sum(each.difference > 0 for each in answers)
