"""Upload orders follow what the client minimises, and tell what its queries then take."""

from __future__ import annotations

import pytest

from ionn_client.reports.comparison import Problem
from ionn_client.reports.upload_orders import UploadOrder, upload_orders, worth_it
from planner import LayerCosts, Link, Objective, Power, Radio, route, timeline, upload_plan
from planner.objective import mobile_energy

LINK = Link(1e6, 1e6, 0.01)
# Layer 0 saves the most seconds for its bytes. Crossing before layer 2 takes few bytes, so that it
# saves joules where the radio draws much.
COSTS = LayerCosts(
    [1.0, 0.0, 0.2],
    [0.01, 0.0, 0.01],
    [1e6, 0, 1e6],
    [2e5, 2e5, 1e3, 1e3],
    [2e5, 2e5, 1e3, 1e3],
)
POWER = Power(1.0, 0.1, Radio(0.0, 0.0, 5.0))


def ours(problem: Problem) -> UploadOrder:
    return upload_orders(problem)[0]


def test_the_order_is_that_of_a_client_with_this_objective() -> None:
    fast, lean = ours(Problem(COSTS, LINK)), ours(Problem(COSTS, LINK, mobile_energy(POWER)))
    assert fast.plan == upload_plan(COSTS, LINK)
    as_client = mobile_energy(POWER).as_seconds(COSTS, LINK)
    assert lean.plan == upload_plan(*as_client)
    assert fast.plan.layers == (0, 2)
    assert lean.plan.layers == (2, 0)


def test_queries_take_the_routes_of_the_objective_meanwhile() -> None:
    objective = mobile_energy(POWER)
    for order in upload_orders(Problem(COSTS, LINK, objective)):
        assert order.joules is not None
        last = route(COSTS, LINK, order.plan.layers, objective)
        assert order.line.points[-1].latency_s == pytest.approx(last.latency_s)
        assert order.joules.at_points[-1] == pytest.approx(last.energy_J)
        first = route(COSTS, LINK, (), objective)
        assert order.line.points[0].latency_s == pytest.approx(first.latency_s)
        assert min(order.joules.at_points) <= order.joules.mean_J <= max(order.joules.at_points)
        assert list(order.joules.at_points) == sorted(order.joules.at_points, reverse=True)


def test_seconds_are_those_of_the_timeline_whether_or_not_power_is_known() -> None:
    known = upload_orders(Problem(COSTS, LINK, Objective(power=POWER)))
    unknown = upload_orders(Problem(COSTS, LINK))
    for with_power, without in zip(known, unknown, strict=True):
        assert with_power.plan == without.plan
        assert with_power.line.mean_latency_s == pytest.approx(without.line.mean_latency_s)
        assert without.joules is None
    assert unknown[0].line == timeline(COSTS, LINK, unknown[0].plan)


def test_an_upload_is_worth_it_where_queries_get_better() -> None:
    slow = Link(1e3, 1e3, 0.01)
    for objective in (Objective(), mobile_energy(POWER), Objective(1.0, 0.5, POWER)):
        assert worth_it(objective, ours(Problem(COSTS, LINK, objective)))
        assert not worth_it(objective, ours(Problem(COSTS, slow, objective)))
