"""`ionn plan`: where every planner would run the layers, and how the weights would be uploaded."""

from __future__ import annotations

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
from ionn_client.machine.kept import parse_keep_local
from ionn_client.reports.comparison import OURS, Planned, Problem, compare
from ionn_client.reports.explanation import (
    battery_sentence,
    change_sentences,
    closest_sentences,
    explained,
    limit_sentences,
    moves,
)
from ionn_client.reports.payback_report import (
    StayReport,
    stay_marks,
    stay_report,
    stay_sentence,
    stay_table,
)
from ionn_client.reports.plan_view import (
    cache_sentence,
    layer_count,
    limit_lines,
    planner_table,
    show_schedules,
    upload_table,
)
from ionn_client.reports.quantities import bit_rate, byte_count, joules, seconds
from ionn_client.reports.training_step import training_step
from ionn_client.reports.upload_orders import UploadOrder, upload_orders, worth_it
from planner.power import upload_energy_J

MOST_REASONS = 8
MOST_PARTITIONS = 12


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
            min=1e-3, help="How many times this machine's speed the edge computes at. Default: 1."
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
            help="Measure here what ranges of layers take in one go, and plan JointDNN with that"
            " too.",
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
            help="Plan without an edge, on stated processors of one device: NAME,NAME as for"
            " --device."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why layers are where they are.")
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Look the schedule up in this file; where it is not there yet, solve for a"
            " hundredfold of rates, round trips and loads, and save that."
        ),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw it all into this file, e.g. plan.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare planners and upload orders for a network, link, device and edge, without a box.

    Layers are timed on this machine unless both sides are stated devices, which needs no timing.
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
    title = f"{network} on {what.device}, with {what.edge}\n{_title(what)}"
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
        return
    console = Console(highlight=False)
    _show(console, asked.network, what, compared, orders, stays)
    if asked.explain:
        _explain(console, what.problem, what.names, compared[-1])
    if figure is not None:
        console.print(f"\nDrawn: {figure}")


def _title(what: Subject) -> str:
    link = what.problem.link
    rates = f"{bit_rate(link.up_Bps)} up, {bit_rate(link.down_Bps)} down"
    return f"{rates}, {seconds(link.rtt_s)} round trip"


def _show(
    console: Console,
    network: str,
    what: Subject,
    compared: tuple[Planned, ...],
    orders: tuple[UploadOrder, ...],
    stays: StayReport | None,
) -> None:
    costs, link = what.problem.costs, what.problem.link
    _show_subject(console, network, what)
    limits = what.problem.limits
    edge_limited = any(limit.name == "edge_time" for limit in limits)
    console.print(planner_table(compared, edge_limited=edge_limited))
    for line in limit_lines(compared, limits):
        console.print(line)
    if what.problem.schedules is not None:
        console.print(cache_sentence(what.problem.schedules))
    console.print()
    show_schedules(console, compared, what.names)
    console.print()
    if not costs.weighted:
        console.print("There are no weights to upload.")
        return
    console.print(upload_table(orders))
    if what.problem.power is not None:
        upload_J = upload_energy_J(costs.total_bytes, link, what.problem.power)
        console.print(f"The radio takes {joules(upload_J)} to upload everything.")
    _show_order(console, what, orders[0])
    if stays is not None:
        console.print()
        console.print(stay_table(stays))
        console.print(stay_sentence(stays))


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
        return
    console = Console(highlight=False)
    _show_subject(console, asked.network, what)
    console.print(
        "A training step runs these layers forward on that input, then backward, taken to be twice"
        " as long. Weights are on both sides before, and after: what the edge changes comes down."
        " This is planned only; ionn does not train.\n"
    )
    edge_limited = any(limit.name == "edge_time" for limit in step.limits)
    console.print(planner_table(step.rows, edge_limited=edge_limited, title="One training step"))
    for line in limit_lines(step.rows, step.limits):
        console.print(line)
    console.print()
    show_schedules(console, step.rows, names)
    if figure is not None:
        console.print(f"\nDrawn: {figure}")


def _show_subject(console: Console, network: str, what: Subject) -> None:
    costs, graph = what.problem.costs, what.profiled.graph
    console.print(
        f"{network}: {layer_count(len(costs))}, {byte_count(sum(graph.weight_bytes))} of weights,"
        f" {byte_count(costs.total_bytes)} as coded.\n"
        f"Client: {what.device}, {seconds(float(costs.client_s.sum()))} for a query alone.\n"
        f"Edge: {what.edge}, {seconds(float(costs.edge_s.sum()))}.\n"
        f"Link: {_title(what)}.\n"
    )
    if costs.local:
        kept = ", ".join(what.names[layer] for layer in sorted(costs.local))
        console.print(f"Kept on the device, and never uploaded: {kept}.\n")


def _show_order(console: Console, what: Subject, order: UploadOrder) -> None:
    if not worth_it(what.problem.objective, order):
        console.print("No weights on the edge would make a query better: upload nothing.")
        return
    console.print(f"Order by {order.name}:")
    sizes = what.profiled.graph.weight_bytes
    partitions = order.plan.partitions
    for number, partition in enumerate(partitions[:MOST_PARTITIONS], 1):
        names = [what.names[layer] for layer in partition]
        shown = ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]])
        size = byte_count(sum(sizes[layer] for layer in partition))
        line = f"  {number:3}. {size:>9}  {shown}"
        console.print(line, no_wrap=True, overflow="ellipsis")
    if (more := len(partitions) - MOST_PARTITIONS) > 0:
        console.print(f"  and {more} more; --json has them all.")


def _explain(console: Console, problem: Problem, names: tuple[str, ...], chosen: Planned) -> None:
    found = explained(problem)
    if chosen.route is None:
        console.print(f"\nNothing to explain: {chosen.note}.")
        return
    limited = chosen.route.placement != found.placement
    if limited:
        moved = moves(found.placement, chosen.route.placement, names)
        console.print(f"\nUnder the limits: {moved}. What follows is of the objective alone.")
        for sentence in limit_sentences(problem, found.placement):
            console.print(sentence)
    has = "the objective alone" if limited else OURS
    console.print(f"\nWhy the layers are where {has} has them:", style="bold")
    for sentence in (told := closest_sentences(found, names, problem.objective, MOST_REASONS)):
        console.print(f"- {sentence}")
    if len(told) == MOST_REASONS:
        console.print("These are the closest calls; --json has the reason of every layer.")
    console.print("\nWhat would change it:", style="bold")
    budget = battery_sentence(problem, found.placement, names)
    for sentence in [*change_sentences(found, names), *([budget] if budget else [])]:
        console.print(f"- {sentence}")
