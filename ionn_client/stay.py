"""How long the client stays near an edge, and how much of an upload pays back until it leaves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from planner import LayerCosts, Link, Objective, UploadPlan, worth_uploading
from planner.costs import not_negative
from planner.payback import HourExceeded


@dataclass(frozen=True, slots=True)
class Stay:
    """`stay_s` near the edge, counted from when it is met, with `queries_per_h` evenly spread.

    Raises ValueError that names the field unless both are finite and not negative.
    """

    stay_s: float
    queries_per_h: float

    def __post_init__(self) -> None:
        for field in ("stay_s", "queries_per_h"):
            not_negative(field, getattr(self, field))

    def after(self, passed_s: float) -> Stay:
        """What is left of it."""
        return replace(self, stay_s=max(0.0, self.stay_s - passed_s))

    def worth(
        self, costs: LayerCosts, link: Link, objective: Objective, plan: UploadPlan
    ) -> UploadPlan:
        """The first partitions of `plan`, as many as gain the most joules (`planner.payback`).

        Queries that would fill more than all the time count as filling it. Raises ValueError
        where the objective has no power.
        """
        power = objective.power
        if power is None:
            raise ValueError("a stay needs an objective with a power: Objective(power=...)")
        judge = partial(worth_uploading, costs, link, power, plan, self.stay_s, objective=objective)
        try:
            return judge(queries_per_h=self.queries_per_h)
        except HourExceeded as error:
            return judge(queries_per_h=error.most_per_h)
