"""Where each layer of one query runs, given what the edge already has.

The shortest path over {client, edge} x layers. It generalises IONN's collaborative path (SoCC'18),
Neurosurgeon's single split (ASPLOS'17) and JointDNN's schedule (TMC'19): the data may change
sides at any cut, as often as it pays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats, LayerCosts, Link, transfer_s

Where: TypeAlias = Literal["client", "edge"]


@dataclass(frozen=True, slots=True)
class Range:
    """Layers [start, stop), run in one go on one side."""

    where: Where
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Route:
    """A query's way: predicted latency, and per layer the side that runs it."""

    latency_s: float
    placement: tuple[Where, ...]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The placement as maximal ranges, front to back."""
        ranges, start = [], 0
        for where, layers in groupby(self.placement):
            stop = start + sum(1 for _ in layers)
            ranges.append(Range(where, start, stop))
            start = stop
        return tuple(ranges)


def route(costs: LayerCosts, link: Link, uploaded: Collection[int] = frozenset()) -> Route:
    """The fastest placement of one query, when the weights of the `uploaded` layers are there.

    The input starts on the client and the answer ends there. Layers without weights can run on
    the edge from the start. O(n); on a tie the client runs the layer. Raises ValueError when
    `uploaded` names a layer that does not exist.
    """
    client_s, edge_s, up_bytes, down_bytes, up_s, down_s = costs.lists
    available = costs.available(uploaded)
    up_Bps, down_Bps, half = link.up_Bps, link.down_Bps, link.rtt_s / 2
    n = len(client_s)
    # Time to the end when the data are on the client, or on the edge, at cut i.
    at_client, at_edge = 0.0, down_bytes[n] / down_Bps + half + down_s[n]
    stays = [False] * n  # from the client: run layer i there
    leaves = [True] * n  # from the edge: take the data down and run layer i on the client
    for i in range(n - 1, -1, -1):
        here = client_s[i] + at_client
        stays_here = leaves_here = True
        new_client, new_edge = here, here + (down_bytes[i] / down_Bps + half + down_s[i])
        if available[i]:
            there = edge_s[i] + at_edge
            over = there + (up_bytes[i] / up_Bps + half + up_s[i])
            if over < new_client:
                new_client, stays_here = over, False
            if there < new_edge:
                new_edge, leaves_here = there, False
        stays[i], leaves[i] = stays_here, leaves_here
        at_client, at_edge = new_client, new_edge
    placement: list[Where] = []
    on_client = True
    for stay, leave in zip(stays, leaves, strict=True):
        on_client = stay if on_client else leave
        placement.append("client" if on_client else "edge")
    return Route(at_client, tuple(placement))


def latencies_s(
    costs: LayerCosts, link: Link, available: Callable[[int], NDArray[np.bool_]], count: int
) -> Floats:
    """`route(...).latency_s` for `count` sets of uploaded layers at once.

    `available(i)` tells for each set whether the edge can run layer i.
    """
    up, down = transfer_s(costs, link)
    at_client = np.zeros(count)
    at_edge = np.full(count, down[-1])
    for i in range(len(costs) - 1, -1, -1):
        here = at_client
        here += costs.client_s[i]
        there = at_edge
        there += costs.edge_s[i]
        there[~available(i)] = np.inf
        at_client = np.minimum(here, there + up[i])
        at_edge = np.minimum(there, here + down[i], out=there)
    return at_client
