"""The upload orders that `ionn plan` compares, and what queries take while each uploads."""

from __future__ import annotations

from dataclasses import dataclass

from ionn_client.comparison import Problem
from planner import Timeline, UploadPlan, timeline, upload_plan
from planner.timeline import Ack
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
class UploadOrder:
    """An order by its name, and the predicted latency of queries while it uploads."""

    name: str
    plan: UploadPlan
    line: Timeline


def upload_orders(problem: Problem) -> tuple[UploadOrder, ...]:
    """Every order, ours ("efficiency") first."""
    found = []
    for algorithm, k, ack in SCHEMES:
        order = upload_plan(problem.costs, problem.link, algorithm, k)
        name = f"{algorithm} K={k}" if algorithm == "ionn" else algorithm
        found.append(
            UploadOrder(name, order, timeline(problem.costs, problem.link, order, ack=ack))
        )
    return tuple(found)
