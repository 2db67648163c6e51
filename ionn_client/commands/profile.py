"""`ionn profile`: what each layer costs on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ionn_client.commands.arguments import Json, Network, print_json
from ionn_client.config import Options
from ionn_client.offload import prepare
from layergraph.load import load


def profile(
    network: Network = "alexnet",
    runs: Annotated[int, typer.Option(min=1, help="Timed passes; the median counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of execution.")] = 1,
    as_json: Json = False,
) -> None:
    """Show each layer's time here, its weights, and what is alive where it could be cut."""
    loaded = load(network)
    options = Options(profile_runs=runs, threads=threads)
    profiled = prepare(loaded.model, loaded.args, loaded.kwargs, options)
    graph = profiled.graph
    rows: list[dict[str, Any]] = [
        {
            "layer": index,
            "name": layer.name,
            "client_s": profiled.client_s[index],
            "weight_bytes": graph.weight_bytes[index],
            "cut_bytes": graph.cut_bytes[index],
            "cut_tensors": len(graph.cuts[index]),
        }
        for index, layer in enumerate(graph.layers)
    ]
    if as_json:
        total_s = sum(profiled.client_s)
        print_json(
            {
                "network": network,
                "fingerprint": graph.fingerprint,
                "client_s": total_s,
                "weight_bytes": sum(graph.weight_bytes),
                "output_bytes": graph.cut_bytes[-1],
                "layers": rows,
            }
        )
        return
    table = Table(title=f"{network}: {len(rows)} layers", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("layer")
    for heading in ("time here", "weights", "alive before it"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["layer"]),
            str(row["name"]),
            f"{row['client_s'] * 1e3:.2f} ms",
            f"{row['weight_bytes'] / 1e6:.2f} MB",
            f"{row['cut_bytes'] / 1e3:.1f} KB in {row['cut_tensors']}",
        )
    table.add_section()
    table.add_row(
        "",
        "total",
        f"{sum(profiled.client_s) * 1e3:.2f} ms",
        f"{sum(graph.weight_bytes) / 1e6:.2f} MB",
        f"{graph.cut_bytes[-1] / 1e3:.1f} KB out",
    )
    Console().print(table)
