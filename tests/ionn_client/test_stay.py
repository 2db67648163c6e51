"""A stay near an edge: only what pays back in joules until it ends is uploaded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client import Options, Stay
from ionn_client.machine import events
from ionn_client.machine.forecast import Forecast
from planner import (
    LayerCosts,
    Link,
    Objective,
    Power,
    Radio,
    UploadPlan,
    payback,
    route,
    upload_plan,
    worth_uploading,
)
from tests.ionn_client.test_session import LAYERS, NONE, SIZE, Bench, segments
from tests.planner.tables import costs_and_links, powers

POWER = Power(10.0, 1.0, Radio(0.0, 0.0, 0.1))  # sending is cheap
LINK = Link(SIZE / 10.0, 1e6, 0.01)  # ten seconds a layer
BUSY_PER_H = 200.0


def bench(stay: Stay | None, power: Power = POWER) -> Bench:
    objective = Objective(power=power)
    made = Bench(
        Options(
            algorithm="front-to-back", assumed_link=LINK, replan=False, objective=objective,
            stay=stay,
        )
    )  # fmt: skip
    made.session.context.forecast = Forecast(made.graph, [5.0] * LAYERS, objective=objective)
    return made


def planned(made: Bench) -> int:
    return len(made.session.upload.partitions)


@pytest.mark.parametrize(("stay_s", "layers"), [(0, 0), (9, 0), (15, 1), (25, 2), (3600, 3)])
def test_what_would_not_arrive_in_time_to_pay_is_not_uploaded(stay_s: float, layers: int) -> None:
    made = bench(Stay(stay_s, BUSY_PER_H))
    made.greet()
    commands = made.have(NONE)
    assert planned(made) == layers
    assert bool(segments(commands)) == (layers > 0)
    assert made.session.phase == ("uploading" if layers else "ready")


def test_without_queries_or_with_a_hungry_radio_nothing_is_uploaded() -> None:
    for made in (
        bench(Stay(3600, 0)),
        bench(Stay(3600, BUSY_PER_H), Power(10.0, 1.0, Radio(0.0, 0.0, 1e6))),
    ):
        made.greet()
        assert segments(made.have(NONE)) == []
        assert made.session.phase == "ready"


def test_without_a_stay_everything_is_uploaded() -> None:
    made = bench(None, Power(10.0, 1.0, Radio(0.0, 0.0, 1e6)))
    made.greet()
    made.have(NONE)
    assert planned(made) == LAYERS


def test_the_stay_goes_on_while_the_connection_is_gone() -> None:
    made = bench(Stay(40, BUSY_PER_H))
    made.greet()
    made.have(NONE)
    assert planned(made) == LAYERS
    made.step(events.ConnectionLost("gone"), after_s=14)
    made.greet()
    made.have(NONE)
    assert planned(made) == 2


@given(costs_and_links(most=6), powers(), st.integers(0, 60), st.integers(0, 10**9))
def test_queries_that_fill_more_than_all_the_time_count_as_filling_it(
    table: tuple[LayerCosts, Link], power: Power, stay_s: int, queries_per_h: int
) -> None:
    costs, link = table
    objective, plan = Objective(power=power), upload_plan(costs, link)
    found = Stay(stay_s, queries_per_h).worth(costs, link, objective, plan)
    assert found.partitions == plan.partitions[: len(found.partitions)]
    slowest_s = route(costs, link).latency_s
    most_per_h = min(queries_per_h, 3600 / slowest_s) if slowest_s else queries_per_h
    # Rounding may be on the wrong side of an hour.
    gained = [
        payback(costs, link, power, each, stay_s, most_per_h * (1 - 1e-12)).net_J
        for each in (found, UploadPlan(plan.algorithm, ()), plan)
    ]
    assert gained[0] >= max(gained) - 1e-9 * (1 + abs(max(gained)))


def test_what_is_left_of_a_stay() -> None:
    assert Stay(10.0, 5.0).after(4.0) == Stay(6.0, 5.0)
    assert Stay(10.0, 5.0).after(40.0) == Stay(0.0, 5.0)


def test_within_an_hour_it_is_what_the_planner_says() -> None:
    costs = LayerCosts([10, 1], [1, 0.1], [100, 1000], [0, 0, 0], [0, 0, 0])
    power, link = Power(2.0, 0.0, Radio(0.2, 0.2, 2.0)), Link(10, 10)
    plan = UploadPlan("front-to-back", ((0,), (1,)))
    for stay_s in (100, 1010, 1e6):
        found = Stay(stay_s, 36).worth(costs, link, Objective(power=power), plan)
        assert found == worth_uploading(costs, link, power, plan, stay_s, 36)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_numbers_are_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="stay_s"):
        Stay(wrong, 1)
    with pytest.raises(ValueError, match="queries_per_h"):
        Stay(1, wrong)


def test_joules_need_a_power() -> None:
    with pytest.raises(ValueError, match="power"):
        Stay(1, 1).worth(
            LayerCosts([1], [1], [1], [0, 0], [0, 0]), LINK, Objective(), UploadPlan("ionn", ())
        )
