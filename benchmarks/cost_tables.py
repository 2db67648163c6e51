"""Cost tables to plan with: the networks of `layergraph.networks` timed on this CPU, or made up."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np

from planner import LayerCosts


def measured_tables(options: argparse.Namespace) -> Iterator[tuple[str, LayerCosts]]:
    """Tables of `options.networks` (all if none), the device `options.slowdown` times slower.

    Each layer takes its median over `options.rounds` runs, in one thread's own CPU time.
    """
    from layergraph.networks import NETWORKS

    for name in options.networks or NETWORKS:
        yield name, _measure(NETWORKS[name], options.slowdown, options.rounds)


def _measure(network: Any, slowdown: float, rounds: int) -> LayerCosts:
    from ionn_client.local import profile_ranges
    from layergraph import capture, flatten_inputs

    model, args = network.build(), network.example()
    graph, weights = capture(model, args)
    layers, inputs = len(graph.layers), flatten_inputs(graph, args, {})
    times = profile_ranges(graph, weights, inputs, [range(layers + 1)], rounds, threads=1)
    edge_s = np.array([times[layer, layer + 1] for layer in range(layers)])
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
