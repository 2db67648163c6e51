"""The upload orders that `ionn plan` compares, and what queries take while each uploads.

As a client does it: what it minimises orders the upload and routes the queries meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ionn_client.reports.comparison import Problem
from planner import Objective, Route, Timeline, UploadPlan, priced, timeline, upload_plan
from planner.prices import cheapest_path
from planner.timeline import Ack, time_mean
from planner.upload import Algorithm

# Each with the acknowledgements that it was published with.
SCHEMES: tuple[tuple[Algorithm, float, Ack], ...] = (
    ("efficiency", 0.5, "layer"),
    ("ionn", 0.1, "partition"),
    ("ionn", 0.5, "partition"),
    ("ionn", 0.9, "partition"),
    ("emdl", 0.5, "partition"),
    ("front-to-back", 0.5, "layer"),
    ("all-at-once", 0.5, "partition"),
)


@dataclass(frozen=True, slots=True)
class Joules:
    """The client's joules for a query at each point of a timeline, and their mean over time."""

    mean_J: float
    at_points: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class UploadOrder:
    """An order by its name, and what queries are predicted to take while it uploads.

    joules: where the device's power is known.
    """

    name: str
    plan: UploadPlan
    line: Timeline
    joules: Joules | None = None


def upload_orders(problem: Problem) -> tuple[UploadOrder, ...]:
    """Every order, ours ("efficiency") first. Limits are of queries, not of uploads."""
    found = []
    costs, link = problem.objective.as_seconds(problem.costs, problem.link)
    for algorithm, k, ack in SCHEMES:
        order = upload_plan(costs, link, algorithm, k)
        name = f"{algorithm} K={k}" if algorithm == "ionn" else algorithm
        found.append(_followed(problem, name, order, ack))
    return tuple(found)


def worth_it(objective: Objective, order: UploadOrder) -> bool:
    """Whether queries get better at all, by what is minimised."""
    first, last = (
        objective.worth(
            order.line.points[at].latency_s,
            None if order.joules is None else order.joules.at_points[at],
        )
        for at in (0, -1)
    )
    return last < first * (1 - 1e-9)


def _followed(problem: Problem, name: str, plan: UploadPlan, ack: Ack) -> UploadOrder:
    line = timeline(problem.costs, problem.link, plan, ack=ack)
    if problem.power is None:
        return UploadOrder(name, plan, line)
    routes = _routes(problem, plan, line, ack)
    times = [point.time_s for point in line.points]
    latencies = np.array([route.latency_s for route in routes])
    energies = np.array([route.energy_J for route in routes])
    return UploadOrder(
        name,
        plan,
        Timeline(
            time_mean(times, latencies, line.horizon_s),
            line.horizon_s,
            tuple(
                replace(point, latency_s=route.latency_s)
                for point, route in zip(line.points, routes, strict=True)
            ),
        ),
        Joules(time_mean(times, energies, line.horizon_s), tuple(energies.tolist())),
    )


def _routes(problem: Problem, plan: UploadPlan, line: Timeline, ack: Ack) -> list[Route]:
    """The best route by the objective at each point of `line`."""
    costs, link, objective = problem.costs, problem.link, problem.objective
    prices, uploaded, routes = objective.prices(costs, link), set[int](), list[Route]()
    for point in line.points:
        if point.partition is not None:
            arrived = plan.partitions[point.partition] if ack == "partition" else (point.layer,)
            uploaded.update(layer for layer in arrived if layer is not None)
        _, placement = cheapest_path(prices, costs.available(uploaded))
        routes.append(priced(costs, link, placement, objective))
    return routes
