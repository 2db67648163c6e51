"""`ionn plan`: where every planner would run the layers, and how the weights would be uploaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ionn_client.commands.arguments import (
    Json,
    KeepLocal,
    Network,
    RoundTrip,
    Slowdown,
    print_json,
)
from ionn_client.commands.plan_report import report, training_report
from ionn_client.commands.plan_text import link_line, show_plans, show_reasons, show_training
from ionn_client.commands.problem import DEFAULT_RATE, Asked, Subject, subject
from ionn_client.commands.processors import plan_processors
from ionn_client.commands.stated import (
    Battery,
    Deadline,
    Device,
    Edge,
    EdgeLimit,
    Goal,
    PowerText,
    QueriesPerHour,
    RadioName,
    SecondsPerJoule,
    ServerLoad,
    StayText,
)
from ionn_client.errors import OffloadError
from ionn_client.machine.kept import parse_keep_local
from ionn_client.reports.comparison import Planned, compare
from ionn_client.reports.payback_report import stay_marks, stay_report
from ionn_client.reports.training_step import training_step
from ionn_client.reports.upload_orders import upload_orders


def plan(
    network: Network = "alexnet",
    rate: Annotated[
        str | None,
        typer.Option(help=f"Rate of the link each way, e.g. 10MB/s. Default: {DEFAULT_RATE}."),
    ] = None,
    up: Annotated[str | None, typer.Option(help="Rate up to the edge, where it differs.")] = None,
    down: Annotated[str | None, typer.Option(help="Rate down, where it differs.")] = None,
    rtt: RoundTrip = "5ms",
    slowdown: Slowdown = None,
    edge_speed: Annotated[
        float | None,
        typer.Option(
            min=1e-3, help="How many times faster than this machine the edge is. Default: 1."
        ),
    ] = None,
    device: Device = None,
    edge: Edge = None,
    server_load: ServerLoad = 1.0,
    radio: RadioName = None,
    power: PowerText = None,
    objective: Goal = "latency",
    seconds_per_joule: SecondsPerJoule = None,
    battery: Battery = None,
    deadline: Deadline = None,
    edge_limit: EdgeLimit = None,
    stay: StayText = None,
    queries_per_hour: QueriesPerHour = 360.0,
    grouped: Annotated[
        bool,
        typer.Option(
            "--grouped",
            help="Time here, too, what layers in a row take together, which is not the sum of each;"
            " adds a row of JointDNN that plans with it.",
        ),
    ] = False,
    training: Annotated[
        bool,
        typer.Option(
            "--training",
            help="Plan a training step in place of a query: all layers forward, then backward.",
        ),
    ] = False,
    keep_local: KeepLocal = "0,0",
    processors: Annotated[
        str | None,
        typer.Option(
            help="Plan for two or more processors of one device instead, without an edge: names as"
            " for --device, with commas between."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why layers are where they are.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Look the schedule up in this file. If there is no such file, first fill it with"
            " schedules for a hundredfold of rates, round trips and server loads."
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw schedules and uploads into this file, e.g. plan.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare planners and upload orders for a network, link, device and edge, without a box.

    Layers are timed on this machine unless both sides are stated devices, which needs no timing.
    Ends with exit code 1 where no schedule keeps the limits.
    """
    if figure is not None:
        # Only then: matplotlib takes most of a second, and writes into the home directory.
        from ionn_client.reports.schedule_figure import check_picture

        check_picture(figure)
    asked = Asked(
        network, rate, up, down, rtt, slowdown, edge_speed, device, edge, radio, power,
        objective, seconds_per_joule, battery, deadline, edge_limit, server_load, grouped,
        stay, queries_per_hour, None if cache is None else str(cache), training, explain,
        parse_keep_local(keep_local),
    )  # fmt: skip
    if processors is not None:
        if figure is not None:
            raise ValueError("--figure does not go with --processors, which draws nothing")
        plan_processors(asked, processors, as_json=as_json)
        return
    what = subject(asked)
    title = f"{network} on {what.device}, with {what.edge}\n{link_line(what)}"
    show = _training if training else _queries
    show(asked, what, title, figure, as_json=as_json)


def _queries(
    asked: Asked, what: Subject, title: str, figure: Path | None, *, as_json: bool
) -> None:
    compared, orders = compare(what.problem), upload_orders(what.problem)
    stays = None
    if what.stay_s is not None:
        stays = stay_report(what.problem, orders[0].plan, what.stay_s, asked.queries_per_h)
    if figure is not None:
        from ionn_client.reports.schedule_figure import draw_plan

        marks, by_energy = stay_marks(stays) if stays else (), asked.objective == "energy"
        draw_plan(compared, orders, what.names, title, figure, marks, by_energy=by_energy)
    if as_json:
        print_json(report(asked, what, compared, orders, stays, explain=asked.explain))
    else:
        console = Console(highlight=False)
        show_plans(console, asked.network, what, compared, orders, stays)
        if asked.explain:
            show_reasons(console, what.problem, what.names, compared[-1])
        if figure is not None:
            console.print(f"\nDrawn: {figure}")
    _check_found(compared)


def _training(
    asked: Asked, what: Subject, title: str, figure: Path | None, *, as_json: bool
) -> None:
    step = training_step(what.problem)
    names = step.costs.steps.names or ()
    if figure is not None:
        from ionn_client.reports.schedule_figure import draw_plan

        draw_plan(step.rows, (), names, f"A training step of {title}", figure)
    if as_json:
        print_json(training_report(asked, what, step))
    else:
        console = Console(highlight=False)
        show_training(console, asked.network, what, step)
        if figure is not None:
            console.print(f"\nDrawn: {figure}")
    _check_found(step.rows)


def _check_found(rows: Sequence[Planned]) -> None:
    """Ours, the last, finds a schedule if there is one. Raises OffloadError where none is."""
    if rows[-1].route is None:
        raise OffloadError(f"no schedule found: {rows[-1].note}")
