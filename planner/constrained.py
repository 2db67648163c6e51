"""The cheapest schedule under one limit, exactly: a battery, the edge's time, or a deadline.

A constrained shortest path. Labels (price, limited sum) walk from the input to the answer; at each
cut, on each side, only those survive that no other beats in both, that can still keep the limit,
and that can still be cheaper than the best schedule known. LARAC (`planner.larac`) gives that
schedule, and with its multiplier the bound that prunes hardest (G. Y. Handler and I. Zang, "A dual
algorithm for the constrained shortest path problem", Networks 10, 1980). Few labels are left on
networks; the worst case is exponential, as the problem is NP-hard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

from planner.larac import larac_path
from planner.objective import ROUNDING, Limit
from planner.prices import SAME, Placement, Prices, Where

# Price, limited sum, and the sides so far as a linked list, last first.
Label: TypeAlias = tuple[float, float, Any]
_sums = itemgetter(0, 1)


def cheapest_within(
    objective: Prices,
    limit: Limit,
    available: Sequence[bool] | None = None,
    *,
    most_labels: int | None = None,
) -> Placement:
    """The placement with the least price of those that keep the limit.

    `available` (n): whether the edge may run layer i; None: all. `most_labels`: give up, and take
    LARAC's placement, where more labels than these survive at a cut, so that the time is bounded.
    Raises `Infeasible` when no placement keeps the limit, ValueError when lengths differ and for a
    limit of training.
    """
    if not isinstance(limit.prices, Prices):
        raise ValueError(f"{limit.name} is of training; queries are planned here")
    known = larac_path(objective, limit, available)
    if known.gap <= SAME:
        return known.placement
    may = [True] * len(objective) if available is None else available
    most, multiplier = limit.at_most * (1 + ROUNDING / 2), known.multiplier
    cheaper = known.price * (1 - SAME)
    bounds = (
        _Bound(1.0, 0.0, cheaper, *_remaining(objective, may)),
        _Bound(0.0, 1.0, most, *_remaining(limit.prices, may)),
        _Bound(
            1.0,
            multiplier,
            cheaper + multiplier * most,
            *_remaining(objective + limit.prices * multiplier, may),
        ),
    )
    labels = math.inf if most_labels is None else most_labels
    return _walk(objective, limit.prices, may, bounds, labels) or known.placement


class _Bound(NamedTuple):
    """price_weight * price + total_weight * limited sum + what remains at least <= most."""

    price_weight: float
    total_weight: float
    most: float
    at_client: list[float]
    at_edge: list[float]

    def left(self, cut: int, *, on_edge: bool) -> tuple[float, float, float]:
        remains = (self.at_edge if on_edge else self.at_client)[cut]
        return self.price_weight, self.total_weight, self.most - remains


def _remaining(prices: Prices, may: Sequence[bool]) -> tuple[list[float], list[float]]:
    """The least sum from each cut (n + 1) to the end, with the data on the client, on the edge."""
    client, edge, up, down = _lists(prices)
    at_client, at_edge = [0.0], [down[-1]]
    for i in range(len(client) - 1, -1, -1):
        here = client[i] + at_client[-1]
        there = edge[i] + at_edge[-1] if may[i] else math.inf
        at_client.append(min(here, there + up[i]))
        at_edge.append(min(there, here + down[i]))
    return at_client[::-1], at_edge[::-1]


def _walk(
    objective: Prices,
    limited: Prices,
    may: Sequence[bool],
    bounds: Sequence[_Bound],
    most_labels: float,
) -> Placement | None:
    """The cheapest placement within the bounds; None if there is none, or too many labels."""
    price, total = _lists(objective), _lists(limited)
    at_client: list[Label] = [(0.0, 0.0, None)]
    at_edge: list[Label] = []
    for i, allowed in enumerate(may):
        client, edge, up, down = ((p[i], t[i]) for p, t in zip(price, total, strict=True))
        here = _moved(at_client, "client", client) + _moved(at_edge, "client", client, down)
        there = _moved(at_edge, "edge", edge) + _moved(at_client, "edge", edge, up)
        at_client = _survivors(here, [bound.left(i + 1, on_edge=False) for bound in bounds])
        at_edge = []
        if allowed:
            at_edge = _survivors(there, [bound.left(i + 1, on_edge=True) for bound in bounds])
        if len(at_client) + len(at_edge) > most_labels:
            return None
    answer = price[3][-1], total[3][-1]
    ends = at_client + [(p + answer[0], t + answer[1], sides) for p, t, sides in at_edge]
    return _placement(min(ends, key=_sums)) if ends else None


def _moved(
    labels: list[Label],
    where: Where,
    layer: tuple[float, float],
    crossing: tuple[float, float] = (0.0, 0.0),
) -> list[Label]:
    """The labels after one more layer, and the crossing before it."""
    price, total = layer[0] + crossing[0], layer[1] + crossing[1]
    return [(p + price, t + total, (where, sides)) for p, t, sides in labels]


def _survivors(labels: list[Label], left: list[tuple[float, float, float]]) -> list[Label]:
    """The labels within what is left of each bound that no other beats, by rising price."""
    labels.sort(key=_sums)
    kept: list[Label] = []
    least = math.inf
    for label in labels:
        price, total, _ = label
        if total < least and all(a * price + b * total <= most for a, b, most in left):
            kept.append(label)
            least = total
    return kept


def _placement(label: Label) -> Placement:
    sides: list[Where] = []
    last = label[2]
    while last is not None:
        where, last = last
        sides.append(where)
    return tuple(reversed(sides))


def _lists(prices: Prices) -> tuple[list[float], list[float], list[float], list[float]]:
    fields = prices.client, prices.edge, prices.up, prices.down
    client, edge, up, down = (field.tolist() for field in fields)
    return client, edge, up, down
