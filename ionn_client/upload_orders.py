"""The upload orders that `ionn plan` compares, and what queries take while each uploads."""

from __future__ import annotations

from dataclasses import dataclass

from ionn_client.comparison import Problem
from ionn_client.quantities import joules, seconds
from planner import Timeline, UploadPlan, timeline, upload_plan
from planner.payback import payback
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


def payback_sentence(
    problem: Problem, order: UploadOrder, stay_s: float, queries_per_h: float
) -> str:
    """Whether the joules of uploading come back before the device leaves.

    Raises ValueError where the device's power is not known, and as `planner.payback`.
    """
    if problem.power is None:
        raise ValueError("what the device draws is not known, so that nothing can pay back")
    found = payback(
        problem.costs, problem.link, problem.power, order.plan, stay_s, queries_per_h,
        problem.objective,
    )  # fmt: skip
    told = (
        f"In a stay of {seconds(stay_s)} with {queries_per_h:g} queries an hour, uploading takes"
        f" {joules(found.spent_J)} and saves {joules(found.saved_J)}"
    )
    if found.net_J >= 0:
        return f"{told}: it pays back."
    if found.break_even_s is None:
        return f"{told}: it does not pay back, however long the stay."
    return f"{told}: it would pay back in a stay of {seconds(found.break_even_s)}."
