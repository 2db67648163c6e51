"""Where each layer of one query runs, given what the edge already has.

The shortest path over {client, edge} x layers. It generalises IONN's collaborative path (SoCC'18),
Neurosurgeon's single split (ASPLOS'17) and JointDNN's schedule (TMC'19): the data may change
sides at any cut, as often as it pays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from planner.constrained import cheapest_within
from planner.costs import Floats, LayerCosts, Link, transfer_s
from planner.objective import LATENCY, Limit, Objective
from planner.power import query_energy_J
from planner.prices import Placement, Where, cheapest_path, latency_prices


@dataclass(frozen=True, slots=True)
class Range:
    """Layers [start, stop), run in one go on one side."""

    where: Where
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Route:
    """A query's way: predicted latency, and per layer the side that runs it.

    `energy_J`: the client's joules, where its power is known.
    """

    latency_s: float
    placement: Placement
    energy_J: float | None = None

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The placement as maximal ranges, front to back."""
        return _ranges(self.placement)


# Every query asks, and most take the route of the one before.
@lru_cache(maxsize=16)
def _ranges(placement: Placement) -> tuple[Range, ...]:
    ranges, start = [], 0
    for where, layers in groupby(placement):
        stop = start + sum(1 for _ in layers)
        ranges.append(Range(where, start, stop))
        start = stop
    return tuple(ranges)


def route(
    costs: LayerCosts,
    link: Link,
    uploaded: Collection[int] = frozenset(),
    objective: Objective = LATENCY,
) -> Route:
    """The best placement of one query, when the weights of the `uploaded` layers are there.

    The input starts on the client and the answer ends there. Layers without weights can run on
    the edge from the start. O(n); on a tie the client runs the layer. Raises ValueError when
    `uploaded` names a layer that does not exist.
    """
    price, placement = cheapest_path(objective.prices(costs, link), costs.available(uploaded))
    if objective == LATENCY:
        return Route(price, placement)
    return priced(costs, link, placement, objective)


def route_within(
    costs: LayerCosts,
    link: Link,
    limit: Limit,
    uploaded: Collection[int] = frozenset(),
    objective: Objective = LATENCY,
    *,
    most_labels: int | None = None,
) -> Route:
    """The best placement of one query that keeps a limit: a battery, the edge's time, a deadline.

    The route itself where that keeps the limit; else exact by `planner.constrained`, whose time
    `most_labels` bounds. Raises `Infeasible` when no placement keeps it, ValueError as `route`.
    """
    best = route(costs, link, uploaded, objective)
    if limit.allows(best.placement):
        return best
    prices, available = objective.prices(costs, link), costs.available(uploaded)
    placement = cheapest_within(prices, limit, available, most_labels=most_labels)
    return priced(costs, link, placement, objective)


def priced(
    costs: LayerCosts, link: Link, placement: Placement, objective: Objective = LATENCY
) -> Route:
    """The route of a placement: what it takes, whether or not it is the best."""
    power = objective.power
    return Route(
        latency_prices(costs, link).along(placement),
        placement,
        None if power is None else query_energy_J(costs, link, power, placement),
    )


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
