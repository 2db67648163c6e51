"""The cheapest schedule under any number of limits: an integer linear programme (HiGHS).

JointDNN (IEEE TMC 2019), eq. 1-20, and Eshratifar and Pedram (GLSVLSI'18): minimise latency,
energy or a mix, keep a battery budget (eq. 13, training 18), a limit on the edge's time (14, 19)
and a deadline (20); `planner.objective` makes these, `planner.ilp_forms` the two forms. Exact
where `planner.larac` leaves a gap. Without a limit, `planner.route` has the same answer in
microseconds.

"glsvlsi" grows with n and is the form to use: a thousand layers take tens of milliseconds, and
seconds where limits are nearly or wholly out of reach. "jointdnn" grows with n^2, and is for
prices of groups that are not the sums of their layers. Unless groups or pairs (training) are
priced, cuts that no schedule needs (`planner.dominance`) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from planner.costs import Floats
from planner.dominance import merge, needed_cuts
from planner.ilp_forms import Form, Grouped, PerLayer, Ranges, Tied
from planner.jointdnn import checked_available, checked_ranges
from planner.larac import cheapest_of
from planner.objective import ROUNDING, Infeasible, Limit
from planner.prices import Placement, Prices, Where
from planner.training import TrainingPrices

# HiGHS stops within 1e-6 of the optimum and of a limit, whatever their size: make them large.
_SCALE = 1e3
_COEFFICIENTS = 1e4  # how many times its scale a coefficient may be before it sets the scale
_MARGINS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # what to take off a limit that rounding broke, scaled
_INFEASIBLE = 2  # milp's status
_COMPACT = "glsvlsi"
_FORMS: dict[str, type[PerLayer] | type[Grouped]] = {_COMPACT: PerLayer, "jointdnn": Grouped}


def ilp_placement(
    objective: Prices | TrainingPrices,
    limits: Sequence[Limit] = (),
    available: Sequence[bool] | None = None,
    form: Literal["glsvlsi", "jointdnn"] = "glsvlsi",
    client_ranges: ArrayLike | None = None,
    edge_ranges: ArrayLike | None = None,
) -> Placement:
    """The placement with the least price of those that keep all limits.

    `available` (n): whether the edge may run layer i; None: all. `client_ranges`, `edge_ranges`:
    as for `jointdnn_placement`; only the objective has them, limits add up layer by layer.

    Raises `Infeasible` when no placement keeps all limits, with the least raises: `excess` those
    with the least sum relative to the limits, `alone` what each would need if only it were raised
    (limits for which no raise would do are not in it). Raises ValueError that names the argument
    when lengths differ, when two limits have the same name, for an unknown form, and for ranges
    with "glsvlsi", and where sums are so large that HiGHS cannot tell whether limits are kept.
    """
    n = len(objective)
    may = checked_available(available, n)
    ranges = _checked_ranges(objective, form, client_ranges, edge_ranges)
    _check_limits(limits, n)
    if n == 0:
        return ()
    criteria = [objective, *(limit.prices for limit in limits)]
    added_up = [prices for prices in criteria if isinstance(prices, Prices)]
    if ranges is not None or len(added_up) < len(criteria):
        training = len(added_up) < len(criteria)
        return _solve(_Problem(form, may, objective, limits, ranges, training))
    cuts = np.array([0, *needed_cuts(added_up, may), n])
    merged, *limited = (merge(prices, cuts) for prices in added_up)
    few = [replace(limit, prices=prices) for limit, prices in zip(limits, limited, strict=True)]
    groups = _solve(_Problem(form, np.logical_and.reduceat(may, cuts[:-1]), merged, few))
    return tuple(np.repeat(groups, np.diff(cuts)).tolist())


@dataclass(frozen=True, eq=False)
class _Problem:
    form: str
    may: NDArray[np.bool_]
    objective: Prices | TrainingPrices
    limits: Sequence[Limit]
    ranges: Ranges | None = None
    training: bool = False

    def formulated(self, form: str) -> Form:
        plain = _FORMS[form](self.may)
        return Tied(plain) if self.training else plain


def _solve(problem: _Problem) -> Placement:
    form, limits = problem.formulated(problem.form), problem.limits
    costs, before = form.priced(problem.objective, problem.ranges)
    most = form.most * ~_unaffordable(problem, form, costs)
    rows, at_most, _ = _limit_rows(form, limits, most > 0)
    costs = costs * (most > 0)
    costs *= _scale(costs, before + float(costs[costs < 0].sum()))
    margins = np.zeros(len(limits))
    for margin in _MARGINS:
        values = _least(form, costs, rows, at_most - margins, most)
        if values is None:
            raise _infeasible(problem.formulated(_COMPACT), limits)
        placement = form.placement(values)
        broken = _broken(placement, limits)
        if not broken:
            return placement
        margins = np.array([margin * (limit.name in broken) for limit in limits]).clip(margins)
    raise RuntimeError(f"HiGHS keeps breaking {', '.join(broken)} by rounding")


def _unaffordable(problem: _Problem, form: Form, costs: Floats) -> NDArray[np.bool_]:
    """Variables that alone exceed a limit, or cost more than a schedule that is known."""
    too_much = costs > _known_price(problem) * (1 + ROUNDING)
    for limit in problem.limits:
        too_much |= form.priced(limit.prices)[0] > limit.at_most * (1 + ROUNDING)
    return too_much & form.whole


def _known_price(problem: _Problem) -> float:
    """The least price of some schedules that keep the limits, infinite where none of them does."""
    n, objective, limits = len(problem.objective), problem.objective, problem.limits
    here: Where = "client"
    known: list[Placement] = [(here,) * n]
    if problem.ranges is None:
        known += [cheapest_of(limit.prices, problem.may.tolist())[0] for limit in limits]
    kept = [placement for placement in known if not _broken(placement, limits)]
    if kept and problem.ranges is not None:
        return float(problem.ranges[0][0, n])
    return min(map(objective.along, kept), default=np.inf)


def _least(
    form: Form,
    costs: Floats,
    rows: scipy.sparse.csr_array,
    at_most: Floats,
    most: Floats,
    slack_costs: Floats | None = None,
) -> Floats | None:
    """The variables, up to `most`, with the least cost that keep the rows; None if there are none.

    With `slack_costs` (per row) a row may be exceeded at that cost.
    """
    optimize, sparse = scipy.optimize, scipy.sparse
    slack_costs = np.zeros(0) if slack_costs is None else slack_costs
    slacks = len(slack_costs)
    equal = sparse.hstack([form.equal, sparse.csr_array((form.equal.shape[0], slacks))])
    constraints = [optimize.LinearConstraint(equal, form.right, form.right)]
    if len(at_most):
        slackened = sparse.hstack([rows, -sparse.eye_array(len(at_most), slacks)])
        constraints.append(optimize.LinearConstraint(slackened, -np.inf, at_most))
    # Where nothing is limited, the vertices of the relaxation are schedules.
    relaxed = form.flows and not len(at_most)
    result = optimize.milp(
        np.concatenate([costs, slack_costs]),
        integrality=np.concatenate([form.integer * (not relaxed), np.zeros(slacks)]),
        bounds=optimize.Bounds(0.0, np.concatenate([most, np.full(slacks, np.inf)])),
        constraints=constraints,
        options={"mip_rel_gap": 0.0},
    )
    if result.status == _INFEASIBLE:
        return None
    if result.x is None:
        raise RuntimeError(f"HiGHS: {result.message}")
    values: Floats = result.x[: len(costs)]
    return values


def _limit_rows(
    form: Form, limits: Sequence[Limit], used: NDArray[np.bool_]
) -> tuple[scipy.sparse.csr_array, Floats, Floats]:
    """One row per limit, what it must not exceed, and by how much both are scaled.

    What is not `used` counts nothing, so that its size does not set the scale.
    """
    rows = np.zeros((len(limits), len(form.most)))
    at_most, scales = np.zeros((2, len(limits)))
    for row, limit in enumerate(limits):
        variables, before = form.priced(limit.prices)
        rows[row] = variables * used
        scales[row] = _scale(rows[row], limit.at_most)
        at_most[row] = limit.at_most - before
    return scipy.sparse.csr_array(rows * scales[:, None]), at_most * scales, scales


def _scale(coefficients: Floats, usual: float) -> float:
    largest = float(np.max(np.abs(coefficients)))
    return _SCALE / (max(usual, largest / _COEFFICIENTS) if usual > 0 else largest or 1.0)


def _infeasible(form: Form, limits: Sequence[Limit]) -> Infeasible:
    """By how much the limits must be raised: together with slack variables, and each alone."""
    rows, at_most, scales = _limit_rows(form, limits, form.most > 0)
    relative = np.array([_SCALE / limit.at_most if limit.at_most else 1.0 for limit in limits])
    values = _least(form, np.zeros(len(form.most)), rows, at_most, form.most, relative / scales)
    assert values is not None
    excess = _broken(form.placement(values), limits)
    if not excess:
        raise ValueError(f"{limits[0].name}: too close to call for HiGHS, by sums of these sizes")
    alone: dict[str, float] = {}
    for row, limit in enumerate(limits):
        others = np.arange(len(limits)) != row
        costs = rows[[row]].toarray()[0]
        values = _least(form, costs, rows[others], at_most[others], form.most)
        if values is not None:
            alone |= _broken(form.placement(values), [limit])
    return Infeasible(excess, alone)


def _broken(placement: Placement, limits: Sequence[Limit]) -> dict[str, float]:
    return {
        limit.name: limit.prices.along(placement) - limit.at_most
        for limit in limits
        if not limit.allows(placement)
    }


def _checked_ranges(
    objective: Prices | TrainingPrices,
    form: str,
    client_ranges: ArrayLike | None,
    edge_ranges: ArrayLike | None,
) -> Ranges | None:
    if form not in _FORMS:
        raise ValueError(f"form is one of {', '.join(_FORMS)}, not {form!r}")
    if client_ranges is None and edge_ranges is None:
        return None
    if form == _COMPACT:
        raise ValueError("client_ranges and edge_ranges need form='jointdnn', which has groups")
    chain = objective if isinstance(objective, Prices) else objective.chain
    return (
        checked_ranges("client_ranges", client_ranges, chain.client),
        checked_ranges("edge_ranges", edge_ranges, chain.edge),
    )


def _check_limits(limits: Sequence[Limit], n: int) -> None:
    for limit in limits:
        if len(limit.prices) != n:
            raise ValueError(f"{limit.name} is for {len(limit.prices)} layers, not {n}")
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"limits have a name twice: {', '.join(names)}")
