"""How good the upload orders are: mean latency while uploading, relative to the exact optimum.

For every network of `layergraph.networks`, each layer is timed on this CPU; the edge takes that
long, the device 4, 20 or 100 times as long. "efficiency" and front-to-back are acknowledged layer
by layer; IONN, EMDL and all-at-once partition by partition, as published. The exact optimum is
over all orders, layer by layer. It needs at most 20 layers with weights: networks with more are
merged at narrow cuts for the comparison (the same table for all), and shown whole beside
"efficiency".

`python benchmarks/plan.py [--quick] [--json FILE]` exits 1 when "efficiency" is more than 1% above
the optimum anywhere. `--quick` takes small made-up tables instead of networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cost_tables import made_up_tables, measured_tables, merge

from planner import LayerCosts, Link, timeline, upload_plan
from planner.exact import MOST_LAYERS
from planner.timeline import Ack
from planner.upload import Algorithm

# JointDNN's 3G, 4G and Wi-Fi uplinks, IONN's Wi-Fi, and a good wireless LAN.
RATES_Mbit = (1.1, 5.85, 18.88, 80.0, 400.0)
SLOWDOWNS = (4.0, 20.0, 100.0)
SCHEMES: tuple[tuple[str, Algorithm, float, Ack], ...] = (
    ("efficiency", "efficiency", 0.5, "layer"),
    ("emdl", "emdl", 0.5, "partition"),
    ("ionn K=0.1", "ionn", 0.1, "partition"),
    ("ionn K=0.5", "ionn", 0.5, "partition"),
    ("ionn K=0.9", "ionn", 0.9, "partition"),
    ("front-to-back", "front-to-back", 0.5, "layer"),
    ("all-at-once", "all-at-once", 0.5, "partition"),
)
ALLOWED = 1.01
TABLE_FIELDS = ("client_s", "edge_s", "weight_bytes", "cut_up_bytes", "cut_down_bytes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small made-up tables")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--slowdowns", type=float, nargs="+", default=SLOWDOWNS,
                        help="device times over measured")  # fmt: skip
    parser.add_argument("--rtt-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7, help="times each layer is measured")
    parser.add_argument("--json", type=Path, help="write results and cost tables here")
    options = parser.parse_args()
    options.slowdown = 1.0  # of the tables; each slowdown is applied to them
    rows, tables = [], {}
    print_header(options)
    for name, costs in made_up_tables() if options.quick else measured_tables(options):
        tables[name] = costs
        for row in network_rows(name, costs, options):
            rows.append(row)
            print_row(row)
    return finish(options, rows, tables)


def network_rows(
    name: str, costs: LayerCosts, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    for slowdown in options.slowdowns:
        device = replace(costs, client_s=slowdown * costs.edge_s)
        for rate in RATES_Mbit:
            link = Link(rate * 125e3, rate * 125e3, options.rtt_ms / 1e3)
            for row in compare(device, link):
                yield {"network": name, "slowdown": slowdown, "Mbit": rate, **row}


def compare(costs: LayerCosts, link: Link) -> Iterator[dict[str, Any]]:
    """One row on at most 20 weighted layers against the optimum; one on all layers if more."""
    merged = merge(costs, MOST_LAYERS)
    exact = upload_plan(merged, link, "exact")
    optimum_s = timeline(merged, link, exact).mean_latency_s
    yield _row(merged, link, optimum_s, "exact")
    if merged is not costs:
        best_s = timeline(costs, link, upload_plan(costs, link)).mean_latency_s
        yield _row(costs, link, best_s, "efficiency")


def _row(costs: LayerCosts, link: Link, unit_s: float, unit: str) -> dict[str, Any]:
    relative = {}
    for label, algorithm, k, ack in SCHEMES:
        plan = upload_plan(costs, link, algorithm, k)
        relative[label] = timeline(costs, link, plan, ack=ack).mean_latency_s / unit_s
    return {
        "weighted_layers": len(costs.weighted),
        "relative_to": unit,
        "mean_latency_s": unit_s,
        "relative": relative,
    }


def print_header(options: argparse.Namespace) -> None:
    print(
        "Mean latency while uploading, relative to the exact optimum ('all': to efficiency);"
        f" round trip {options.rtt_ms:g} ms."
    )
    labels = "".join(f"{label:>15}" for label, *_ in SCHEMES)
    print(
        f"{'network':14}{'layers':>8}{'device':>8}{'Mbit/s':>8}{'unit, s':>9}{labels}", flush=True
    )


def print_row(row: dict[str, Any]) -> None:
    whole = " all" if row["relative_to"] == "efficiency" else ""
    values = "".join(f"{row['relative'][label]:>15.4f}" for label, *_ in SCHEMES)
    print(
        f"{row['network']:14}{str(row['weighted_layers']) + whole:>8}{row['slowdown']:>7g}x"
        f"{row['Mbit']:>8.2f}{row['mean_latency_s']:>9.3f}{values}",
        flush=True,
    )


def finish(
    options: argparse.Namespace, rows: Sequence[dict[str, Any]], tables: dict[str, LayerCosts]
) -> int:
    against_exact = [row for row in rows if row["relative_to"] == "exact"]
    worst = max(against_exact, key=lambda row: row["relative"]["efficiency"])
    factor = worst["relative"]["efficiency"]
    print(f"\nOver {len(against_exact)} cases, relative to the exact optimum:")
    for label, *_ in SCHEMES:
        factors = [row["relative"][label] for row in against_exact]
        print(f"{label:16} median {statistics.median(factors):.4f}  most {max(factors):.4f}")
    verdict = "within" if factor <= ALLOWED else "NOT within"
    print(
        f"efficiency is {verdict} {100 * (ALLOWED - 1):.0f}% of the optimum: {factor:.4f} at the"
        f" most ({worst['network']}, device {worst['slowdown']:g}x, {worst['Mbit']:g} Mbit/s)"
    )
    if options.json:
        kept = {
            name: {field: getattr(costs, field).tolist() for field in TABLE_FIELDS}
            for name, costs in tables.items()
        }
        report = {"rtt_ms": options.rtt_ms, "rows": rows, "tables": kept}
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if factor <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
