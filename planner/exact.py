"""The upload order with the least mean latency, by dynamic programme over subsets.

With D(S) the least area under the latency curve while the set S of layers is uploaded, and L(S)
the latency once it is there:

    D({}) = 0        D(S) = min over k in S of  D(S - k) + L(S - k) * bytes(k)

because while layer k travels, queries run with what was there before it. O(2^m m) for m layers
with weights, vectorised over the subsets of one size; 20 layers take seconds and 40 MB.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats, LayerCosts, Link
from planner.route import latencies_s

MOST_LAYERS = 20


def exact_order(costs: LayerCosts, link: Link) -> tuple[int, ...]:
    """The weighted layers in the order with the least mean latency, acknowledged one by one.

    Raises ValueError for more than 20 of them.
    """
    layers = costs.weighted
    if len(layers) > MOST_LAYERS:
        raise ValueError(
            f"'exact' tries all subsets of the layers with weights: at most {MOST_LAYERS},"
            f" this model has {len(layers)} (LayerCosts.grouped merges layers)"
        )
    last = _last_layers(subset_latencies_s(costs, link), costs.weight_bytes[list(layers)])
    order, subset = [], (1 << len(layers)) - 1
    while subset:
        bit = int(last[subset])
        order.append(layers[bit])
        subset ^= 1 << bit
    return tuple(reversed(order))


def subset_latencies_s(costs: LayerCosts, link: Link) -> Floats:
    """L(S) for every subset of the weighted layers; bit b of the index is `weighted[b]`."""
    bit_of = {layer: bit for bit, layer in enumerate(costs.weighted)}
    subsets = np.arange(1 << len(bit_of), dtype=np.int32)

    def available(layer: int) -> NDArray[np.bool_]:
        mask = sum(1 << bit_of[need] for need in costs.needs[layer])
        there: NDArray[np.bool_] = subsets & mask == mask
        return there

    return latencies_s(costs, link, available, len(subsets))


def _last_layers(latency_s: Floats, sizes: Floats) -> NDArray[np.int8]:
    """For each subset, the layer that comes last in its best order."""
    count = len(latency_s)
    subsets = np.arange(count, dtype=np.int32)
    members = np.bitwise_count(subsets) if hasattr(np, "bitwise_count") else _ones(subsets)
    by_size = np.argsort(members, kind="stable").astype(np.int32)
    ends = np.cumsum(np.bincount(members))
    area = np.full(count, np.inf)
    area[0] = 0.0
    last = np.zeros(count, dtype=np.int8)
    for start, stop in pairwise(ends.tolist()):
        level = by_size[start:stop]
        for bit, size in enumerate(sizes.tolist()):
            having = level[(level >> bit) & 1 == 1]
            before = having ^ (1 << bit)
            through = area[before] + latency_s[before] * size
            better = through < area[having]
            area[having[better]] = through[better]
            last[having[better]] = bit
    return last


def _ones(subsets: NDArray[np.int32]) -> NDArray[np.uint8]:
    # numpy before 2.0 counts no bits itself.
    count = np.zeros(len(subsets), dtype=np.uint8)
    for bit in range(MOST_LAYERS + 1):
        count += ((subsets >> bit) & 1).astype(np.uint8)
    return count
