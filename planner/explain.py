"""Why layers run where they run, and which changes of the world would move them.

Knows no words and no screens: what it finds is plain values.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from planner.changes import Change, changes
from planner.costs import LayerCosts, Link
from planner.objective import LATENCY, Objective
from planner.prices import Placement, cheapest_path
from planner.reasons import Reason, reasons


@dataclass(frozen=True, slots=True)
class Explanation:
    """The cheapest placement, a reason per layer, and what would move it: up to two per dial."""

    price: float
    placement: Placement
    reasons: tuple[Reason, ...]
    changes: tuple[Change, ...]


def explain(
    costs: LayerCosts,
    link: Link,
    uploaded: Collection[int] | None = None,
    objective: Objective = LATENCY,
) -> Explanation:
    """Why each layer is where it is, and the next value of each dial that would change that.

    `uploaded`: layers whose weights are on the edge; None: all. "s_per_J" is a dial where the
    objective has a power and seconds count. O(n) for the reasons, a few shortest paths for each
    change. Raises ValueError when `uploaded` names a layer that does not exist.
    """
    available = costs.available(range(len(costs)) if uploaded is None else uploaded)
    price, placement = cheapest_path(objective.prices(costs, link), available)
    return Explanation(
        price,
        placement,
        reasons(costs, link, placement, available, objective),
        changes(costs, link, placement, available, objective),
    )
