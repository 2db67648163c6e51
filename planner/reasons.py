"""Why a layer runs where it runs: what the cheapest route with it elsewhere would cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from planner.costs import LayerCosts, Link
from planner.objective import Objective
from planner.prices import Placement, Prices, Where

_SIDES: tuple[Where, ...] = ("client", "edge")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why layer `layer` runs `where` it does: what the cheapest route with it elsewhere costs more.

    `extra` >= 0, in the objective's unit, is `computing` + `transfer`, the differences in what
    running layers and crossing cuts costs. Layers [start, stop), this one among them, change
    sides in that route. `uploaded`: whether the edge may run the layer now; where it may not,
    `extra` is below 0 if the layer would move once its weights were there.
    """

    layer: int
    name: str | None
    where: Where
    extra: float
    computing: float
    transfer: float
    start: int
    stop: int
    uploaded: bool


def reasons(
    costs: LayerCosts,
    link: Link,
    placement: Placement,
    available: list[bool],
    objective: Objective,
) -> tuple[Reason, ...]:
    """A reason per layer of `placement`, which is the cheapest where `available` holds. O(n)."""
    prices = objective.prices(costs, link)
    before = _before(prices, placement, available)
    # What follows a layer is what comes before it in the model read from its answer.
    mirrored = Prices(prices.client[::-1], prices.edge[::-1], prices.down[::-1], prices.up[::-1])
    after = _before(mirrored, placement[::-1], available[::-1])[::-1]
    run = {"client": prices.client.tolist(), "edge": prices.edge.tolist()}
    names = costs.names or (None,) * len(costs)
    found = []
    for i, where in enumerate(placement):
        other = _other(where)
        here, there = (
            _through(before[i][side], run[side][i], after[i][side]) for side in (where, other)
        )
        extra = there.price - here.price
        found.append(
            Reason(
                i,
                names[i],
                where,
                max(0.0, extra) if available[i] else extra,
                there.computing - here.computing,
                there.transfer - here.transfer,
                before[i][other].leaves,
                len(costs) - after[i][other].leaves,
                available[i],
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Way:
    """The cheapest way from one end of the model, and the cut where it leaves the route."""

    computing: float
    transfer: float
    leaves: int

    @property
    def price(self) -> float:
        return self.computing + self.transfer


def _through(before: _Way, run: float, after: _Way) -> _Way:
    computing = before.computing + run + after.computing
    return _Way(computing, before.transfer + after.transfer, before.leaves)


_Ways: TypeAlias = dict[Where, _Way]


def _before(prices: Prices, placement: Placement, available: list[bool]) -> list[_Ways]:
    """Per layer and side, the cheapest way to what that layer takes, with that data there."""
    crossing = _crossings(prices)
    ways: list[_Ways] = [{side: _Way(0.0, crossing[0]["client", side], 0) for side in _SIDES}]
    client, edge = prices.client.tolist(), prices.edge.tolist()
    for i in range(1, len(prices)):
        run = {"client": client[i - 1], "edge": edge[i - 1] if available[i - 1] else math.inf}
        best = placement[i - 1]
        ways.append({})
        for side in _SIDES:
            came = {
                last: _Way(
                    ways[i - 1][last].computing + run[last],
                    ways[i - 1][last].transfer + crossing[i][last, side],
                    i if last == best else ways[i - 1][last].leaves,
                )
                for last in _SIDES
            }
            stays = side == placement[i] or came[best].price <= came[_other(best)].price
            ways[i][side] = came[best if stays else _other(best)]
    return ways


def _crossings(prices: Prices) -> list[dict[tuple[Where, Where], float]]:
    return [
        {
            ("client", "client"): 0.0,
            ("edge", "edge"): 0.0,
            ("client", "edge"): up,
            ("edge", "client"): down,
        }
        for up, down in zip(prices.up.tolist(), prices.down.tolist(), strict=True)
    ]


def _other(where: Where) -> Where:
    return "edge" if where == "client" else "client"
