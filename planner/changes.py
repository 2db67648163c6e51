"""Which change of the world would move a layer: how far a dial turns until another placement wins.

Every price is linear in each dial (one over a rate, the round trip, the edge's load, one over the
device's speed, the worth of a joule), so the cheapest sum is a concave, piecewise linear function
of it: the lower envelope of one line per placement. Where the present placement leaves the
envelope is found exactly, by intersecting lines (Eisner and Severance, Journal of the ACM 23(4),
1976), not by trying values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from planner.costs import Floats, LayerCosts, Link
from planner.objective import Objective
from planner.power import energy_prices
from planner.prices import SAME, Placement, Prices, cheapest_path, latency_prices

Dial: TypeAlias = Literal["up_Bps", "down_Bps", "rtt_s", "server_load", "device_speed", "s_per_J"]

DIALS: tuple[Dial, ...] = (
    "up_Bps", "down_Bps", "rtt_s", "server_load", "device_speed", "s_per_J",
)  # fmt: skip
_RECIPROCAL = ("up_Bps", "down_Bps", "device_speed")
# At this rate no byte takes any time, and what a radio draws per byte can still be told.
_ENDLESS_Bps = 1e100


@dataclass(frozen=True, slots=True)
class Change:
    """The next value of a dial at which another placement becomes as cheap as the present one.

    `dial`: "up_Bps", "down_Bps" (bytes per second), "rtt_s" (seconds), "server_load" and
    "device_speed" (factors of the edge's times and of the client's speed, 1 now), "s_per_J" (how
    many seconds a joule is worth). `now` and `at` are its values, `at` > `now` where `rises`,
    and equal on a tie. `price`: of both placements there, in the objective's unit.
    `placement`: the cheapest just beyond; `moved`: the layers that change sides.
    """

    dial: Dial
    rises: bool
    now: float
    at: float
    price: float
    placement: Placement
    moved: tuple[int, ...]


@dataclass(frozen=True)
class _Line:
    """Prices that grow with x: `fixed` + x * `slope`."""

    fixed: Prices
    slope: Prices

    def at(self, x: float) -> Prices:
        return self.fixed + self.slope * x

    def along(self, placement: Placement) -> tuple[float, float]:
        return self.fixed.along(placement), self.slope.along(placement)


def changes(
    costs: LayerCosts,
    link: Link,
    placement: Placement,
    available: list[bool],
    objective: Objective,
) -> tuple[Change, ...]:
    """What moves `placement`, the cheapest where `available` holds: each dial, down and up."""
    found = []
    for dial in DIALS:
        if dial == "s_per_J" and (objective.power is None or not objective.s_weight):
            continue
        reciprocal = dial in _RECIPROCAL
        now = _now(dial, link, objective)
        line, x_now = _line(dial, costs, link, objective), 1 / now if reciprocal else now
        for rises in (False, True):
            next_ = _next(line, x_now, placement, available, grows=rises != reciprocal)
            if next_ is None:
                continue
            x, then = next_
            at = now if x == x_now else 1 / x if reciprocal else x
            sides = enumerate(zip(placement, then, strict=True))
            moved = tuple(i for i, (here, there) in sides if here != there)
            price = line.at(x).along(placement)
            found.append(Change(dial, rises, now, at, price, then, moved))
    return tuple(found)


def _next(
    line: _Line, x_now: float, placement: Placement, available: list[bool], *, grows: bool
) -> tuple[float, Placement] | None:
    """Where the line of `placement` leaves the lower envelope, and the placement that goes on.

    Starts from the cheapest placement at the far end and goes to where its line meets ours; if
    another is cheaper there, its line meets ours nearer, and so on. What is cheapest at both ends
    of an interval is cheapest inside, so the last one is the next.
    """
    fixed, slope = line.along(placement)
    _, then = cheapest_path(line.slope if grows else line.fixed, available)
    while True:
        other_fixed, other_slope = line.along(then)
        gained = slope - other_slope if grows else other_slope - slope
        if gained <= SAME * max(slope, other_slope):
            return None
        x = (other_fixed - fixed) / (slope - other_slope)
        x = max(x, x_now) if grows else min(x, x_now)
        if not math.isfinite(x) or (not grows and x <= SAME * x_now):
            return None
        price, best = cheapest_path(line.at(x), available)
        if price >= (fixed + x * slope) * (1 - SAME):
            return x, then
        then = best


def _now(dial: Dial, link: Link, objective: Objective) -> float:
    if dial in ("server_load", "device_speed"):
        return 1.0
    if dial == "s_per_J":
        return objective.J_weight / objective.s_weight
    return float(getattr(link, dial))


def _line(dial: Dial, costs: LayerCosts, link: Link, objective: Objective) -> _Line:
    """The prices as a line in the dial, or in one over it where that is what they follow."""
    if dial == "s_per_J":
        assert objective.power is not None
        joules = energy_prices(costs, link, objective.power)
        return _Line(latency_prices(costs, link) * objective.s_weight, joules * objective.s_weight)
    if dial == "rtt_s":
        at_zero, at_one = (objective.prices(costs, replace(link, rtt_s=s)) for s in (0.0, 1.0))
        return _between(at_zero, at_one, 1.0)
    x_now = 1 / _now(dial, link, objective) if dial in _RECIPROCAL else 1.0
    present = objective.prices(costs, link)
    if dial == "server_load":
        at_zero = objective.prices(replace(costs, edge_s=0 * costs.edge_s), link)
    elif dial == "device_speed":
        at_zero = objective.prices(replace(costs, client_s=0 * costs.client_s), link)
    elif dial == "up_Bps":
        at_zero = objective.prices(costs, replace(link, up_Bps=_ENDLESS_Bps))
    else:
        at_zero = objective.prices(costs, replace(link, down_Bps=_ENDLESS_Bps))
    return _between(at_zero, present, x_now)


def _between(at_zero: Prices, at_x: Prices, x: float) -> _Line:
    def slope(here: Floats, there: Floats) -> Floats:
        return np.maximum(0.0, there - here) / x

    return _Line(
        at_zero,
        Prices(
            slope(at_zero.client, at_x.client),
            slope(at_zero.edge, at_x.edge),
            slope(at_zero.up, at_x.up),
            slope(at_zero.down, at_x.down),
        ),
    )
