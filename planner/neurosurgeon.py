"""Neurosurgeon: one split point, before which the client computes and after which the edge does.

Y. Kang et al., "Neurosurgeon: Collaborative Intelligence Between the Cloud and Mobile Edge",
ASPLOS'17, Algorithm 1. For each layer it predicts the time on the mobile and on the server (under
the server's load K), the mobile's power, and the time to send the layer's output; then it tries
every split point and takes the best in latency, or in mobile energy. The model is on the server
beforehand. On a graph, a layer's output is all that is alive at the cut after it. The algorithm's
text was not at hand: its steps are from memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from planner.costs import Floats, LayerCosts, Link, is_finite
from planner.objective import LATENCY, Objective, mobile_energy
from planner.power import Power
from planner.prices import Placement, Prices
from planner.route import priced

Target: TypeAlias = Literal["latency", "energy"]


@dataclass(frozen=True, slots=True)
class Split:
    """Layers before `point` run on the client, the others on the edge.

    `latency_s` and `energy_J` (None without power) are of the whole query as `Route` has them,
    the answer's way back included, so that they compare with every other planner's.
    """

    point: int
    placement: Placement
    latency_s: float
    energy_J: float | None = None


def neurosurgeon(
    costs: LayerCosts,
    link: Link,
    power: Power | None = None,
    objective: Target = "latency",
    server_load: float = 1.0,
    *,
    counts_answer: bool = False,
) -> Split:
    """The best of all n + 1 split points by Algorithm 1; on a tie the client runs more.

    `server_load` is K as a factor on the edge's times. As published, the answer's way back costs
    nothing; `counts_answer` decides with it, as generative networks need. With idle power 0, round
    trip 0 and no coding of cuts, the sums are the paper's to the letter; else these are part of
    what the server and the upload cost. Raises ValueError for an unknown objective, for "energy"
    without power, and for a load that is not positive and finite.
    """
    if not (is_finite(server_load) and server_load > 0):
        raise ValueError(f"server_load is a positive factor, not {server_load!r}")
    loaded = replace(costs, edge_s=costs.edge_s * server_load)
    target = _target(objective, power)
    totals = split_prices(target.prices(loaded, link), counts_answer=counts_answer)
    n = len(costs)
    point = n - int(np.argmin(totals[::-1]))
    placement: Placement = tuple("client" if i < point else "edge" for i in range(n))
    full = priced(loaded, link, placement, Objective(power=power))
    return Split(point, placement, full.latency_s, full.energy_J)


def split_prices(prices: Prices, *, counts_answer: bool = False) -> Floats:
    """What each split point costs (n + 1): the sums of Algorithm 1.

    Entry j: layers before j on the client, the cut sent up, the rest on the edge. The last one is
    all on the client, and sends nothing.
    """
    totals = np.append(0.0, np.cumsum(prices.client))
    remote = np.append(np.cumsum(prices.edge[::-1])[::-1], 0.0)
    totals[:-1] += prices.up[:-1] + remote[:-1]
    if counts_answer:
        totals[:-1] += prices.down[-1]
    return totals


def _target(objective: Target, power: Power | None) -> Objective:
    if objective == "latency":
        return LATENCY
    if objective != "energy":
        raise ValueError(f"objective is 'latency' or 'energy', not {objective!r}")
    if power is None:
        raise ValueError("power is needed to minimise energy")
    return mobile_energy(power)
