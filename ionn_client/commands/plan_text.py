"""What `ionn plan` says in a terminal, in the order in which it is read."""

from __future__ import annotations

from rich.console import Console

from ionn_client.commands.problem import Subject
from ionn_client.quantities import bit_rate, byte_count, joules, seconds
from ionn_client.reports.comparison import OURS, Planned, Problem
from ionn_client.reports.explanation import (
    battery_sentence,
    change_sentences,
    closest_sentences,
    explained,
    limit_sentences,
    moves,
)
from ionn_client.reports.payback_report import StayReport, stay_sentence, stay_table
from ionn_client.reports.plan_view import (
    cache_sentence,
    layer_count,
    limit_lines,
    planner_table,
    show_schedules,
    upload_table,
)
from ionn_client.reports.training_step import TrainingStep
from ionn_client.reports.upload_orders import UploadOrder, worth_it
from planner.power import upload_energy_J

MOST_REASONS = 8
MOST_PARTITIONS = 12


def link_line(what: Subject) -> str:
    """The link that is planned for."""
    link = what.problem.link
    rates = f"{bit_rate(link.up_Bps)} up, {bit_rate(link.down_Bps)} down"
    return f"{rates}, {seconds(link.rtt_s)} round trip"


def show_plans(
    console: Console,
    network: str,
    what: Subject,
    compared: tuple[Planned, ...],
    orders: tuple[UploadOrder, ...],
    stays: StayReport | None,
) -> None:
    """A query's planners and upload orders."""
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


def show_training(console: Console, network: str, what: Subject, step: TrainingStep) -> None:
    """A training step's planners."""
    _show_subject(console, network, what)
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
    show_schedules(console, step.rows, step.costs.steps.names or ())


def show_reasons(
    console: Console, problem: Problem, names: tuple[str, ...], chosen: Planned
) -> None:
    """Why layers are where they are, and what would move them."""
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


def _show_subject(console: Console, network: str, what: Subject) -> None:
    costs, graph = what.problem.costs, what.profiled.graph
    console.print(
        f"{network}: {layer_count(len(costs))}, {byte_count(sum(graph.weight_bytes))} of weights,"
        f" {byte_count(costs.total_bytes)} as coded.\n"
        f"Client: {what.device}, {seconds(float(costs.client_s.sum()))} for a query alone.\n"
        f"Edge: {what.edge}, {seconds(float(costs.edge_s.sum()))}.\n"
        f"Link: {link_line(what)}.\n"
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
