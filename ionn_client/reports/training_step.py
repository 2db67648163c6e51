"""Where planners would run one training step: N layers forward, then the same backward.

Every layer's weights are on the edge already; planning only, as no client trains yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ionn_client.reports.comparison import (
    OURS,
    Planned,
    Problem,
    attempt,
    crossings,
    everywhere,
    exceeded,
    load_solver,
)
from planner import Placement, Route, TrainingCosts, training_costs, training_placement
from planner.ilp import ilp_placement
from planner.larac import larac
from planner.objective import LATENCY, Limit, Objective, mobile_energy
from planner.objective import edge_time as edge_time_limit


@dataclass(frozen=True)
class TrainingStep:
    """A training step's costs, the limits that a whole step has to keep, and each planner's answer.

    Of the rows, `up_bytes` and `down_bytes` have activations, gradients, what forward layers leave
    for their backward layers, and changed weights, which `weight_bytes` has alone.
    """

    costs: TrainingCosts
    limits: tuple[Limit, ...]
    rows: tuple[Planned, ...]


def training_step(problem: Problem) -> TrainingStep:
    """Every planner for training, ours last: the shortest path of pairs, or the ILP under limits.

    Limits of the problem count for the whole step.
    """
    costs, link = training_costs(problem.costs), problem.link
    prices = costs.prices(link, problem.objective)
    limits = tuple(_of_step(limit, problem, costs) for limit in problem.limits)
    n = len(costs)

    def ours() -> Placement:
        _, placement = training_placement(prices)
        return ilp_placement(prices, limits) if exceeded(limits, placement) else placement

    found: list[tuple[str, str, Callable[[], Placement]]] = [
        ("client only", "every layer on the device", lambda: everywhere("client", n)),
        ("edge only", "every layer on the edge", lambda: everywhere("edge", n)),
    ]
    if len(limits) == 1:
        found.append(("LARAC", "one limit (TMC'19)", lambda: larac(prices, limits[0])))
    found.append(("ILP", "any limits (TMC'19, eq. 1-20)", lambda: ilp_placement(prices, limits)))
    found.append((OURS, "shortest path of pairs, or ILP under limits", ours))
    load_solver()
    rows = tuple(
        _row(problem, costs, limits, name, method, planner) for name, method, planner in found
    )
    return TrainingStep(costs, limits, rows)


def _of_step(limit: Limit, problem: Problem, costs: TrainingCosts) -> Limit:
    """The same limit, of a training step."""
    if limit.name == "edge_time":
        return edge_time_limit(costs.steps, limit.at_most)
    objective = LATENCY
    if limit.name == "battery" and problem.power is not None:
        objective = mobile_energy(problem.power)
    return Limit(limit.name, costs.prices(problem.link, objective), limit.at_most)


def _row(
    problem: Problem,
    costs: TrainingCosts,
    limits: tuple[Limit, ...],
    name: str,
    method: str,
    planner: Callable[[], Placement],
) -> Planned:
    placement, cpu_s, note = attempt(planner)
    if placement is None:
        return Planned(name, method, None, cpu_s, note=note)
    power, link = problem.power, problem.link

    def taken(objective: Objective) -> float:
        return costs.prices(link, objective).along(placement)

    energy_J = None if power is None else taken(mobile_energy(power))
    up, down = crossings(placement)
    there = np.array([where == "edge" for where in placement], dtype=bool)
    forward, backward = there[: len(there) // 2], there[len(there) // 2 :][::-1]
    weights = costs.new_weight_bytes[::-1][: len(forward)]
    weights_up, weights_down = weights[forward & ~backward].sum(), weights[backward].sum()
    kept = costs.kept_bytes
    steps = costs.steps
    return Planned(
        name,
        method,
        Route(taken(LATENCY), placement, energy_J),
        cpu_s,
        float(steps.cut_up_bytes[list(up)].sum() + kept[~forward & backward].sum() + weights_up),
        float(
            steps.cut_down_bytes[list(down)].sum() + kept[forward & ~backward].sum() + weights_down
        ),
        float(steps.edge_s[there].sum()),
        exceeded(limits, placement),
        weight_bytes=float(weights_up + weights_down),
    )
