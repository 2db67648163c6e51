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
from ionn_client.quantities import byte_count, seconds
from layergraph.load import load


def profile(
    network: Network = "alexnet",
    runs: Annotated[
        int, typer.Option(min=1, help="How often all is timed; the median counts.")
    ] = 5,
    threads: Annotated[
        int, typer.Option(min=1, help="Processor threads that a layer runs with.")
    ] = 1,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--activation-tolerance",
            min=0.0,
            help="Measure codings with loss, too. In brackets are those that put the answer off by"
            " more than this share of its largest element.",
        ),
    ] = None,
    grouped: Annotated[
        bool,
        typer.Option(
            "--grouped",
            help="Show instead what layers in a row take together, and how well that is predicted"
            " from a few measured rows.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show each layer's time here, its weights, and the bytes that a cut before it would send.

    A layer's time is what it adds to those before it; starting up counts with the first. Bytes are
    shown as they are and as coded without loss.
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
    headings = ["time here", "weights", "a cut sends", "coded"]
    for heading in [*headings, "lossy: error"] if tolerance else headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row["layer"]),
            str(row["name"]),
            seconds(row["client_s"]),
            byte_count(row["weight_bytes"]),
            byte_count(row["cut_bytes"]) + _in_tensors(row["cut_tensors"]),
            byte_count(row["coded_bytes"]),
            *([_lossy(row)] if tolerance else []),
        )
    table.add_section()
    table.add_row(
        "",
        "total",
        seconds(sum(profiled.client_s)),
        byte_count(sum(graph.weight_bytes)),
        f"answer: {byte_count(graph.cut_bytes[-1])}",
    )
    Console().print(table)


def _in_tensors(tensors: int) -> str:
    return f" in {tensors}" if tensors > 1 else ""


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
    text = f"{best['coding']} {byte_count(best['bytes'])}: {best['error']:.2g}"
    return text if best["allowed"] else f"({text})"
