"""What wrong edge times cost: plans made from predicted ones, priced with measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from layergraph import LayerGraph
from planner import LayerCosts, Link, priced, route, upload_plan
from planner.timeline import time_mean


@dataclass(frozen=True, slots=True)
class Regret:
    """Latency over that of the plan from measured costs, less 1: once all is uploaded, and the
    mean while uploading (its upload order, and a route after every layer)."""

    route: float
    upload: float


def costs(graph: LayerGraph, client_s: Sequence[float], edge_s: Sequence[float]) -> LayerCosts:
    return LayerCosts(
        client_s, edge_s, graph.weight_bytes, graph.cut_bytes, graph.cut_bytes,
        edges=graph.edges, shared=graph.shared,
    )  # fmt: skip


def regret(measured: LayerCosts, edge_s: Sequence[float], link: Link) -> Regret:
    """Of planning with `edge_s` where the edge takes `measured.edge_s`."""
    believed = replace(measured, edge_s=np.asarray(edge_s, dtype=float))
    everything = frozenset(range(len(measured)))
    best_s = route(measured, link, everything).latency_s
    taken_s = priced(measured, link, route(believed, link, everything).placement).latency_s
    return Regret(
        taken_s / best_s - 1,
        _mean_s(believed, measured, link) / _mean_s(measured, measured, link) - 1,
    )


def _mean_s(believed: LayerCosts, measured: LayerCosts, link: Link) -> float:
    """Mean latency while uploading, of routes and an order planned with `believed`."""
    times, latencies, sent = [0.0], [], 0.0
    uploaded: set[int] = set()
    order = upload_plan(believed, link).layers
    for layer in (None, *order):
        if layer is not None:
            uploaded.add(layer)
            sent += measured.weight_bytes[layer]
            times.append(sent / link.up_Bps + link.rtt_s)
        placement = route(believed, link, uploaded).placement
        latencies.append(priced(measured, link, placement).latency_s)
    horizon_s = measured.total_bytes / link.up_Bps + link.rtt_s
    return time_mean(times, np.array(latencies), horizon_s)
