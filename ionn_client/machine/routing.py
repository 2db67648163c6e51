"""The best route of one query: by the objective, within its ration of joules, with one loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner import (
    Infeasible,
    LayerCosts,
    Link,
    Objective,
    Route,
    battery,
    mobile_energy,
    priced,
    route,
    route_within,
)
from planner.objective import ROUNDING

# Layer times, rates and round trips that differ by less in all give the same routes; making costs
# and routes anew takes a good part of a small query.
MOVED = 0.01
# Of an exact route within a ration; more than networks need, and a bound on its time.
MOST_LABELS = 64


@dataclass(frozen=True, slots=True)
class Routing:
    """What routes minimise over `link`, and the joules that one may draw at most, if any.

    Where no route draws so few, the best is the one that draws least.
    """

    objective: Objective
    link: Link
    most_J: float | None = None

    def best(self, costs: LayerCosts, uploaded: frozenset[int]) -> Route:
        """The best route when the weights of the `uploaded` layers are there."""
        power = self.objective.power
        if self.most_J is None or power is None:
            return route(costs, self.link, uploaded, self.objective)
        limit = battery(costs, self.link, power, self.most_J)
        try:
            return route_within(
                costs, self.link, limit, uploaded, self.objective, most_labels=MOST_LABELS
            )
        except Infeasible:
            return route(costs, self.link, uploaded, mobile_energy(power))

    def with_one_loss(
        self, chosen: Route, lossy: LayerCosts, exact: LayerCosts, uploaded: frozenset[int]
    ) -> Route:
        """A route that loses something where it first crosses, and not again.

        `chosen` is the best by lossy prices, and crosses more than once. The best of it at its own
        price, of one that ends its first range on the edge where `chosen` does, and of the best by
        exact prices.
        """
        first = next(part for part in chosen.ranges if part.where == "edge")
        once = self.best(lossy, uploaded.intersection(range(first.stop)))
        ways = [self._priced(way, lossy, exact) for way in (chosen, once)]
        return min(self.best(exact, uploaded), *ways, key=self._rank)

    def _priced(self, chosen: Route, lossy: LayerCosts, exact: LayerCosts) -> Route:
        again = [part.start for part in chosen.ranges if part.where == "edge"][1:]
        up_bytes, up_s = lossy.cut_up_bytes.copy(), lossy.cut_up_s.copy()
        up_bytes[again], up_s[again] = exact.cut_up_bytes[again], exact.cut_up_s[again]
        costs = replace(lossy, cut_up_bytes=up_bytes, cut_up_s=up_s)
        return priced(costs, self.link, chosen.placement, self.objective)

    def _rank(self, way: Route) -> tuple[float, float]:
        """First what is over the ration, then what the objective makes of it."""
        over_J = 0.0
        if self.most_J is not None and way.energy_J is not None:
            over_J = max(0.0, way.energy_J - self.most_J * (1 + ROUNDING))
        return over_J, self.objective.worth(way.latency_s, way.energy_J)


@dataclass(frozen=True, slots=True)
class KnownRoute:
    """A route, and what it was the best for."""

    costs: LayerCosts
    link: Link
    uploaded: frozenset[int]
    most_J: float | None
    route: Route

    def holds(
        self, costs: LayerCosts, link: Link, uploaded: frozenset[int], most_J: float | None
    ) -> bool:
        """Whether it is the best for these as well. The costs are the very same, or others."""
        if costs is not self.costs or most_J != self.most_J:
            return False
        known = self.link
        return (
            (uploaded is self.uploaded or uploaded == self.uploaded)
            and abs(link.up_Bps - known.up_Bps) <= MOVED * known.up_Bps
            and abs(link.down_Bps - known.down_Bps) <= MOVED * known.down_Bps
            and abs(link.rtt_s - known.rtt_s) <= MOVED * self.route.latency_s
        )
