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
from numpy.typing import ArrayLike, NDArray

from planner.dominance import merge, needed_cuts
from planner.ilp_forms import Form, Grouped, PerLayer, Ranges, Tied, ranged_price
from planner.jointdnn import available_array, checked_ranges
from planner.larac import cheapest_of
from planner.objective import Limit
from planner.prices import Placement, Prices, Where
from planner.programme import Bound, Programme, Total
from planner.training import TrainingPrices

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
    may = available_array(available, n)
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

    def programme(self, form: Form) -> Programme[Placement]:
        """Known to it: all on the client, and the cheapest by each criterion that adds up."""
        criteria = [limit.prices for limit in self.limits]
        criteria += [self.objective] if self.ranges is None else []
        here: Where = "client"
        may = self.may.tolist()
        return Programme(
            form.most,
            form.integer > 0,
            np.ones(len(form.most), dtype=bool),
            form.equal,
            form.right,
            form.right,
            form.placement,
            [(here,) * len(may), *(cheapest_of(prices, may)[0] for prices in criteria)],
            form.flows,
        )

    def formulated(self, form: str) -> Form:
        plain = _FORMS[form](self.may)
        return Tied(plain) if self.training else plain

    def bounds(self, form: Form) -> list[Bound[Placement]]:
        return [
            Bound(limit.name, Total(form.priced(limit.prices), limit.prices.along), limit.at_most)
            for limit in self.limits
        ]

    def price(self, placement: Placement) -> float:
        """The sum of the objective, with groups priced as groups."""
        if self.ranges is None:
            return self.objective.along(placement)
        return ranged_price(self.objective, placement, self.ranges)


def _solve(problem: _Problem) -> Placement:
    form = problem.formulated(problem.form)
    objective = Total(form.priced(problem.objective, problem.ranges), problem.price)
    placement = problem.programme(form).cheapest(objective, problem.bounds(form))
    if placement is None:
        compact = problem.formulated(_COMPACT)
        raise problem.programme(compact).infeasible(problem.bounds(compact))
    return placement


def _checked_ranges(
    objective: Prices | TrainingPrices,
    form: str,
    client_ranges: ArrayLike | None,
    edge_ranges: ArrayLike | None,
) -> Ranges | None:
    if form not in tuple(_FORMS):
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
    if not all(isinstance(limit, Limit) for limit in limits):
        raise ValueError(f"limits are a list of Limit, not {limits!r:.80}")
    for limit in limits:
        if len(limit.prices) != n:
            raise ValueError(f"{limit.name} is for {len(limit.prices)} layers, not {n}")
    names = [limit.name for limit in limits]
    if len(set(names)) < len(names):
        raise ValueError(f"limits have a name twice: {', '.join(names)}")
