"""A mixed-integer linear programme with limits (HiGHS), that says by how much to raise these.

HiGHS is right to about 1e-6 of numbers as it gets them, whatever their size. So they are scaled;
variables that alone break a limit, or cost more than a schedule that is known, are left out, as
their size would blur the others; and every answer is checked against sums of its schedule. Where a
cheaper schedule comes out, the programme is solved again with that for a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from planner.costs import Floats
from planner.objective import ROUNDING, Infeasible

Schedule = TypeVar("Schedule")

_SIZE = 1e3  # what sums are scaled to, so that HiGHS tells them to 1e-9
_COEFFICIENTS = 1e4  # how many times the usual sum a bound may be before it sets the scale
_LARGEST = 1e290  # no scale is larger, so that products stay finite
_MARGINS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # to take off a limit that rounding broke, scaled
_PROVED = 1e-8  # an answer's distance from HiGHS's bound that needs no second look
_TOLD = 1e-6  # the largest distance that is taken for rounding
_ZERO_LIMIT = 1e3  # what the excess over a limit of 0 is relative to
_INFEASIBLE = 2  # milp's status


@dataclass(frozen=True, eq=False)
class Total(Generic[Schedule]):
    """A sum over a schedule: what each variable `adds` (>= 0), and what a schedule has `of` it.

    `brings`: what the sum is at least for each unit of a variable, with what that makes others
    add; None: `adds`.
    """

    adds: Floats
    of: Callable[[Schedule], float]
    brings: Floats | None = None


@dataclass(frozen=True, eq=False)
class Bound(Generic[Schedule]):
    """The total must be `at_most` so much."""

    name: str
    total: Total[Schedule]
    at_most: float

    def excess(self, schedule: Schedule) -> float:
        """By how much a schedule exceeds this; 0 where only rounding does."""
        amount = self.total.of(schedule)
        return amount - self.at_most if amount > self.at_most * (1 + ROUNDING) else 0.0


@dataclass(frozen=True, eq=False)
class Programme(Generic[Schedule]):
    """Variables from 0 to `most` with low <= rows @ variables <= high, `read` as a schedule.

    `integer`: which HiGHS has to make whole. `whole`: which are whole in schedules, these among
    them. `known`: some schedules, the cheapest by each criterion among them if possible. `flows`:
    the rows are those of a network, so that every vertex is whole where nothing is limited.
    """

    most: Floats
    integer: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    rows: scipy.sparse.csr_array
    low: Floats
    high: Floats
    read: Callable[[Floats], Schedule]
    known: Sequence[Schedule]
    flows: bool = False

    def cheapest(
        self, objective: Total[Schedule], limits: Sequence[Bound[Schedule]]
    ) -> Schedule | None:
        """The schedule with the least of `objective` that keeps all limits; None if none does.

        Passes over those within 1e-5 of a limit where HiGHS cannot tell on which side they are.
        Raises ValueError where sums are so far apart that it cannot tell what is the least.
        """
        usual = min(map(objective.of, self.known))
        kept = [schedule for schedule in self.known if not excess(schedule, limits)]
        bound = min(map(objective.of, kept), default=math.inf)
        while True:
            found = self._within(objective, limits, usual, bound)
            if found is None:
                if kept:
                    raise _unclear(limits)
                return None
            schedule, at_least, sure = found
            price = objective.of(schedule)
            if price == 0 or (sure and price <= min(bound, at_least) * (1 + _PROVED)):
                return schedule
            if not price < bound:
                if price <= min(bound, at_least) * (1 + _TOLD):
                    return schedule
                raise _unclear(limits)
            usual = bound = price

    def _within(
        self,
        objective: Total[Schedule],
        limits: Sequence[Bound[Schedule]],
        usual: float,
        bound: float,
    ) -> tuple[Schedule, float, bool] | None:
        """A schedule, what none costs less than, and whether sums are of the size to tell so."""
        bounds = [(limit.total, limit.at_most) for limit in limits]
        most = self._most([(objective, bound), *bounds])
        costs = objective.adds * (most > 0)
        scale = _scale(max(usual, _largest(costs) / _COEFFICIENTS))
        scales = np.array([_scale(limit.at_most) for limit in limits])
        at_most = scales * [limit.at_most * (1 + ROUNDING) for limit in limits]
        margins = np.zeros(len(limits))
        for margin in _MARGINS:
            solved = self._solved(costs * scale, most, limits, scales, at_most - margins)
            if solved is None:
                return None
            schedule = self.read(solved[0])
            broken = excess(schedule, limits)
            if not broken:
                price = objective.of(schedule)
                return schedule, solved[1] / scale, price * scale >= _SIZE / 10
            wider = np.array([limit.name in broken for limit in limits])
            margins = np.where(wider, 10 * max(margin, _MARGINS[1] / 10), margins)
        raise _unclear(limits)

    def infeasible(self, limits: Sequence[Bound[Schedule]]) -> Infeasible:
        """By how much the limits must be raised: together, by the least relative sum, and each.

        Raises ValueError where HiGHS cannot tell whether any has to be raised.
        """
        missed = excess(self._least_excess(limits), limits)
        if not missed:
            raise _unclear(limits)
        alone = {}
        for i, limit in enumerate(limits):
            found = self.cheapest(limit.total, [*limits[:i], *limits[i + 1 :]])
            if found is not None and (more := limit.excess(found)):
                alone[limit.name] = more
        return Infeasible(missed, alone)

    def _least_excess(self, limits: Sequence[Bound[Schedule]]) -> Schedule:
        at_most = np.array([limit.at_most for limit in limits])
        weights = 1 / np.where(at_most > 0, at_most, _ZERO_LIMIT)

        def relative(schedule: Schedule) -> float:
            return float(weights @ [limit.excess(schedule) for limit in limits])

        bound = min(map(relative, self.known))
        while True:
            raised = at_most + bound / weights
            bounds = [(limit.total, most) for limit, most in zip(limits, raised, strict=True)]
            most = self._most(bounds)
            scales = np.array([_scale(most) for most in raised])
            slack_costs = weights / scales * _scale(bound)
            solved = self._solved(
                np.zeros(len(most)), most, limits, scales, scales * at_most, slack_costs
            )
            if solved is None:
                raise _unclear(limits)
            schedule = self.read(solved[0])
            missed = relative(schedule)
            at_least = solved[1] / _scale(bound) + ROUNDING
            if missed >= bound / 10 and missed <= at_least * (1 + _TOLD):
                return schedule
            if not missed < bound:
                raise _unclear(limits)
            bound = missed

    def _most(self, bounds: Iterable[tuple[Total[Schedule], float]]) -> Floats:
        """How large each variable can be in a schedule whose totals are within these bounds."""
        most = self.most
        for total, bound in bounds:
            each = total.adds if total.brings is None else total.brings
            with np.errstate(over="ignore"):
                fits = np.full(len(most), np.inf)
                np.divide(bound * (1 + ROUNDING), each, out=fits, where=each > 0)
            most = np.minimum(most, np.where(self.whole, np.floor(fits), fits))
        return most

    def _solved(
        self,
        costs: Floats,
        most: Floats,
        limits: Sequence[Bound[Schedule]],
        scales: Floats,
        at_most: Floats,
        slack_costs: Floats | None = None,
    ) -> tuple[Floats, float] | None:
        """The cheapest variables, and HiGHS's bound; with `slack_costs` limits may be exceeded."""
        used, optimize, sparse = most > 0, scipy.optimize, scipy.sparse
        if not used.any():
            return None
        slack_costs = np.zeros(0) if slack_costs is None else slack_costs
        slacks, integer = len(slack_costs), self.integer[used]
        if self.flows and not limits:
            integer = integer & False
        rows = sparse.hstack(
            [self.rows[:, np.flatnonzero(used)], sparse.csr_array((self.rows.shape[0], slacks))]
        )
        constraints = [optimize.LinearConstraint(rows, self.low, self.high)]
        if limits:
            limited = [limit.total.adds[used] * s for limit, s in zip(limits, scales, strict=True)]
            over = -sparse.eye_array(len(limits), slacks)
            both = sparse.hstack([sparse.csr_array(np.array(limited)), over])
            constraints.append(optimize.LinearConstraint(both, -np.inf, at_most))
        result = _milp(
            c=np.concatenate([costs[used], slack_costs]),
            integrality=np.concatenate([integer, np.zeros(slacks)]),
            bounds=optimize.Bounds(0.0, np.concatenate([most[used], np.full(slacks, np.inf)])),
            constraints=constraints,
        )
        if result.status == _INFEASIBLE:
            return None
        if result.x is None:
            raise RuntimeError(f"HiGHS: {result.message}")
        values = np.zeros(len(most))
        values[used] = result.x[: used.sum()]
        at_least = result.mip_dual_bound if integer.any() else result.fun
        return values, float(result.fun if at_least is None else at_least)


def _milp(**programme: Any) -> Any:
    """HiGHS's answer. Its presolve takes some programmes for infeasible that are not, where limits
    are kept with nothing to spare: it is believed only where the search says so as well."""
    options = {"mip_rel_gap": 0.0}
    result = scipy.optimize.milp(**programme, options=options)
    if result.status == _INFEASIBLE:
        result = scipy.optimize.milp(**programme, options={**options, "presolve": False})
    return result


def excess(schedule: Schedule, limits: Iterable[Bound[Schedule]]) -> dict[str, float]:
    """By how much a schedule exceeds the limits that it breaks."""
    return {limit.name: more for limit in limits if (more := limit.excess(schedule))}


def _largest(values: Floats) -> float:
    return float(np.max(values, initial=0.0))


def _scale(size: float) -> float:
    return min(_SIZE / size, _LARGEST) if size > 0 else 1.0


def _unclear(limits: Sequence[Bound[Schedule]]) -> ValueError:
    name = limits[0].name if limits else "objective"
    return ValueError(f"{name}: too close to call for HiGHS, by sums of these sizes")
