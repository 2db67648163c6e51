"""What a schedule is to minimise, and what it must not exceed.

Both are sums of prices along the schedule (`planner.prices`), so that every planner takes any of
them: seconds, the client's joules, or a mix; and as many limits as wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.costs import LayerCosts, Link, not_negative
from planner.power import Power, energy_prices
from planner.prices import Prices, Where, latency_prices

if TYPE_CHECKING:  # training's prices are made from an Objective
    from planner.training import TrainingPrices

ROUNDING = 1e-9  # what a sum may exceed a limit by, relative to it


@dataclass(frozen=True, slots=True)
class Objective:
    """Minimise s_weight * seconds + J_weight * joules of the client.

    `J_weight` over `s_weight` is how many seconds a joule is worth. With `power` and no J_weight,
    routes still tell their joules. Raises ValueError when a weight is negative or not finite, when
    both are zero, and when joules count but no power is given.
    """

    s_weight: float = 1.0
    J_weight: float = 0.0
    power: Power | None = None

    def __post_init__(self) -> None:
        for name in ("s_weight", "J_weight"):
            not_negative(name, getattr(self, name))
        if self.s_weight == self.J_weight == 0:
            raise ValueError("s_weight and J_weight are both 0: nothing to minimise")
        if self.J_weight and self.power is None:
            raise ValueError("power is needed where J_weight is not 0")

    def prices(self, costs: LayerCosts, link: Link) -> Prices:
        """The prices whose sum is to be minimised."""
        if not self.J_weight or self.power is None:
            seconds = latency_prices(costs, link)
            return seconds if self.s_weight == 1 else seconds * self.s_weight
        joules = energy_prices(costs, link, self.power) * self.J_weight
        return joules + latency_prices(costs, link) * self.s_weight if self.s_weight else joules

    def as_seconds(self, costs: LayerCosts, link: Link) -> tuple[LayerCosts, Link]:
        """A table and a link whose seconds are this objective's prices; weights stay as they are.

        For what is planned by seconds alone, such as upload orders and their timelines.
        """
        if not self.J_weight and self.s_weight == 1:
            return costs, link
        prices, nothing = self.prices(costs, link), np.zeros(len(costs) + 1)
        priced = replace(
            costs,
            client_s=prices.client,
            edge_s=prices.edge,
            cut_up_bytes=nothing,
            cut_down_bytes=nothing,
            cut_up_s=prices.up,
            cut_down_s=prices.down,
        )
        return priced, replace(link, rtt_s=0.0)

    def worth(self, latency_s: float, energy_J: float | None) -> float:
        """The price of a schedule that takes these. ValueError where joules count and none are."""
        if not self.J_weight:
            return self.s_weight * latency_s
        if energy_J is None:
            raise ValueError("energy_J is needed where J_weight is not 0")
        return self.s_weight * latency_s + self.J_weight * energy_J


LATENCY = Objective()


def mobile_energy(power: Power) -> Objective:
    """Minimise the client's joules alone."""
    return Objective(0.0, 1.0, power)


@dataclass(frozen=True)
class Limit:
    """The sum of `prices` along a schedule must be `at_most` so much.

    Raises ValueError unless `at_most` is finite and not negative.
    """

    name: str
    prices: Prices | TrainingPrices
    at_most: float

    def __post_init__(self) -> None:
        not_negative(f"at_most of {self.name}", self.at_most)

    def allows(self, placement: Sequence[Where]) -> bool:
        """Whether a placement keeps the limit, but for rounding."""
        return self.prices.along(placement) <= self.at_most * (1 + ROUNDING)


def battery(costs: LayerCosts, link: Link, power: Power, energy_J: float) -> Limit:
    """The client's joules for one query (JointDNN, eq. 13 and 18)."""
    return Limit("battery", energy_prices(costs, link, power), energy_J)


def edge_time(costs: LayerCosts, edge_s: float) -> Limit:
    """The seconds for which one query keeps the edge busy (JointDNN, eq. 14 and 19)."""
    nothing = np.zeros(len(costs)), np.zeros(len(costs) + 1)
    return Limit("edge_time", Prices(nothing[0], costs.edge_s, nothing[1], nothing[1]), edge_s)


def deadline(costs: LayerCosts, link: Link, latency_s: float) -> Limit:
    """The seconds from a query's input to its answer (JointDNN, eq. 20)."""
    return Limit("deadline", latency_prices(costs, link), latency_s)


class Infeasible(ValueError):
    """No schedule keeps all limits.

    `excess`: per limit that was broken, by how much it would have to be raised at least, where
    all of these are raised together. `alone`: per limit that would do on its own, by how much.
    """

    def __init__(
        self, excess: Mapping[str, float], alone: Mapping[str, float] | None = None
    ) -> None:
        self.excess, self.alone = dict(excess), dict(alone or {})
        raised = ", ".join(f"{name} by {more:.4g}" for name, more in self.excess.items())
        super().__init__(f"no schedule keeps all limits; raise {raised}")
