"""`ionn plan`: in which order the layers would be uploaded, and what queries would take."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ionn_client.commands.arguments import (
    Json,
    Network,
    Rate,
    RoundTrip,
    Slowdown,
    print_json,
)
from ionn_client.device import device_slowdown
from ionn_client.emulate import LinkSpec
from ionn_client.offload import prepare
from ionn_client.trial import planner_link
from layergraph import LayerGraph
from layergraph.load import load
from planner import LayerCosts, Link, UploadPlan, route, timeline, upload_plan
from planner.timeline import Ack
from planner.upload import Algorithm

# Each with the acknowledgements that it was published with.
SCHEMES: tuple[tuple[Algorithm, float, Ack], ...] = (
    ("efficiency", 0.5, "layer"),
    ("ionn", 0.1, "partition"),
    ("ionn", 0.5, "partition"),
    ("ionn", 0.9, "partition"),
    ("front-to-back", 0.5, "layer"),
    ("all-at-once", 0.5, "partition"),
)


def plan(
    network: Network = "alexnet",
    rate: Rate = "80mbit",
    rtt: RoundTrip = "5ms",
    slowdown: Slowdown = None,
    edge_speed: Annotated[
        float,
        typer.Option(min=1e-3, help="How many times this machine's speed the edge computes at."),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Compare upload orders for a network, a link and a device, without an edge box."""
    loaded = load(network)
    profiled = prepare(loaded.model, loaded.args, loaded.kwargs)
    factor = device_slowdown(slowdown, profiled if network == "alexnet" else None)
    graph = profiled.graph
    link = planner_link(LinkSpec.parse(rate, rtt=rtt))
    costs = profiled.costs(link, factor, edge_speed)
    plans = {
        f"{name} K={k}" if name == "ionn" else name: (upload_plan(costs, link, name, k), ack)
        for name, k, ack in SCHEMES
    }
    rows = [_row(name, costs, link, order, ack) for name, (order, ack) in plans.items()]
    best = route(costs, link, frozenset(range(len(graph.layers))))
    if as_json:
        print_json(
            {
                "network": network,
                "device_slowdown": factor,
                "local_s": sum(costs.client_s),
                "best_s": best.latency_s,
                "best_route": [[part.where, part.start, part.stop] for part in best.ranges],
                "upload_bytes": sum(graph.weight_bytes),
                "schemes": rows,
                "order": [[graph.layers[i].name for i in part]
                          for part in plans["efficiency"][0].partitions],
            }
        )  # fmt: skip
        return
    _show(network, graph, costs, link, rows, plans["efficiency"][0])


def _row(name: str, costs: LayerCosts, link: Link, order: UploadPlan, ack: Ack) -> dict[str, Any]:
    line = timeline(costs, link, order, ack=ack)
    return {
        "scheme": name,
        "partitions": len(order.partitions),
        "mean_latency_s": line.mean_latency_s,
        "final_latency_s": line.points[-1].latency_s,
    }


def _show(
    network: str,
    graph: LayerGraph,
    costs: LayerCosts,
    link: Link,
    rows: list[dict[str, Any]],
    order: UploadPlan,
) -> None:
    console = Console()
    upload_s = costs.total_bytes / link.up_Bps
    console.print(
        f"{network}: {len(graph.layers)} layers, {sum(graph.weight_bytes) / 1e6:.1f} MB, "
        f"{sum(costs.client_s):.2f} s on the device, {upload_s:.1f} s to upload",
        highlight=False,
    )
    table = Table()
    for heading in ("upload order", "partitions", "mean latency while uploading", "then"):
        table.add_column(heading, justify="left" if heading == "upload order" else "right")
    for row in rows:
        table.add_row(
            row["scheme"],
            str(row["partitions"]),
            f"{row['mean_latency_s']:.3f} s",
            f"{row['final_latency_s']:.3f} s",
        )
    console.print(table)
    console.print("Order of the first, by layer:", highlight=False)
    for number, partition in enumerate(order.partitions, 1):
        size = sum(graph.weight_bytes[layer] for layer in partition)
        names = [graph.layers[layer].name for layer in partition]
        shown = ", ".join(names if len(names) <= 6 else [*names[:3], "...", *names[-2:]])
        console.print(f"  {number:3}. {size / 1e6:7.2f} MB  {shown}", highlight=False)
