"""Schedules solved beforehand for a region of conditions, and looked up in microseconds.

JointDNN (TMC'19) solves its schedules offline for settings of network, load and battery, and
looks the nearest up. Here a lookup also says by how much its schedule can miss the best one at
the most (`planner.schedule_cells` has the proof), and the table is finer where that is needed.

Knows no files: `to_plain` and `from_plain` are for those who do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from operator import mul
from typing import Any, Final

from planner.costs import LayerCosts, Link
from planner.power import Power
from planner.prices import Placement
from planner.region import RECIPROCAL, Region, is_number
from planner.schedule_cells import MOST_CELLS, Cell, Fork, Node, Point, Solver, refine
from planner.schedule_plain import (
    placement_from_plain,
    placement_to_plain,
    section,
    tree_from_plain,
    tree_to_plain,
)

FORMAT: Final = 1


class OutsideCache(ValueError):
    """The conditions are outside of what schedules were solved for; the message says which."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A schedule, what it costs, and by how much that can be more than the least at the most.

    `price` is seconds + s_per_J * joules of the client, `regret` is in the same unit: 0 where the
    schedule is proved to be the best. Both are exact to the rounding of sums.
    """

    placement: Placement
    price: float
    regret: float


class ScheduleCache:
    """Schedules for a region of conditions. Made by `solve` or `from_plain`; does not change.

    `cells`: how many boxes of conditions there are, `schedules`: how many different schedules,
    `regret`: the largest bound of all boxes, over the least price. `fingerprint` names the costs
    (and power, and what the edge has) that all of it holds for.
    """

    def __init__(self, region: Region, fingerprint: str, solver: Solver, root: Node) -> None:
        cells = list(_cells(root))
        self.region, self.fingerprint = region, fingerprint
        self.cells = len(cells)
        self.schedules = len({schedule for cell in cells for schedule in cell.schedules})
        self.regret = max(cell.regret for cell in cells)
        self._placements, self._root = solver.placements, root
        self._box = solver.low[:-1], solver.high[:-1]
        self._amounts = [solver.seconds_and_joules(i) for i in range(len(solver.placements))]
        self._ranges = [
            (name, low, high, low < high, name in RECIPROCAL)
            for name, (low, high) in region.ranges.items()
        ]

    @classmethod
    def solve(
        cls,
        costs: LayerCosts,
        region: Region,
        power: Power | None = None,
        available: Sequence[bool] | None = None,
        *,
        regret: float = 0.01,
        most_cells: int = 4096,
    ) -> ScheduleCache:
        """Solve until no schedule can cost more than the best by `regret` of it, or space is out.

        `available` (n): whether the edge may run layer i; None: all. `most_cells` bounds time and
        size: a cell takes one shortest path for each of its corners that no other has. Raises
        ValueError when `available` has not n entries, when s_per_J is not 0 and there is no
        power, when `regret` is negative and when `most_cells` is not from 1 to 65,536.
        """
        if not is_number(regret):
            raise ValueError(f"regret is a finite number from 0, not {regret!r}")
        if type(most_cells) is not int or not 1 <= most_cells <= MOST_CELLS:
            raise ValueError(f"most_cells is from 1 to {MOST_CELLS}, not {most_cells!r}")
        solver = Solver(costs, region, power, available)
        root = refine(solver, regret, most_cells)
        return cls(region, _fingerprint(costs, power, available), solver, root)

    def lookup(self, link: Link, server_load: float = 1.0, s_per_J: float = 0.0) -> Cached:
        """The schedule for these conditions; takes microseconds, however many layers there are.

        Raises OutsideCache, which is a ValueError, outside of the region.
        """
        point = self._point((link.up_Bps, link.down_Bps, link.rtt_s, server_load, s_per_J))
        node = self._root
        while isinstance(node, Fork):
            node = node.low if point[node.axis] <= node.at else node.high
        shares = _corner_shares(node.low, node.high, point)
        price, schedule = min(
            (_interpolated(prices, shares), schedule)
            for prices, schedule in zip(node.prices, node.schedules, strict=True)
        )
        regret = min(price * node.share, max(0.0, price - _interpolated(node.least, shares)))
        return Cached(self._placements[schedule], price, regret)

    def lookup_battery(self, link: Link, battery_J: float, server_load: float = 1.0) -> Cached:
        """The fastest cached schedule that takes at most `battery_J` of the client per query.

        Its `price` is in seconds. The least seconds of any schedule that keeps the battery are at
        least (least price) - s_per_J * battery_J at every s_per_J, by Lagrange's duality, which
        bounds the regret. Looks at all cells along s_per_J. Raises OutsideCache when s_per_J is
        fixed in this cache, when no schedule in it for these conditions keeps the battery, and
        outside of the region; ValueError when battery_J is negative or not finite.
        """
        if not is_number(battery_J):
            raise ValueError(f"battery_J is a finite number from 0, not {battery_J!r}")
        low, high = self.region.s_per_J
        if low == high:
            raise OutsideCache("s_per_J is fixed in this cache; batteries need a range of it")
        point = self._point((link.up_Bps, link.down_Bps, link.rtt_s, server_load, low))
        bound_s, found = 0.0, set[int]()
        for cell in _cells(self._root, point):
            found |= set(cell.schedules)
            for s_per_J in (cell.low[-1], cell.high[-1]):
                shares = _corner_shares(cell.low, cell.high, (*point[:-1], s_per_J))
                bound_s = max(bound_s, _interpolated(cell.least, shares) - s_per_J * battery_J)
        shares = _corner_shares(*self._box, point[:-1])
        taken = [
            (_interpolated(seconds, shares), _interpolated(joules, shares), schedule)
            for schedule in found
            for seconds, joules in (self._amounts[schedule],)
        ]
        kept = [way for way in taken if way[1] <= battery_J]
        if not kept:
            least_J = min(energy_J for _, energy_J, _ in taken)
            raise OutsideCache(f"battery_J is {battery_J:g}; cached schedules take {least_J:g} J")
        latency_s, _, schedule = min(kept)
        return Cached(self._placements[schedule], latency_s, max(0.0, latency_s - bound_s))

    def _point(self, given: tuple[float, ...]) -> Point:
        point = []
        for value, (name, low, high, varies, reciprocal) in zip(given, self._ranges, strict=True):
            if not low <= value <= high:
                raise OutsideCache(f"{name} is {value:g}; schedules are cached {low:g} to {high:g}")
            if varies:
                point.append(1 / value if reciprocal else value)
        return tuple(point)

    def to_plain(self) -> dict[str, Any]:
        """The cache as dicts, lists, strings and numbers; `from_plain` is its inverse.

        Schedules are the cuts where the sides change; for nodes see `schedule_plain`.
        """
        cells = _cells(self._root)
        used = sorted({schedule for cell in cells for schedule in cell.schedules})
        number = {schedule: i for i, schedule in enumerate(used)}
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "region": {name: list(ends) for name, ends in self.region.ranges.items()},
            "schedules": [placement_to_plain(self._placements[schedule]) for schedule in used],
            "nodes": tree_to_plain(self._root, self.region.axes, number),
        }

    @classmethod
    def from_plain(
        cls,
        plain: object,
        costs: LayerCosts,
        power: Power | None = None,
        available: Sequence[bool] | None = None,
    ) -> ScheduleCache:
        """The cache from what `to_plain` gave, for the costs that it was solved for.

        Raises ValueError for anything else, and when costs, power or `available` are others.
        Prices are computed anew; the gaps and shares that bounds come from are taken as they are,
        since proving them means solving again: keep the plain form as safe as the costs.
        """
        found = section(plain, "a schedule cache", Mapping)
        if type(found.get("format")) is not int or found["format"] != FORMAT:
            raise ValueError(
                f"schedule cache format {found.get('format')!r:.40}; known is {FORMAT}"
            )
        fingerprint = _fingerprint(costs, power, available)
        if found.get("fingerprint") != fingerprint:
            raise ValueError("fingerprint: these schedules were solved for other costs")
        ranges = section(found.get("region"), "region", Mapping)
        known = Region((1, 1), (1, 1), (1, 1)).ranges
        if set(ranges) != set(known):
            raise ValueError(f"region has {', '.join(known)}")
        region = Region(**ranges)
        solver = Solver(costs, region, power, available)
        schedules = section(found.get("schedules"), "schedules", list)
        if len(schedules) > 2 * MOST_CELLS:
            raise ValueError(f"schedules are at most {2 * MOST_CELLS}, not {len(schedules)}")
        placements = [placement_from_plain(cuts, len(costs), available) for cuts in schedules]
        numbers = [solver.number(placement) for placement in placements]
        root = tree_from_plain(
            section(found.get("nodes"), "nodes", list), region.axes, solver, numbers
        )
        return cls(region, fingerprint, solver, root)


def _cells(root: Node, point: Point | None = None) -> Iterator[Cell]:
    """All cells, or those that a line through `point` along the last axis meets."""
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Cell):
            yield node
        elif point is None or node.axis == len(point) - 1:
            stack += [node.high, node.low]
        else:
            stack.append(node.low if point[node.axis] <= node.at else node.high)


def _corner_shares(lows: Point, highs: Point, point: Point) -> list[float]:
    """How much each corner counts in an interpolation to `point`."""
    shares = [1.0]
    for x, low, high in zip(point, lows, highs, strict=True):
        far = (x - low) / (high - low)
        near = 1 - far
        shares = [share * end for share in shares for end in (near, far)]
    return shares


def _interpolated(values: Sequence[float], shares: Sequence[float]) -> float:
    return float(sum(map(mul, values, shares)))


def _fingerprint(costs: LayerCosts, power: Power | None, available: Sequence[bool] | None) -> str:
    arrays = (
        costs.client_s, costs.edge_s, costs.cut_up_bytes, costs.cut_down_bytes,
        costs.cut_up_s, costs.cut_down_s,
    )  # fmt: skip
    may = None if available is None else [bool(layer) for layer in available]
    known = ([array.tolist() for array in arrays], power and astuple(power), may)
    return hashlib.sha256(repr(known).encode()).hexdigest()
