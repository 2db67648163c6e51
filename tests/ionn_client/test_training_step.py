"""One training step: planners agree with brute force, and what crosses adds up to what it costs."""

from __future__ import annotations

import itertools

import pytest

from ionn_client.reports.comparison import OURS, Planned, Problem
from ionn_client.reports.training_step import TrainingStep, training_step
from planner import LATENCY, RADIOS, LayerCosts, Link, Objective, Power
from planner.objective import battery, deadline, edge_time, mobile_energy
from planner.prices import Placement

LINK = Link(1e6, 4e6, 0.0)
POWER = Power(8.0, 2.0, RADIOS["wifi"])
COSTS = LayerCosts(
    [0.2, 0.08, 0.12],
    [0.002, 0.008, 0.006],
    [1e4, 2e5, 1e6],
    [15e3, 60e3, 20e3, 4e3],
    [15e3, 60e3, 20e3, 4e3],
)


def by_name(step: TrainingStep) -> dict[str, Planned]:
    return {row.planner: row for row in step.rows}


def all_placements() -> list[Placement]:
    return list(itertools.product(("client", "edge"), repeat=6))


@pytest.mark.parametrize(
    "objective", [Objective(power=POWER), mobile_energy(POWER), Objective(1.0, 0.3, POWER)]
)
def test_ours_and_the_ilp_are_the_best_of_all_placements(objective: Objective) -> None:
    step = training_step(Problem(COSTS, LINK, objective))
    prices = step.costs.prices(LINK, objective)
    least = min(map(prices.along, all_placements()))
    for name in (OURS, "ILP"):
        route = by_name(step)[name].route
        assert route is not None
        assert prices.along(route.placement) == pytest.approx(least)
    assert "LARAC" not in by_name(step)


def test_all_on_the_edge_brings_every_weight_back() -> None:
    rows = by_name(training_step(Problem(COSTS, LINK, Objective(power=POWER))))
    edge, client = rows["edge only"], rows["client only"]
    assert edge.weight_bytes == 1.21e6
    assert (edge.up_bytes, edge.down_bytes) == (15e3, 1.21e6)
    assert edge.edge_s == pytest.approx(3 * 0.016)
    assert edge.route is not None
    assert edge.route.latency_s == pytest.approx(0.048 + 15e3 / 1e6 + 1.21e6 / 4e6)
    assert (client.up_bytes, client.down_bytes, client.weight_bytes) == (0, 0, 0)
    assert client.route is not None
    assert client.route.latency_s == pytest.approx(3 * 0.4)
    assert client.route.energy_J == pytest.approx(3 * 0.4 * 8)


def test_bytes_that_cross_are_those_that_are_paid_for() -> None:
    # Without a round trip, and with nothing to compute, seconds are bytes over rates.
    nothing = [0.0, 0.0, 0.0]
    free = LayerCosts(nothing, nothing, COSTS.weight_bytes, COSTS.cut_up_bytes, COSTS.cut_up_bytes)
    limits = [(), (edge_time(COSTS, 0.02),), (deadline(COSTS, LINK, 0.9),)]
    for limit in limits:
        for row in training_step(Problem(COSTS, LINK, limits=limit)).rows:
            assert row.route is not None
            crossed = training_step(Problem(free, LINK)).costs.prices(LINK, LATENCY)
            paid_s = crossed.along(row.route.placement)
            assert row.up_bytes / 1e6 + row.down_bytes / 4e6 == pytest.approx(paid_s)


@pytest.mark.parametrize(
    "limits",
    [
        (edge_time(COSTS, 0.01),),
        (battery(COSTS, LINK, POWER, 8.0), deadline(COSTS, LINK, 1.0)),
    ],
)
def test_limits_are_of_the_whole_step(limits: tuple[object, ...]) -> None:
    problem = Problem(COSTS, LINK, Objective(power=POWER), limits)  # type: ignore[arg-type]
    step = training_step(problem)
    prices = step.costs.prices(LINK, problem.objective)
    allowed = [p for p in all_placements() if all(limit.allows(p) for limit in step.limits)]
    least = min(map(prices.along, allowed))
    for name in (OURS, "ILP"):
        row = by_name(step)[name]
        assert row.route is not None
        assert row.broken == ()
        assert prices.along(row.route.placement) == pytest.approx(least)
    assert ("LARAC" in by_name(step)) == (len(limits) == 1)
    assert by_name(step)["client only"].broken or by_name(step)["edge only"].broken


def test_limits_that_no_step_keeps_say_what_to_raise() -> None:
    step = training_step(Problem(COSTS, LINK, limits=(deadline(COSTS, LINK, 0.001),)))
    for name in (OURS, "ILP", "LARAC"):
        assert by_name(step)[name].route is None
        assert "raise the deadline by" in by_name(step)[name].note


def test_a_model_without_layers_trains_in_no_time() -> None:
    empty = LayerCosts([], [], [], [0.0], [0.0])
    for row in training_step(Problem(empty, LINK)).rows:
        assert row.route is not None
        assert row.route.latency_s == 0
