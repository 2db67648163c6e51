"""`ionn profile`: what each layer costs on this machine."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ionn_client.activations import LOSSLESS, raw_only
from ionn_client.commands.arguments import Json, Network, print_json
from ionn_client.commands.ranges import show_ranges
from ionn_client.config import Options
from ionn_client.profiled import Profiled, prepare
from layergraph.load import load


def profile(
    network: Network = "alexnet",
    runs: Annotated[int, typer.Option(min=1, help="Timed passes; the median counts.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of execution.")] = 1,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--activation-tolerance",
            min=0.0,
            help="Measure lossy codings of what is alive too; mark those whose error in the"
            " answer is within this.",
        ),
    ] = None,
    grouped: Annotated[
        bool,
        typer.Option(
            "--grouped",
            help="Show instead what ranges of layers take in one go, and how well that is"
            " predicted from a few of them.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show each layer's time here, its weights, and what is alive where it could be cut.

    Times are those that layers add to a range, which pay its start-up once, with the first layer.
    What is alive is shown as it is and as coded without loss.
    """
    if grouped:
        show_ranges(network, runs, threads, as_json)
        return
    loaded = load(network)
    options = Options(profile_runs=runs, threads=threads, activation_tolerance=tolerance or None)
    profiled = prepare(loaded.model, loaded.args, loaded.kwargs, options)
    graph = profiled.graph
    rows = _rows(profiled, tolerance)
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
    headings = ["time here", "weights", "alive before it", "coded"]
    for heading in [*headings, "lossy: error"] if tolerance else headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["layer"]),
            str(row["name"]),
            f"{row['client_s'] * 1e3:.2f} ms",
            f"{row['weight_bytes'] / 1e6:.2f} MB",
            f"{row['cut_bytes'] / 1e3:.1f} KB in {row['cut_tensors']}",
            f"{row['coded_bytes'] / 1e3:.1f} KB",
            *([_lossy(row)] if tolerance else []),
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


def _rows(profiled: Profiled, tolerance: float | None) -> list[dict[str, Any]]:
    graph = profiled.graph
    measured = profiled.activations or raw_only(graph)
    allowed = measured.up(tolerance)
    return [
        {
            "layer": index,
            "name": layer.name,
            "client_s": profiled.client_s[index],
            "weight_bytes": graph.weight_bytes[index],
            "cut_bytes": graph.cut_bytes[index],
            "cut_tensors": len(graph.cuts[index]),
            "coded_bytes": min(option.bytes for option in measured.down()[index]),
            "codings": [
                {
                    **dataclasses.asdict(option),
                    "error": 0.0
                    if option.coding in LOSSLESS
                    else measured.errors.get((index, option.coding)),
                    "allowed": option in allowed[index],
                }
                for option in measured.codings[index]
            ],
        }
        for index, layer in enumerate(graph.layers)
    ]


def _lossy(row: dict[str, Any]) -> str:
    """The shortest lossy coding of a cut whose error is known, and whether it may be used."""
    known = [each for each in row["codings"] if each["error"]]
    if not known:
        return ""
    best = min(known, key=lambda each: (not each["allowed"], each["bytes"]))
    text = f"{best['coding']} {best['bytes'] / 1e3:.1f} KB: {best['error']:.2g}"
    return text if best["allowed"] else f"({text})"
