"""How good the upload orders are: mean latency while uploading, relative to the exact optimum.

For every network of `layergraph.networks`, each layer is timed on this CPU; the edge takes that
long, the device `--slowdown` times as long. "efficiency" and front-to-back are acknowledged layer
by layer, IONN and all-at-once partition by partition, as published. The exact optimum is over all
orders, layer by layer. It needs at most 20 layers with weights: networks with more are merged at
narrow cuts for the comparison (the same table for all), and shown whole beside "efficiency".

Beside it, what progressive precision is predicted to give over exact: the ratio of the mean
latencies until the exact upload ends, with the bytes that coded weights were measured to take
(both uploads end together, to 1%). The better the edge and the slower the device, the more: the
bound is the ratio of bytes, 4.02, and the latency that remains at the end counts on both sides.

`python benchmarks/plan.py [--quick] [--json FILE]` exits 1 when "efficiency" is more than 1% above
the optimum anywhere. `--quick` takes small made-up tables instead of networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner import (
    NOISE,
    LayerCosts,
    Link,
    Plane,
    progressive_plan,
    progressive_timeline,
    timeline,
    upload_plan,
)
from planner.exact import MOST_LAYERS
from wire.segments import CODED_SHARE

RATES_Mbit = (5.85, 18.88, 80.0)  # JointDNN's 4G and Wi-Fi uplinks, IONN's Wi-Fi
SCHEMES: tuple[tuple[str, str, float, str], ...] = (
    ("efficiency", "efficiency", 0.5, "layer"),
    ("ionn K=0.1", "ionn", 0.1, "partition"),
    ("ionn K=0.5", "ionn", 0.5, "partition"),
    ("ionn K=0.9", "ionn", 0.9, "partition"),
    ("front-to-back", "front-to-back", 0.5, "layer"),
    ("all-at-once", "all-at-once", 0.5, "partition"),
)
ALLOWED = 1.01
# Coded bytes over raw of float32 weights by planes, which add up to those of the whole.
FLOAT12, BFLOAT16 = 0.207, 4 / 32
PLANE_SHARES = (
    ("float12", FLOAT12),
    ("bfloat16", BFLOAT16),
    ("exact", CODED_SHARE - FLOAT12 - BFLOAT16),
)
TABLE_FIELDS = ("client_s", "edge_s", "weight_bytes", "cut_up_bytes", "cut_down_bytes")
# The networks whose gain must be 2.5, and on which link.
MUST_GAIN, MUST_RATE_Mbit = ("resnet50", "vgg16"), 18.88
LOCAL_s, EDGE_SPEEDS = (1, 2, 4, 8, 16, 32), (1, 10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small made-up tables")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--slowdown", type=float, default=20.0, help="device times over measured")
    parser.add_argument("--rtt-ms", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=7, help="times each layer is measured")
    parser.add_argument("--json", type=Path, help="write results and cost tables here")
    options = parser.parse_args()
    tables = made_up_tables() if options.quick else measured_tables(options)
    print_header(options)
    rows, kept = [], {}
    for name, costs in tables:
        kept[name] = costs
        for rate in RATES_Mbit:
            link = Link(rate * 125e3, rate * 125e3, options.rtt_ms / 1e3)
            for row in compare(name, costs, link):
                rows.append(row)
                print_row(row)
    progressive = list(progressive_rows(kept, options.rtt_ms / 1e3))
    return finish(options, rows, progressive, kept)


def compare(name: str, costs: LayerCosts, link: Link) -> Iterator[dict[str, Any]]:
    """One row on at most 20 weighted layers against the optimum; one on all layers if more."""
    merged = merge(costs, MOST_LAYERS)
    exact = upload_plan(merged, link, "exact")
    optimum_s = timeline(merged, link, exact).mean_latency_s
    yield _row(name, merged, link, optimum_s, "exact")
    if merged is not costs:
        best_s = timeline(costs, link, upload_plan(costs, link)).mean_latency_s
        yield _row(name, costs, link, best_s, "efficiency")


def _row(name: str, costs: LayerCosts, link: Link, unit_s: float, unit: str) -> dict[str, Any]:
    relative = {}
    for label, algorithm, k, ack in SCHEMES:
        plan = upload_plan(costs, link, algorithm, k)
        relative[label] = timeline(costs, link, plan, ack=ack).mean_latency_s / unit_s
    return {
        "network": name,
        "Mbit": link.up_Bps / 125e3,
        "weighted_layers": len(costs.weighted),
        "relative_to": unit,
        "mean_latency_s": unit_s,
        "relative": relative,
    }


def merge(costs: LayerCosts, most: int) -> LayerCosts:
    """Adjacent layers merged until `most` have weights; `costs` itself where that is so already.

    Goes step by step: of all neighbours those with the smallest share of weights and time per
    byte that crosses between them, so that large layers and narrow cuts stay.
    """
    if len(costs.weighted) <= most:
        return costs
    share = costs.weight_bytes / costs.total_bytes + costs.client_s / costs.client_s.sum()
    crossing = costs.cut_up_bytes + costs.cut_down_bytes + 1
    cuts = list(range(1, len(costs)))
    while True:
        merged = costs.grouped(cuts)
        if len(merged.weighted) <= most:
            return merged
        starts = [0, *cuts]
        shares = np.add.reduceat(share, starts)
        cuts.pop(int(np.argmin((shares[:-1] + shares[1:]) / crossing[cuts])))


def measured_tables(options: argparse.Namespace) -> Iterator[tuple[str, LayerCosts]]:
    import torch

    from layergraph.networks import NETWORKS

    torch.set_num_threads(1)
    for name in options.networks or NETWORKS:
        yield name, _measure(NETWORKS[name], options.slowdown, options.rounds)


def _measure(network: Any, slowdown: float, rounds: int) -> LayerCosts:
    """Cost table of a network; each layer's time is its median over the rounds."""
    from layergraph import Executor, capture, flatten_inputs

    model, args = network.build(), network.example()
    graph, weights = capture(model, args)
    executor, inputs = Executor(graph, weights), flatten_inputs(graph, args, {})
    seconds = np.empty((rounds + 1, len(graph.layers)))
    for times in seconds:
        live = inputs
        for i in range(len(graph.layers)):
            began = time.perf_counter()
            live = executor.run(i, i + 1, live)
            times[i] = time.perf_counter() - began
    edge_s = np.median(seconds[1:], axis=0)  # the first round builds and warms up
    return LayerCosts(
        slowdown * edge_s, edge_s, graph.weight_bytes, graph.cut_bytes, graph.cut_bytes,
        edges=graph.edges, shared=graph.shared,
    )  # fmt: skip


def made_up_tables() -> Iterator[tuple[str, LayerCosts]]:
    """Three shapes of network: shrinking activations, an hourglass, and constant width."""
    r = np.random.default_rng(0)
    for name, slope, pinch, layers in (
        ("classifier", 3.0, 0.0, 14),
        ("hourglass", 0.0, 4.0, 16),
        ("perceptron", 0.0, 0.0, 30),
    ):
        depth, cut_depth = np.linspace(-1, 1, layers), np.linspace(-1, 1, layers + 1)
        weights = np.exp(slope * depth - pinch * abs(depth) + r.normal(0, 0.7, layers))
        cuts = np.exp(pinch * abs(cut_depth) - slope * cut_depth + r.normal(0, 0.4, layers + 1))
        client_s = np.exp(r.normal(0, 0.7, layers)) / layers
        cut_bytes = np.round(150e3 * cuts / cuts[0])
        weight_bytes = np.round(5e7 * weights / weights.sum())
        yield name, LayerCosts(client_s, client_s / 20, weight_bytes, cut_bytes, cut_bytes)


def progressive_rows(tables: dict[str, LayerCosts], rtt_s: float) -> Iterator[dict[str, Any]]:
    """Progressive over exact on every link, then for devices and edges of other speeds."""
    print("\nProgressive over exact, mean latency until the exact upload ends (predicted)")
    print(f"{'network':16}{'Mbit/s':>8}{'local, s':>10}{'edge':>6}{'upload, s':>11}", end="")
    print(f"{'final, s':>10}{'exact, s':>10}{'progr., s':>11}{'gain':>7}{'noise':>9}")
    for name, costs in tables.items():
        for rate in RATES_Mbit:
            yield _gain(name, costs, rate, rtt_s, 1)
    print()
    for name in [name for name in MUST_GAIN if name in tables] or tables:
        costs = tables[name]
        for speed in EDGE_SPEEDS:
            for local_s in LOCAL_s:
                client_s = costs.client_s * (local_s / costs.client_s.sum())
                other = replace(costs, client_s=client_s, edge_s=costs.edge_s / speed)
                yield _gain(name, other, MUST_RATE_Mbit, rtt_s, speed)


def _gain(
    name: str, costs: LayerCosts, rate_Mbit: float, rtt_s: float, edge_speed: int
) -> dict[str, Any]:
    link = Link(rate_Mbit * 125e3, rate_Mbit * 125e3, rtt_s)
    coded = replace(costs, weight_bytes=costs.weight_bytes * CODED_SHARE)
    exact = timeline(coded, link, upload_plan(coded, link))
    planes = [
        tuple(Plane(share * size, NOISE[to]) for to, share in PLANE_SHARES) if size else ()
        for size in costs.weight_bytes.tolist()
    ]
    plan = progressive_plan(costs, link, planes)
    found = progressive_timeline(costs, link, planes, plan, exact.horizon_s)
    row = {
        "network": name,
        "Mbit": rate_Mbit,
        "local_s": float(costs.client_s.sum()),
        "edge_speed": edge_speed,
        "upload_s": exact.horizon_s,
        "final_s": exact.points[-1].latency_s,
        "exact_mean_s": exact.mean_latency_s,
        "progressive_mean_s": found.mean_latency_s,
        "gain": exact.mean_latency_s / found.mean_latency_s,
        "mean_noise": found.mean_noise,
    }
    print(
        f"{name:16}{rate_Mbit:>8.2f}{row['local_s']:>10.3f}{edge_speed:>5}x{row['upload_s']:>11.1f}"
        f"{row['final_s']:>10.3f}{row['exact_mean_s']:>10.3f}{row['progressive_mean_s']:>11.3f}"
        f"{row['gain']:>7.2f}{row['mean_noise']:>9.1e}",
        flush=True,
    )
    return row


def print_header(options: argparse.Namespace) -> None:
    print(
        "Mean latency while uploading, relative to the exact optimum ('all': to efficiency);"
        f" device {options.slowdown:g}x slower than the edge, round trip {options.rtt_ms:g} ms."
    )
    labels = "".join(f"{label:>15}" for label, *_ in SCHEMES)
    print(f"{'network':16}{'layers':>8}{'Mbit/s':>8}{'unit, s':>9}{labels}", flush=True)


def print_row(row: dict[str, Any]) -> None:
    whole = " all" if row["relative_to"] == "efficiency" else ""
    values = "".join(f"{row['relative'][label]:>15.4f}" for label, *_ in SCHEMES)
    print(
        f"{row['network']:16}{str(row['weighted_layers']) + whole:>8}{row['Mbit']:>8.2f}"
        f"{row['mean_latency_s']:>9.3f}{values}",
        flush=True,
    )


def finish(
    options: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    progressive: Sequence[dict[str, Any]],
    tables: dict[str, LayerCosts],
) -> int:
    against_exact = [row for row in rows if row["relative_to"] == "exact"]
    worst = max(against_exact, key=lambda row: row["relative"]["efficiency"])
    factor = worst["relative"]["efficiency"]
    for label, *_ in SCHEMES:
        factors = [row["relative"][label] for row in against_exact]
        print(f"{label:16} median {statistics.median(factors):.4f}  most {max(factors):.4f}")
    verdict = "within" if factor <= ALLOWED else "NOT within"
    print(
        f"efficiency is {verdict} {100 * (ALLOWED - 1):.0f}% of the optimum: {factor:.4f} at the"
        f" most ({worst['network']}, {worst['Mbit']:g} Mbit/s)"
    )
    if options.json:
        report = {
            "slowdown": options.slowdown,
            "rtt_ms": options.rtt_ms,
            "rows": rows,
            "progressive": progressive,
            "tables": {
                name: {field: getattr(costs, field).tolist() for field in TABLE_FIELDS}
                for name, costs in tables.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if factor <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
