"""`ionn run`: query a network together with a real edge box."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from ionn_client.boxes.access import Access
from ionn_client.boxes.connection import CONNECT_TIMEOUT_S
from ionn_client.commands.arguments import (
    Json,
    KeepLocal,
    Network,
    Precision,
    State,
)
from ionn_client.commands.energy import (
    POWER_NEEDED,
    RadioKey,
    check_finite,
    stated_objective,
    stated_power,
    stated_time,
)
from ionn_client.commands.stated import (
    BatteryOfAll,
    Goal,
    PowerOf,
    PowerText,
    QueriesPerHour,
    RadioName,
    SecondsPerJoule,
    StayToUpload,
)
from ionn_client.config import Options
from ionn_client.devices import load_device
from ionn_client.errors import OffloadError
from ionn_client.machine.battery import Battery
from ionn_client.machine.kept import parse_keep_local
from ionn_client.offload import Offload, connect
from ionn_client.quantities import joules
from ionn_client.reports.view import View, megabytes, milliseconds, place
from ionn_client.scenario import Asked, run_scenario
from ionn_client.status import Status
from ionn_client.stay import Stay
from ionn_client.trial import Subject, subject_of
from layergraph.load import load
from planner import Link
from planner.power import LINKS


def run(
    edge: Annotated[
        str, typer.Option(help="A paired box's name or address, e.g. ionn://192.0.2.7:7431.")
    ],
    network: Network = "alexnet",
    queries: Annotated[int, typer.Option(min=1, help="How many queries to ask.")] = 20,
    interval: Annotated[
        float, typer.Option(min=0, help="Seconds from an answer to the next query.")
    ] = 0.5,
    deadline: Annotated[
        str | None,
        typer.Option(help="How long a query may take, e.g. 200ms: one that is late ends the run."),
    ] = None,
    slowdown: Annotated[
        float,
        typer.Option(
            "--device-slowdown",
            min=1.0,
            help="Emulate a device this many times slower than this machine, by waiting.",
        ),
    ] = 1.0,
    precision: Precision = "exact",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--activation-tolerance",
            min=1e-9,
            help="Let what layers hand to the edge be rounded on the way, as far as that puts the"
            " example's answer off by no more than this share of its largest element, e.g. 0.01.",
        ),
    ] = None,
    device: PowerOf = None,
    radio: RadioName = None,
    power: PowerText = None,
    objective: Goal = "latency",
    seconds_per_joule: SecondsPerJoule = None,
    battery: BatteryOfAll = None,
    stay: StayToUpload = None,
    queries_per_hour: QueriesPerHour = 360.0,
    keep_local: KeepLocal = "0,0",
    state: State = None,
    as_json: Json = False,
) -> None:
    """Ask queries of a network while its weights upload to an edge box, and show how it goes.

    Queries are answered from the first on, and also when the edge box is not
    there. Where it is known what the device draws, each query's joules are
    shown; with --stay, only as much is uploaded as pays back until the device
    leaves.
    """
    Access.to(edge, state)  # Before minutes go by.
    console = Console(stderr=as_json, markup=False)
    check_finite("--seconds-per-joule", seconds_per_joule)
    check_finite("--battery", battery)
    check_finite("--queries-per-hour", queries_per_hour)
    stay_s, deadline_s = stated_time("--stay", stay), stated_time("--deadline", deadline)
    if deadline_s is not None and not deadline_s > 0:
        raise ValueError(f"--deadline is more than 0, not {deadline}")
    draws = stated_power(power, radio, None if device is None else load_device(device))
    needing = {"--battery": battery, "--device": device, "--power": power, "--stay": stay}
    for option, value in needing.items():
        if value is not None and draws is None:
            raise ValueError(f"{option} counts joules: {POWER_NEEDED}")
    if stay is not None and precision != "exact":
        raise ValueError("--stay judges whole layers: leave --precision progressive out")
    options = Options(
        device_slowdown=slowdown,
        precision=precision,
        activation_tolerance=tolerance,
        objective=stated_objective(objective, seconds_per_joule, draws),
        battery=None if battery is None else Battery(battery, queries),
        stay=None if stay_s is None else Stay(stay_s, queries_per_hour),
        assumed_link=_assumed_link(radio),
        keep_local=parse_keep_local(keep_local),
        state=state,
    )
    loaded = load(network)
    console.print(f"Capturing {network} and timing its layers here ...", highlight=False)
    what = subject_of(loaded, tolerance=tolerance)
    asked = asyncio.run(_ask(what, edge, options, queries, interval, deadline_s, console, as_json))
    if not as_json:
        console.print(summary(asked), highlight=False)


def _assumed_link(radio: RadioKey | None) -> Link:
    usual = Options().assumed_link
    return usual if radio is None else dataclasses.replace(LINKS[radio], rtt_s=usual.rtt_s)


def summary(asked: Sequence[Asked]) -> str:
    """How fast, how exact and how frugal the answers were, in a line."""
    mean_s = sum(query.latency_s for query in asked) / len(asked)
    exact = [query for query in asked if query.exact]
    queries = "1 query" if len(asked) == 1 else f"{len(asked)} queries"
    text = (
        f"{queries}, mean {milliseconds(mean_s)}, last"
        f" {milliseconds(asked[-1].latency_s)} on {place(asked[-1])};"
        f" {sum(not query.wrong for query in exact)} of {len(exact)} exact answers equal the local"
        " model's"
    )
    if lossy := [query for query in asked if query.lossy]:
        off = max(query.difference for query in lossy)
        text += f"; {len(lossy)} were coded with loss on the way, and are off by at most {off:.2g}"
        text += " of the largest element"
    return f"{text}.{_drawn(asked)}"


def _drawn(asked: Sequence[Asked]) -> str:
    """The joules, where they are known."""
    if any(query.energy_J is None for query in asked):
        return ""
    drawn_J, left_J = sum(query.energy_J or 0.0 for query in asked), asked[-1].battery_J
    text = f" The device drew {joules(drawn_J)}, {joules(drawn_J / len(asked))} a query"
    if left_J is None:
        return f"{text}."
    if left_J < 0:
        return f"{text}: {joules(-left_J)} more than the battery had."
    return f"{text}; {joules(left_J)} of the battery are left."


async def _ask(
    what: Subject,
    edge: str,
    options: Options,
    queries: int,
    interval: float,
    deadline_s: float | None,
    console: Console,
    as_json: bool,
) -> list[Asked]:
    done: list[Asked] = []
    async with connect(what.profiled, what.inputs[0], edge=edge, options=options) as net:
        view = View(f"{what.name} with {net.status.edge}", console, quiet=as_json)

        def on_query(query: Asked) -> None:
            done.append(query)
            view.show(net.status, done)
            if as_json:
                print(json.dumps(_record(query)), flush=True)

        try:
            with view:
                view.show(net.status, done)
                asked = await run_scenario(
                    net,
                    what.inputs,
                    what.references,
                    lambda _, asked: len(asked) >= queries,
                    on_query,
                    interval,
                    deadline_s,
                )
        except asyncio.CancelledError:
            # Ctrl-C: what was asked and sent was not in vain.
            for line in _so_far(net.status, done):
                console.print(line, highlight=False)
            raise
        if (said := await _not_used(net)) is not None:
            console.print(said, highlight=False, soft_wrap=True)
        return asked


def _so_far(status: Status, done: Sequence[Asked]) -> Iterator[str]:
    """What there is when the person has enough."""
    if done:
        yield summary(done)
    if status.phase == "uploading":
        held, total = megabytes(status.held_bytes), megabytes(status.total_bytes)
        yield f"{held} of {total} are on {status.edge}: the next run goes on from there."


async def _not_used(net: Offload) -> str | None:
    """Why the edge was of no use in the end, in words for the person; None if it was."""
    if net.status.phase in ("connecting", "greeting") and net.status.error is None:
        # It was not tried for long.
        with contextlib.suppress(OffloadError):
            await net.uploaded(CONNECT_TIMEOUT_S)
    status = net.status
    if status.phase == "offering":
        slow = "has not said yet what it has of the model. More --queries give it time"
        return f"{status.edge} was not used: it {slow}."
    if status.phase not in ("connecting", "greeting", "rejected"):
        return None
    if status.error is None:
        return f"{status.edge} is not connected: it has not answered."
    return f"{status.edge} is not used: {status.error}."


def _record(query: Asked) -> dict[str, Any]:
    return {"event": "query", **dataclasses.asdict(query)}
