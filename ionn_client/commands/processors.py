"""`ionn plan --processors`: which processors of one device run which layers, without an edge."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from ionn_client.commands.arguments import print_json
from ionn_client.commands.energy import check_finite, stated_time
from ionn_client.commands.problem import Asked
from ionn_client.devices import DeviceProfile
from ionn_client.errors import OffloadError
from ionn_client.quantities import byte_count, joules, seconds
from ionn_client.reports.cells import layer_span
from ionn_client.reports.plan_view import layer_count, plain_table
from ionn_client.reports.processors import (
    Amount,
    LocalPlan,
    local_costs,
    local_plans,
    stated_processors,
)
from layergraph import LayerGraph, capture
from layergraph.load import load
from planner import LocalCosts

_OF_EDGES = {
    "--rate": "rate", "--up": "up", "--down": "down", "--device": "device", "--edge": "edge",
    "--radio": "radio", "--power": "power", "--device-slowdown": "slowdown",
    "--edge-speed": "edge_speed", "--edge-limit": "edge_limit", "--stay": "stay",
    "--cache": "cache", "--seconds-per-joule": "s_per_J", "--grouped": "grouped",
    "--training": "training", "--explain": "explain",
}  # fmt: skip


def plan_processors(asked: Asked, text: str, *, as_json: bool) -> None:
    """Print every way to run a query on these processors.

    Raises ValueError that names the option, and OffloadError where no way keeps the limits.
    """
    profiles = _checked(asked, text)
    latency_s = stated_time("--deadline", asked.deadline)
    loaded = load(asked.network)
    graph, _ = capture(loaded.model, loaded.args, loaded.kwargs)
    costs = local_costs(graph, profiles)
    minimise: Amount = "energy_J" if asked.objective == "energy" else "latency_s"
    plans = local_plans(costs, minimise, latency_s, asked.battery_J)
    if as_json:
        print_json(_report(asked, graph, costs, plans))
    else:
        _show(asked, graph, profiles, plans)
    if all(plan.shares is None or plan.broken for plan in plans):
        raise OffloadError(f"no plan found: {plans[-1].note}")


def _checked(asked: Asked, text: str) -> tuple[DeviceProfile, ...]:
    if asked.objective == "mix":
        raise ValueError("--processors minimises seconds or joules: --objective latency or energy")
    for option, name in _OF_EDGES.items():
        if getattr(asked, name):
            raise ValueError(f"{option} does not go with --processors, which plans without an edge")
    if any(asked.keep_local):
        raise ValueError("--keep-local does not go with --processors, which plans without an edge")
    if asked.server_load != 1:
        raise ValueError("--server-load does not go with --processors, which plans without an edge")
    check_finite("--battery", asked.battery_J)
    return stated_processors(text)


def _show(
    asked: Asked,
    graph: LayerGraph,
    profiles: Sequence[DeviceProfile],
    plans: Sequence[LocalPlan],
) -> None:
    console = Console(highlight=False)
    size = byte_count(sum(graph.weight_bytes))
    named = "; ".join(f"{profile.key}, {profile.name}" for profile in profiles)
    console.print(
        f"{asked.network}: {layer_count(len(graph.layers))}, {size} of weights.\n"
        f"Processors: {named}. They share the board's memory, so that nothing is copied. None is"
        " taken to slow another, which shows split layers at their best.\n"
    )
    console.print(_plans_table(plans))
    limits = [("deadline", asked.deadline), ("battery budget", asked.battery_J)]
    if any(value is not None for _, value in limits):
        over = "; ".join(plan.planner for plan in plans if plan.broken) or "none"
        told = " or the ".join(name for name, value in limits if value is not None)
        console.print(f"Over the {told}: {over}.")
    for note, same in groupby((plan for plan in plans if plan.note), key=lambda plan: plan.note):
        console.print(f"No plan from {'; '.join(plan.planner for plan in same)}: {note}.")
    *_, on_one, split = plans
    if on_one.shares is not None or split.shares is not None:
        console.print()
        names = [layer.name for layer in graph.layers]
        console.print(_layers_table(names, [profile.key for profile in profiles], on_one, split))


def _plans_table(plans: Sequence[LocalPlan]) -> Table:
    table = plain_table("One query on this device alone")
    for heading in ("plan", "latency", "energy", "planned"):
        table.add_column(heading, justify="left" if heading == "plan" else "right")
    for plan in plans:
        taken = (
            ("none", "")
            if plan.shares is None
            else (seconds(plan.latency_s), joules(plan.energy_J))
        )
        table.add_row(plan.planner, *taken, seconds(plan.cpu_s))
    return table


def _layers_table(
    names: Sequence[str], processors: Sequence[str], on_one: LocalPlan, split: LocalPlan
) -> Table:
    table = plain_table("Which processor runs which layers")
    table.add_column("layers", no_wrap=True)
    rows: list[list[str]] = [[] for _ in names]
    if on_one.shares is not None:
        table.add_column(on_one.planner)
        for row, shares in zip(rows, on_one.shares, strict=True):
            row.append(processors[shares.index(1.0)])
    if split.shares is not None:
        for processor in processors:
            table.add_column(f"split: {processor}", justify="right")
        for row, shares in zip(rows, split.shares, strict=True):
            row += [_percent(share) for share in shares]
    start = 0
    for row, layers in groupby(rows):
        stop = start + len(list(layers))
        table.add_row(layer_span(names, start, stop), *row)
        start = stop
    return table


def _percent(share: float) -> str:
    return "" if share == 0 else f"{share:.1%}" if share < 1 else "all"


def _report(
    asked: Asked, graph: LayerGraph, costs: LocalCosts, plans: Sequence[LocalPlan]
) -> dict[str, Any]:
    return {
        "network": asked.network,
        "processors": [processor.name for processor in costs.processors],
        "idle_W": costs.idle_W,
        "layers": [
            {
                "name": layer.name,
                "units": int(costs.units[i]),
                "seconds": [processor.layer_s[i] for processor in costs.processors],
            }
            for i, layer in enumerate(graph.layers)
        ],
        "plans": [
            {
                "plan": plan.planner,
                "feasible": plan.shares is not None,
                "latency_s": plan.latency_s if plan.shares is not None else None,
                "energy_J": plan.energy_J if plan.shares is not None else None,
                "exceeds": plan.broken,
                "planning_cpu_s": plan.cpu_s,
                "note": plan.note,
                "shares": plan.shares,
            }
            for plan in plans
        ],
    }
