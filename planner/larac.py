"""LARAC: the cheapest schedule that keeps one limit, nearly, and a bound on what it misses.

Jüttner, Szviatovszki, Mécs and Rajkó, "Lagrange Relaxation Based Method for the QoS Routing
Problem", INFOCOM 2001, which JointDNN (IEEE TMC 2019) takes for schedules under a limit. The
limit joins the price with a multiplier, price + multiplier * limited, and every step is one
shortest path: O(n) each. The multiplier is the slope between the best schedule that breaks the
limit and the best that keeps it, until no schedule lies below the line through both. What is left
is the duality gap, and `at_least` tells it; `planner.ilp` closes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.objective import ROUNDING, Infeasible, Limit
from planner.prices import SAME, Placement, Prices, cheapest_path
from planner.training import TrainingPrices, training_placement

_MOST_STEPS = 200  # it takes less than 20; rounding must not make it run for ever


@dataclass(frozen=True, slots=True)
class LaracPath:
    """A placement that keeps the limit, its price, and what no such placement can fall below."""

    placement: Placement
    price: float
    at_least: float
    multiplier: float

    @property
    def gap(self) -> float:
        """How far the price may be from the least one, relative to `at_least` (or inf)."""
        if self.price <= self.at_least:
            return 0.0
        return self.price / self.at_least - 1 if self.at_least > 0 else math.inf


def larac(
    objective: Prices | TrainingPrices, limit: Limit, available: Sequence[bool] | None = None
) -> Placement:
    """The placement of `larac_path`, which also tells how good it is."""
    return larac_path(objective, limit, available).placement


def larac_path(
    objective: Prices | TrainingPrices, limit: Limit, available: Sequence[bool] | None = None
) -> LaracPath:
    """A placement that keeps the limit, at most `gap` above the least price of those that do.

    `available` (n): whether the edge may run layer i; None: all. Raises `Infeasible` when no
    placement keeps the limit, ValueError when lengths differ.
    """
    if len(limit.prices) != len(objective):
        raise ValueError(f"{limit.name} is for {len(limit.prices)} layers, not {len(objective)}")
    over, over_price = _cheapest(objective, 0.0, limit, available)
    if limit.allows(over):
        return LaracPath(over, over_price, over_price, 0.0)
    keeps, least = cheapest_of(limit.prices, available)
    if not limit.allows(keeps):
        missing = {limit.name: least - limit.at_most}
        raise Infeasible(missing, missing)
    at_least, best_multiplier = over_price, 0.0
    for _ in range(_MOST_STEPS):
        steep = limit.prices.along(over) - limit.prices.along(keeps)
        multiplier = max(0.0, objective.along(keeps) - objective.along(over)) / steep
        if multiplier == math.inf:
            break
        found, both = _cheapest(objective, multiplier, limit, available)
        # A schedule may exceed the limit by rounding, and be cheaper for that.
        bound = both - multiplier * limit.at_most * (1 + ROUNDING)
        if bound > at_least:
            at_least, best_multiplier = bound, multiplier
        line = objective.along(over) + multiplier * limit.prices.along(over)
        if both >= line * (1 - SAME):
            break
        if limit.allows(found):
            keeps = found
        else:
            over = found
    return LaracPath(keeps, objective.along(keeps), at_least, best_multiplier)


def _cheapest(
    objective: Prices | TrainingPrices,
    multiplier: float,
    limit: Limit,
    available: Sequence[bool] | None,
) -> tuple[Placement, float]:
    if not multiplier:
        return cheapest_of(objective, available)
    limited = limit.prices * multiplier
    if isinstance(limited, TrainingPrices):
        return cheapest_of(limited + objective, available)
    return cheapest_of(objective + limited, available)


def cheapest_of(
    prices: Prices | TrainingPrices, available: Sequence[bool] | None
) -> tuple[Placement, float]:
    """The cheapest placement without a limit, of queries or of training, and its price."""
    if isinstance(prices, TrainingPrices):
        price, placement = training_placement(prices, available)
    else:
        price, placement = cheapest_path(prices, available)
    return placement, price
