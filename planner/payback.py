"""Whether the joules that an upload costs come back before the client leaves.

The radio draws power while weights go up; from each acknowledged layer on, queries may run a
cheaper route. What is saved is counted against not uploading at all, and above idle power, which
the board draws all the time in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.costs import Floats, LayerCosts, Link, not_negative
from planner.objective import LATENCY, Objective
from planner.power import Power, energy_prices
from planner.prices import Prices, latency_prices
from planner.upload import UploadPlan

_S_PER_H = 3600.0
_SAME = 1e-12  # joules that differ by less, relative to the larger, are the same


class HourExceeded(ValueError):
    """The queries of an hour take longer than an hour; `most_per_h` of them fit into one."""

    def __init__(self, queries_per_h: float, slowest_s: float) -> None:
        self.most_per_h = _S_PER_H / slowest_s
        super().__init__(
            f"queries_per_h: {queries_per_h:g} queries take longer than an hour;"
            f" {self.most_per_h:.4g} fit, at {slowest_s:.3g} s each"
        )


@dataclass(frozen=True, slots=True)
class Payback:
    """Joules of a stay: `spent_J` by the upload, `saved_J` by the queries, until the client leaves.

    `break_even_s`: from when on more is saved than spent, were the client to stay; None if never.
    `saved_J` is negative where faster routes draw more.
    """

    spent_J: float
    saved_J: float
    break_even_s: float | None

    @property
    def net_J(self) -> float:
        """What the stay gains; negative where the upload does not pay."""
        return self.saved_J - self.spent_J


def payback(
    costs: LayerCosts,
    link: Link,
    power: Power,
    plan: UploadPlan,
    stay_s: float,
    queries_per_h: float,
    objective: Objective = LATENCY,
) -> Payback:
    """What uploading `plan` costs and saves in a stay with evenly spread queries.

    The upload begins with the stay, in one stream, and ends with it at the latest; a layer counts
    as in `planner.timeline`, when its last byte is acknowledged. Queries take the best route by
    `objective`; what they send meanwhile does not slow the upload. Raises ValueError when the stay
    or the rate is negative or not finite, HourExceeded when an hour's queries take longer than an
    hour, and ValueError for a plan that names layers that do not exist.
    """
    energy = _energy(costs, link, power, plan.layers, queries_per_h, objective)
    spent_J, saved_J = energy.until(not_negative("stay_s", stay_s))
    return Payback(float(spent_J[-1]), float(saved_J[-1]), energy.break_even_s())


def worth_uploading(
    costs: LayerCosts,
    link: Link,
    power: Power,
    plan: UploadPlan,
    stay_s: float,
    queries_per_h: float,
    objective: Objective = LATENCY,
) -> UploadPlan:
    """The first partitions of `plan`, as many as gain the most joules by the end of the stay.

    An empty plan where no upload pays. Arguments and errors as of `payback`.
    """
    energy = _energy(costs, link, power, plan.layers, queries_per_h, objective)
    spent_J, saved_J = energy.until(not_negative("stay_s", stay_s))
    layers = np.cumsum([0, *(len(partition) for partition in plan.partitions)])
    best = int(np.argmax((saved_J - spent_J)[layers]))
    return UploadPlan(plan.algorithm, plan.partitions[:best])


@dataclass(frozen=True, slots=True)
class _Energy:
    """What an upload spends and saves over time, for each number of layers in it (m + 1).

    After `sent_s` of sending, layer k is there; from `since_s` on queries save `saving_W`.
    """

    sending_W: float
    sent_s: Floats
    since_s: Floats
    saving_W: Floats

    def until(self, stay_s: float) -> tuple[Floats, Floats]:
        """Joules spent and saved by then, if the upload ends after k layers."""
        lasting_s = np.maximum(stay_s - self.since_s, 0.0)
        # Until the next layer arrives, as far as the stay lasts.
        passing_J = self.saving_W[:-1] * -np.diff(lasting_s)
        saved_J = np.append(0.0, np.cumsum(passing_J)) + self.saving_W * lasting_s
        return self.sending_W * np.minimum(self.sent_s, stay_s), saved_J

    def break_even_s(self) -> float | None:
        """From when on no less is saved than spent by the whole upload."""
        corners = np.unique(np.append(self.since_s, self.sent_s[-1])).tolist()
        net_J = [float(saved[-1] - spent[-1]) for spent, saved in map(self.until, corners)]
        slope_W = float(self.saving_W[-1])
        if slope_W < 0:
            return None
        same_J = _SAME * self.sending_W * float(self.sent_s[-1])
        behind = max((i for i, net in enumerate(net_J) if net < -same_J), default=None)
        if behind is None:
            return 0.0
        if behind + 1 < len(corners):
            rise_J, run_s = net_J[behind + 1] - net_J[behind], corners[behind + 1] - corners[behind]
            slope_W = rise_J / run_s
        return corners[behind] - net_J[behind] / slope_W if slope_W else None


def _energy(
    costs: LayerCosts,
    link: Link,
    power: Power,
    layers: Sequence[int],
    queries_per_h: float,
    objective: Objective,
) -> _Energy:
    rate_per_s = not_negative("queries_per_h", queries_per_h) / _S_PER_H
    _, query_J, latency_s = _routes_after(
        (
            objective.prices(costs, link),
            energy_prices(costs, link, power),
            latency_prices(costs, link),
        ),
        costs,
        layers,
    )
    if rate_per_s * latency_s.max() > 1 + _SAME:
        raise HourExceeded(queries_per_h, float(latency_s.max()))
    above_idle_J = query_J - power.idle_W * latency_s
    saved_J = above_idle_J[0] - above_idle_J
    saved_J[np.abs(saved_J) <= _SAME * query_J[0]] = 0.0
    sent_s = np.cumsum([0.0, *(costs.weight_bytes[layer] for layer in layers)]) / link.up_Bps
    since_s = np.append(0.0, sent_s[1:] + link.rtt_s)
    return _Energy(power.radio.sending_W(link.up_Bps), sent_s, since_s, rate_per_s * saved_J)


def _routes_after(
    prices: Sequence[Prices], costs: LayerCosts, layers: Sequence[int]
) -> NDArray[np.float64]:
    """Sums of each of `prices` along the route that is best by the first of them.

    (len(prices), len(layers) + 1): before any of `layers` is uploaded, and after each.
    """
    count = len(layers) + 1
    arrives = [count] * len(costs)
    for index, layer in enumerate(layers, start=1):
        if not 0 <= layer < len(costs):
            raise ValueError(f"the plan names layer {layer} of {len(costs)}")
        arrives[layer] = min(index, arrives[layer])
    usable_from = [max((arrives[need] for need in needs), default=0) for needs in costs.needs]
    client, edge, up, down = (
        np.stack([getattr(each, name) for each in prices])[:, :, None]
        for name in ("client", "edge", "up", "down")
    )
    uploaded = np.arange(count)
    at_client = np.zeros((len(prices), count))
    at_edge = at_client + down[:, -1]
    for i in range(len(costs) - 1, -1, -1):
        here, there = at_client + client[:, i], at_edge + edge[:, i]
        over, back = there + up[:, i], here + down[:, i]
        may = uploaded >= usable_from[i]
        at_client = np.where(may & (over[0] < here[0]), over, here)
        at_edge = np.where(may & (there[0] < back[0]), there, back)
    return at_client
