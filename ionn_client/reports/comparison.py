"""Every planner on the same numbers: where each would run a query's layers, and at what cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from ionn_client.quantities import joules, seconds
from ionn_client.reports.schedule_file import Schedules
from planner import LayerCosts, Link, Placement, RangeTimes, Route
from planner.constrained import cheapest_within
from planner.ilp import ilp_placement
from planner.jointdnn import jointdnn_placement
from planner.larac import larac
from planner.neurosurgeon import Target, neurosurgeon
from planner.objective import LATENCY, Infeasible, Limit, Objective
from planner.power import Power
from planner.prices import Prices, Where, cheapest_path
from planner.residual import TensorPrices, residual_placement, tensor_prices
from planner.route import priced

OURS = "ours"
RESIDUAL = "JointDNN, residual blocks"
CACHED = "cached"
SPLITS: dict[str, Target] = {
    "Neurosurgeon, latency": "latency",
    "Neurosurgeon, energy": "energy",
}
# What people call the limits, and how they read their values.
LIMITS: dict[str, tuple[str, Callable[[float], str]]] = {
    "battery": ("battery budget", joules),
    "edge_time": ("edge limit", seconds),
    "deadline": ("deadline", seconds),
}


@dataclass(frozen=True)
class Problem:
    """What the planners are asked: costs (the edge's load included), link, objective and limits.

    ranges: what layers take in one go on the client, where that was measured; `costs` then has
    the start-up of a range where the client is entered (`RangeTimes.on_client`). schedules: what
    was solved beforehand, and takes no notice of limits.
    """

    costs: LayerCosts
    link: Link
    objective: Objective = LATENCY
    limits: tuple[Limit, ...] = ()
    ranges: RangeTimes | None = field(default=None, repr=False)
    schedules: Schedules | None = field(default=None, repr=False)

    @property
    def power(self) -> Power | None:
        return self.objective.power


@dataclass(frozen=True, slots=True)
class Planned:
    """One planner's answer.

    method: how it looks for a schedule. route: None where it found none; `note` then says why, and
    else what there is to know of it.
    cpu_s: processor time of planning. up_bytes, down_bytes: what crosses the link in one query.
    edge_s: how long the query keeps the edge busy. broken: names of limits that it exceeds.
    weight_bytes: of what crosses, the weights that a training step changes.
    """

    planner: str
    method: str
    route: Route | None
    cpu_s: float
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    edge_s: float = 0.0
    broken: tuple[str, ...] = ()
    note: str = ""
    weight_bytes: float = 0.0

    @property
    def letters(self) -> str:
        """One letter per layer: C on the client, E on the edge."""
        placement = () if self.route is None else self.route.placement
        return "".join("C" if where == "client" else "E" for where in placement)


Planner: TypeAlias = Callable[[], Placement]


def compare(problem: Problem) -> tuple[Planned, ...]:
    """Every planner that has what it needs, ours last."""
    load_solver()
    return tuple(_planned(problem, *each) for each in _planners(problem))


def load_solver() -> None:
    """So that the first planner that uses it is not told to plan that slowly."""
    ilp_placement(Prices([0], [0], [0, 0], [0, 0]))


def ours(problem: Problem) -> Placement:
    """The shortest path; where that breaks limits, the exact search for one, the ILP for several.

    Raises Infeasible where no schedule keeps the limits.
    """
    prices = problem.objective.prices(problem.costs, problem.link)
    available = problem.costs.available(range(len(problem.costs)))
    _, placement = cheapest_path(prices, available)
    if not exceeded(problem.limits, placement):
        return placement
    if len(problem.limits) == 1:
        return cheapest_within(prices, problem.limits[0], available)
    return ilp_placement(prices, problem.limits, available)


def _planners(problem: Problem) -> list[tuple[str, str, Planner]]:
    costs, link, power, limits = problem.costs, problem.link, problem.power, problem.limits
    n = len(costs)
    prices, available = problem.objective.prices(costs, link), costs.available(range(n))
    on_client, on_edge = everywhere("client", n), everywhere("edge", n)
    one_split, published = "one split (ASPLOS'17, Algorithm 1)", "shortest path (TMC'19)"
    found: list[tuple[str, str, Planner]] = [
        ("client only", "every layer on the device", lambda: on_client),
        *([] if costs.local else [("edge only", "every layer on the edge", lambda: on_edge)]),
        ("Neurosurgeon, latency", one_split, lambda: neurosurgeon(costs, link).placement),
    ]
    if power is not None:
        split = partial(neurosurgeon, costs, link, power, "energy")
        found.append(("Neurosurgeon, energy", one_split, lambda: split().placement))
    found.append(
        ("JointDNN", published, lambda: jointdnn_placement(prices, available=available)[1])
    )
    if (blocks := _blocks(problem)) is not None:
        found.append((RESIDUAL, published, lambda: residual_placement(blocks)[1]))
    if problem.ranges is not None:
        grouped = partial(_grouped, problem, problem.ranges)
        found.append(("JointDNN, grouped", published, grouped))
    if len(limits) == 1:
        found.append(("LARAC", "one limit (TMC'19)", lambda: larac(prices, limits[0])))
    found.append(
        ("ILP", "any limits (TMC'19, eq. 1-20)", lambda: ilp_placement(prices, limits, available))
    )
    if (schedules := problem.schedules) is not None:
        found.append((CACHED, "looked up (TMC'19)", lambda: schedules.lookup().placement))
    found.append((OURS, "shortest path, exact search or ILP under limits", lambda: ours(problem)))
    return found


def _blocks(problem: Problem, objective: Objective | None = None) -> TensorPrices | None:
    """The prices of single tensors, where layers branch and what each tensor takes is known."""
    try:
        found = tensor_prices(problem.costs, problem.link, objective or problem.objective)
    except ValueError:
        return None
    return found if any(len(layers) > 1 for layers in found.readers) else None


def _note(problem: Problem, planner: str, route: Route) -> str:
    """What a newcomer would wonder at: prices by which a planner decides, where ours are others."""
    if planner in SPLITS:
        costs, link, power = problem.costs, problem.link, problem.power
        counted = neurosurgeon(costs, link, power, SPLITS[planner], counts_answer=True)
        same = counted.placement == route.placement
        return "" if same else "as published, it counts nothing for the answer's way back"
    if planner != RESIDUAL or (by_tensor := _blocks(problem, LATENCY)) is None:
        return ""
    alone_s = by_tensor.along(route.placement)
    if math.isclose(alone_s, route.latency_s):
        return ""
    return f"{seconds(alone_s)} if every tensor crossed by itself; here all crosses at the cut"


def _grouped(problem: Problem, ranges: RangeTimes) -> Placement:
    """JointDNN's schedule with groups as they were measured, which have their start-up inside."""
    objective, costs = problem.objective, problem.costs
    without = replace(costs, cut_down_s=np.maximum(0.0, costs.cut_down_s - ranges.entered_s))
    joules = 0.0 if objective.power is None else objective.power.compute_W * objective.J_weight
    priced_ranges = ranges.matrix() * (objective.s_weight + joules)
    return jointdnn_placement(objective.prices(without, problem.link), priced_ranges)[1]


def _planned(problem: Problem, name: str, method: str, planner: Planner) -> Planned:
    costs = problem.costs
    placement, cpu_s, note = attempt(planner)
    if placement is None:
        return Planned(name, method, None, cpu_s, note=note)
    up, down = crossings(placement)
    route = priced(costs, problem.link, placement, problem.objective)
    return Planned(
        name,
        method,
        route,
        cpu_s,
        float(costs.cut_up_bytes[list(up)].sum()),
        float(costs.cut_down_bytes[list(down)].sum()),
        float(sum(costs.edge_s[i] for i, where in enumerate(placement) if where == "edge")),
        exceeded(problem.limits, placement),
        _note(problem, name, route),
    )


def attempt(planner: Planner) -> tuple[Placement | None, float, str]:
    """What a planner finds, the processor time that it takes, and why it finds nothing."""
    began = time.process_time()
    try:
        placement = planner()
    except Infeasible as error:
        return None, time.process_time() - began, _missing(error)
    return placement, time.process_time() - began, ""


def _missing(error: Infeasible) -> str:
    raised = (
        f"the {LIMITS[name][0]} by {LIMITS[name][1](more)}" for name, more in error.excess.items()
    )
    return f"none keeps all limits; raise {' and '.join(raised)}"


def crossings(placement: Sequence[Where]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The cuts at which a schedule's data goes up, and those at which it comes down."""
    sides = ("client", *placement, "client")
    changed = [(i, after) for i, (before, after) in enumerate(pairwise(sides)) if before != after]
    up, down = (tuple(i for i, to in changed if to == side) for side in ("edge", "client"))
    return up, down


def exceeded(limits: Sequence[Limit], placement: Placement) -> tuple[str, ...]:
    """The names of the limits that a placement does not keep."""
    return tuple(limit.name for limit in limits if not limit.allows(placement))


def everywhere(where: Where, layers: int) -> Placement:
    """The placement that has all layers on one side."""
    return (where,) * layers
