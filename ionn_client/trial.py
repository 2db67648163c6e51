"""One measured run: a fresh edge process, an emulated link and device, IONN's scenario."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ionn_client.config import Options
from ionn_client.emulate import LinkProcess, LinkSpec
from ionn_client.offload import Offload, connect
from ionn_client.processes import EdgeProcess
from ionn_client.profiled import Profiled, prepare
from ionn_client.scenario import PREPARATION_S, Asked, mean_over_time_s, run_scenario
from ionn_client.status import Status
from layergraph.load import LoadedModel, load
from layergraph.networks import NETWORKS, photos
from planner import Link
from planner.timeline import Ack
from planner.upload import Algorithm

# Queries at the end of the upload, so that the final latency shows.
QUERIES_AFTER = 4
INPUTS = 6
# The discard port of this machine: nothing listens, so every query runs here.
NOWHERE = "127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to upload, or None for no edge at all."""

    algorithm: Algorithm | None
    acknowledge: Ack = "layer"
    k: float = 0.5
    precision: str = "exact"


SCHEMES = {
    "local": Scheme(None),
    "all-at-once": Scheme("all-at-once", "partition"),
    "ionn": Scheme("ionn", "partition"),
    "efficiency": Scheme("efficiency"),
    "progressive": Scheme("efficiency", precision="progressive"),
}


@dataclass(frozen=True)
class Subject:
    """A network with inputs and the eager module's own answers to them."""

    name: str
    profiled: Profiled
    inputs: tuple[tuple[Any, ...], ...]
    references: tuple[Any, ...]

    @property
    def total_bytes(self) -> int:
        return sum(self.profiled.graph.weight_bytes)


@dataclass(frozen=True)
class Trial:
    """What one run gave. `records` are its JSONL; `upload_s` None if nothing was uploaded."""

    asked: tuple[Asked, ...]
    status: Status | None
    upload_s: float | None
    goodput_share: float | None
    records: tuple[dict[str, Any], ...] = field(repr=False)

    def latencies_s(self, horizon_s: float) -> list[float]:
        """Of the queries that were asked before the horizon."""
        return [query.latency_s for query in self.asked if query.time_s < horizon_s]

    def mean_latency_s(self, horizon_s: float) -> float:
        """Mean over the queries that were asked before the horizon."""
        latencies = self.latencies_s(horizon_s)
        return sum(latencies) / len(latencies) if latencies else math.nan

    def mean_over_time_s(self, horizon_s: float) -> float:
        """Mean over the time until the horizon, as planner.timeline predicts it."""
        return mean_over_time_s(self.asked, horizon_s)


def subject(name: str, runs: int = 5, tolerance: float | None = None) -> Subject:
    """Load a network, and make a subject of it. Raises UnknownModel, GraphError."""
    return subject_of(load(name), runs, tolerance)


def subject_of(loaded: LoadedModel, runs: int = 5, tolerance: float | None = None) -> Subject:
    """Compute the module's own answers, capture and profile it.

    tolerance: as Options.activation_tolerance, which it is to be run with. Raises GraphError.
    """
    inputs = _inputs(loaded)
    torch.set_num_threads(1)
    with torch.inference_mode():
        references = tuple(loaded.model(*args, **loaded.kwargs) for args in inputs)
    options = Options(profile_runs=runs, activation_tolerance=tolerance)
    profiled = prepare(loaded.model, inputs[0], loaded.kwargs, options)
    return Subject(loaded.name, profiled, inputs, references)


def _inputs(loaded: LoadedModel) -> tuple[tuple[Any, ...], ...]:
    """Different inputs like the example: real photos where the network takes photos."""
    network = NETWORKS.get(loaded.name)
    if network is not None and network.inputs == "photo":
        size = loaded.args[0].shape[1]
        return tuple((photo,) for photo in itertools.islice(photos(size), INPUTS))
    return tuple(
        tuple(a.roll(k) if isinstance(a, torch.Tensor) else a for a in loaded.args)
        for k in range(INPUTS)
    )


def planner_link(spec: LinkSpec) -> Link:
    """The emulated link as the planner has it."""
    return Link(spec.up_Bps, spec.down_Bps, spec.rtt_s)


async def run_trial(
    scheme: Scheme,
    what: Subject,
    spec: LinkSpec,
    slowdown: float,
    *,
    horizon_s: float,
    on_change: Callable[[Status, Sequence[Asked]], None] = lambda *_: None,
    preparation_s: float = PREPARATION_S,
) -> Trial:
    """Run the scenario for `horizon_s`, and on until the upload is done and used a few times."""
    records: list[dict[str, Any]] = []
    options = Options(
        algorithm=scheme.algorithm or "efficiency",
        acknowledge=scheme.acknowledge,
        k=scheme.k,
        precision=scheme.precision,
        device_slowdown=slowdown,
        # SoCC'18 plans once, for the link as measured beforehand; all are given that link.
        replan=scheme.algorithm == "efficiency",
        assumed_link=planner_link(spec),
        trace=records.append,
    )
    with contextlib.ExitStack() as processes:
        address = NOWHERE
        if scheme.algorithm is not None:
            edge = processes.enter_context(EdgeProcess())
            link = processes.enter_context(LinkProcess(spec, edge.address))
            address = f"{link.host}:{link.port}"
        async with connect(what.profiled, what.inputs[0], edge=address, options=options) as net:

            def enough(time_s: float, asked: Sequence[Asked]) -> bool:
                done = sum(query.phase == "ready" for query in asked) >= QUERIES_AFTER
                ended = scheme.algorithm is None or net.status.phase == "rejected" or done
                return ended and time_s >= horizon_s

            asked = await _watched(net, what, enough, on_change, preparation_s)
            status = net.status
    records.extend({"event": "query", **dataclasses.asdict(query)} for query in asked)
    upload_s, goodput_Bps = _upload(records)
    share = None if goodput_Bps is None else goodput_Bps / spec.up_Bps
    return Trial(tuple(asked), status, upload_s, share, tuple(records))


async def _watched(
    net: Offload,
    what: Subject,
    enough: Callable[[float, Sequence[Asked]], bool],
    on_change: Callable[[Status, Sequence[Asked]], None],
    preparation_s: float,
) -> list[Asked]:
    """The scenario, reporting every fifth of a second how it goes."""
    shown: list[Asked] = []

    async def watch() -> None:
        while True:
            on_change(net.status, shown)
            await asyncio.sleep(0.2)

    watcher = asyncio.create_task(watch())
    try:
        return await run_scenario(
            net, what.inputs, what.references, enough, shown.append, preparation_s
        )
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        on_change(net.status, shown)


def _upload(records: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Seconds that the upload took, and the uplink's goodput meanwhile: weights and queries."""
    phases = {r["phase"]: r for r in records if r["event"] == "phase"}
    if "uploading" not in phases or "ready" not in phases:
        return None, None
    seconds = phases["ready"]["time_s"] - phases["uploading"]["time_s"]
    carried = phases["ready"]["sent_bytes"] + phases["ready"]["query_bytes"]
    return seconds, carried / seconds
