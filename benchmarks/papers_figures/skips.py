"""What skip connections cost a schedule: tensors that go past the edge's layers need not cross.

The planners price a cut by all that is alive there. A network with skips, such as pix2pix, has
tensors alive that the edge's layers do not read and that the client has anyway; a schedule that
leaves those where they are is priced here, for one range of layers on the edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from layergraph import LayerGraph
from layergraph.nodes import Ref
from planner import LayerCosts
from planner.prices import Prices


@dataclass(frozen=True, slots=True)
class Middle:
    """Layers [start, stop) on the edge: the price with skips left on the client, and the numbers
    that cross then, up and down, out of all that are alive at the two cuts."""

    start: int
    stop: int
    price: float
    crossing: int
    alive: int


def best_middle(graph: LayerGraph, costs: LayerCosts, prices: Prices) -> Middle:
    """The cheapest client-edge-client schedule when skips stay where they are.

    A byte for each number that crosses (`costs.in_8_bits`), links without a round trip. ValueError
    for fewer than three layers.
    """
    n = len(prices)
    if n < 3:
        raise ValueError(f"{n} layers have no middle")
    up = float(prices.up[0]) / float(costs.cut_up_bytes[0])
    down = float(prices.down[0]) / float(costs.cut_down_bytes[0])
    read = [_read(graph, layer) for layer in range(n)]
    best: Middle | None = None
    for start in range(1, n - 1):
        before, used = set(graph.cuts[start]), set[int]()
        for stop in range(start + 1, n):
            used |= read[stop - 1]
            after = set(graph.cuts[stop])
            sent, back = _numbers(graph, before & used), _numbers(graph, after - before)
            price = (
                sent * up
                + back * down
                + float(
                    prices.client[:start].sum()
                    + prices.edge[start:stop].sum()
                    + prices.client[stop:].sum()
                )
            )
            if best is None or price < best.price:
                alive = _numbers(graph, before) + _numbers(graph, after)
                best = Middle(start, stop, price, sent + back, alive)
    assert best is not None
    return best


def _read(graph: LayerGraph, layer: int) -> set[int]:
    nodes = graph.nodes[graph.layers[layer].start : graph.layers[layer].stop]
    return {
        argument.value
        for node in nodes
        for argument in node.arguments()
        if isinstance(argument, Ref)
    }


def _numbers(graph: LayerGraph, values: set[int]) -> int:
    return sum(math.prod(spec.shape) for value in values if (spec := graph.values[value]))
