"""Boxes of conditions, each with one or two schedules and a bound on how far these are from best.

The price of a schedule is linear in each axis alone: one over a rate, the round trip, the edge's
load, the worth of a joule. So in a box of them it is the interpolation of its prices at the
corners, and the least price of all is at least the interpolation of the least prices there. The
cheaper of two schedules is nowhere above their mean, so the mean's excess at a corner, where it is
largest, bounds the regret.

Where s_per_J is fixed, prices are linear in all axes together, and there is a far better bound.
Where the first schedule is the cheaper one is then a polytope; its corners are those of the box,
and points on the box's edges where both cost the same. The least price is concave, so that if it
is within a factor of the cheaper schedule's at these points, it is so everywhere; and where it
is the same at all of them, the two schedules are the best in the whole box.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, TypeAlias

import numpy as np

from planner.costs import Floats, LayerCosts, Link
from planner.objective import Objective
from planner.power import Power, energy_prices
from planner.prices import SAME, Placement, Prices, cheapest_path, checked_available, latency_prices
from planner.region import RECIPROCAL, Region

# Boxes are not cut thinner than this part of their distance from zero.
_THINNEST = 1e-9
MOST_CELLS: Final = 65_536

Point: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A box, one or two schedules for it, and what they and the best one cost at its corners.

    Corners are in the order of `itertools.product`: the last axis changes first. The cheaper of
    the schedules is the one to take; at most `share` of its price is regret.
    """

    low: Point
    high: Point
    schedules: tuple[int, ...]
    prices: tuple[tuple[float, ...], ...]
    least: tuple[float, ...]
    share: float

    @property
    def regret(self) -> float:
        """The bound on the regret, over the least price, anywhere in the box."""
        return self.share / (1 - self.share) if self.share < 1 else math.inf


@dataclass(frozen=True, slots=True)
class Fork:
    """A box cut in two: `axis` up to `at`, and the rest."""

    axis: int
    at: float
    low: Node
    high: Node


Node: TypeAlias = Fork | Cell


class Solver:
    """The least prices at points of a region, each solved once."""

    def __init__(
        self,
        costs: LayerCosts,
        region: Region,
        power: Power | None,
        available: Sequence[bool] | None,
    ) -> None:
        if power is None and region.s_per_J != (0.0, 0.0):
            raise ValueError("power is needed where s_per_J is not 0")
        checked_available(available, len(costs))
        n = len(costs)
        self._cuts, self._available, axes = (n, 2 * n, 3 * n + 1), available, region.axes
        self._linear = "s_per_J" not in axes
        ends = [
            sorted(1 / value if axis in RECIPROCAL else value for value in getattr(region, axis))
            for axis in axes
        ]
        self.low = tuple(low for low, _ in ends)
        self.high = tuple(high for _, high in ends)
        corners = (dict(zip(axes, corner, strict=True)) for corner in product(*ends))
        self._corner_prices = np.array(
            [_flat(_prices(costs, region, power, corner)) for corner in corners]
        )
        parted = [] if self._linear else product(*ends[:-1])
        self._parts = [
            _parts(costs, region, power, dict(zip(axes, corner, strict=False))) for corner in parted
        ]
        self.placements: list[Placement] = []
        self._numbers: dict[Placement, int] = {}
        self._corner_sums: list[Floats] = []
        self._solved: dict[Point, tuple[float, int]] = {}
        self._shares: dict[Point, Floats] = {}

    def number(self, placement: Placement) -> int:
        """The index of a placement among all that were named."""
        if placement not in self._numbers:
            self._numbers[placement] = len(self.placements)
            self.placements.append(placement)
            self._corner_sums.append(self._corner_prices @ _uses(placement))
        return self._numbers[placement]

    def cell(self, low: Point, high: Point) -> Cell:
        """A box with the schedules that keep the bound on its regret the smallest.

        Chosen among the best at its corners and in its middle.
        """
        corners = list(product(*zip(low, high, strict=True)))
        middle = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
        least = np.array([self._solve(corner)[0] for corner in corners])
        known = sorted({self._solve(point)[1] for point in (*corners, middle)})
        prices = self.corner_prices(low, high, known)
        relative = _relative(prices, least)
        means = ((relative[:, None] + relative[None]) / 2).max(axis=-1)
        cheaper = np.minimum(relative[:, None], relative[None]).max(axis=-1)
        order = (means.ravel(), cheaper.ravel()) if self._linear else (means.ravel(),)
        pair = divmod(int(np.lexsort(order)[0]), len(known))
        regret = float(means[pair])
        if self._linear:
            met = (self._regret(*at) for at in _meetings(low, high, *prices[list(pair)]))
            regret = max(float(cheaper[pair]), *met, 0.0)
        schedules = [known[i] for i in sorted(set(pair))]
        share = regret / (1 + regret) if math.isfinite(regret) else 1.0
        return self.priced(low, high, schedules, least, share)

    def priced(
        self, low: Point, high: Point, schedules: Sequence[int], least: Floats, share: float
    ) -> Cell:
        """A box with these schedules, given the least price at each corner."""
        prices = self.corner_prices(low, high, schedules)
        exact = prices[0] - least <= SAME * prices[0]
        kept = tuple(np.where(exact, prices[0], least).tolist())
        rows = tuple(map(tuple, prices.tolist()))
        return Cell(low, high, tuple(schedules), rows, kept, share)

    def corner_prices(self, low: Point, high: Point, schedules: Sequence[int]) -> Floats:
        """What each schedule costs at each corner of a box."""
        corners = product(*zip(low, high, strict=True))
        shares = np.array([self._corner_shares(corner) for corner in corners])
        sums = np.array([self._corner_sums[schedule] for schedule in schedules])
        return np.asarray(sums @ shares.T)

    def seconds_and_joules(self, schedule: int) -> tuple[list[float], list[float]]:
        """What a schedule takes at each corner of the region along all axes but s_per_J, the last.

        Empty where s_per_J is fixed.
        """
        uses = _uses(self.placements[schedule])
        seconds, joules = [], []
        for latency, energy in self._parts:
            seconds.append(float(latency @ uses))
            joules.append(float(energy @ uses))
        return seconds, joules

    def _solve(self, point: Point) -> tuple[float, int]:
        if point not in self._solved:
            flat = self._corner_shares(point) @ self._corner_prices
            price, placement = cheapest_path(Prices(*np.split(flat, self._cuts)), self._available)
            self._solved[point] = price, self.number(placement)
        return self._solved[point]

    def _regret(self, point: Point, price: float) -> float:
        return float(_relative(np.array(price), np.array(self._solve(point)[0])))

    def _corner_shares(self, point: Point) -> Floats:
        """How much each corner of the region counts in an interpolation to this point."""
        if point not in self._shares:
            shares = np.ones(1)
            for x, low, high in zip(point, self.low, self.high, strict=True):
                share = (x - low) / (high - low)
                shares = np.multiply.outer(shares, (1 - share, share)).ravel()
            self._shares[point] = shares
        return self._shares[point]


def refine(solver: Solver, regret: float, most_cells: int) -> Node:
    """The solver's region, halved where the bound is worst until it is at most `regret`."""
    cells = [solver.cell(solver.low, solver.high)]
    cut: list[tuple[int, int, float, int]] = []
    worst = [(-cells[0].regret, 0)]
    while worst and -worst[0][0] > regret and len(cut) + 1 < most_cells:
        _, parent = heapq.heappop(worst)
        cell = cells[parent]
        axis = _axis_to_cut(cell)
        if axis is None:
            continue
        low, high = cell.low[axis], cell.high[axis]
        at = math.sqrt(low) * math.sqrt(high) if low else high / 2
        cut.append((parent, axis, at, len(cells)))
        for half in (
            solver.cell(cell.low, (*cell.high[:axis], at, *cell.high[axis + 1 :])),
            solver.cell((*cell.low[:axis], at, *cell.low[axis + 1 :]), cell.high),
        ):
            heapq.heappush(worst, (-half.regret, len(cells)))
            cells.append(half)
    nodes: list[Node] = list(cells)
    for parent, axis, at, child in reversed(cut):
        nodes[parent] = Fork(axis, at, nodes[child], nodes[child + 1])
    return nodes[0]


def _relative(prices: Floats, least: Floats) -> Floats:
    """By how much prices are above the least ones, over these; infinite over nothing."""
    gaps = prices - least
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gaps <= SAME * prices, 0.0, gaps / least)


def _meetings(low: Point, high: Point, one: Floats, other: Floats) -> Iterator[tuple[Point, float]]:
    """Where on the edges of a box two schedules cost the same, and what; from corner prices."""
    corners = list(product(*zip(low, high, strict=True)))
    apart = one - other
    for axis in range(len(low)):
        step = 1 << (len(low) - 1 - axis)
        for near, far in ((i, i + step) for i in range(len(corners)) if not i & step):
            if apart[near] * apart[far] >= 0:
                continue
            way = float(apart[near] / (apart[near] - apart[far]))
            x = low[axis] + way * (high[axis] - low[axis])
            price = one[near] + way * (one[far] - one[near])
            yield (*corners[near][:axis], x, *corners[near][axis + 1 :]), float(price)


def _axis_to_cut(cell: Cell) -> int | None:
    """The axis along which the gaps change the most; None where the box is thin along all."""
    gaps = np.array(cell.prices) - np.array(cell.least)
    gaps = gaps.reshape((-1, *(2,) * len(cell.low)))
    changes = [
        np.abs(np.diff(gaps, axis=axis + 1)).sum() if high - low > _THINNEST * high else -1.0
        for axis, (low, high) in enumerate(zip(cell.low, cell.high, strict=True))
    ]
    return int(np.argmax(changes)) if max(changes) >= 0 else None


def _prices(
    costs: LayerCosts, region: Region, power: Power | None, corner: Mapping[str, float]
) -> Prices:
    loaded, link, s_per_J = _conditions(costs, region, corner)
    return Objective(1.0, s_per_J, power).prices(loaded, link)


def _parts(
    costs: LayerCosts, region: Region, power: Power | None, corner: Mapping[str, float]
) -> tuple[Floats, Floats]:
    """Seconds and joules apart, whose difference of two mixes would be rounded."""
    assert power is not None
    loaded, link, _ = _conditions(costs, region, corner)
    return _flat(latency_prices(loaded, link)), _flat(energy_prices(loaded, link, power))


def _conditions(
    costs: LayerCosts, region: Region, corner: Mapping[str, float]
) -> tuple[LayerCosts, Link, float]:
    at = {name: low for name, (low, _) in region.ranges.items()}
    at |= {name: 1 / x if name in RECIPROCAL else x for name, x in corner.items()}
    loaded = replace(costs, edge_s=costs.edge_s * at["server_load"])
    return loaded, Link(at["up_Bps"], at["down_Bps"], at["rtt_s"]), at["s_per_J"]


def _flat(prices: Prices) -> Floats:
    return np.concatenate((prices.client, prices.edge, prices.up, prices.down))


def _uses(placement: Placement) -> Floats:
    """Ones where `_flat` has what the placement pays for."""
    there = np.array([False, *(where == "edge" for where in placement), False])
    before, after = there[:-1], there[1:]
    parts = (~after[:-1], after[:-1], ~before & after, before & ~after)
    return np.concatenate(parts).astype(np.float64)
