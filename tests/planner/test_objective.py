"""Objectives and limits: what is minimised, and what is not to be exceeded."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import (
    LATENCY,
    RADIOS,
    Infeasible,
    LayerCosts,
    Limit,
    Link,
    Objective,
    Power,
    Prices,
    Radio,
    battery,
    deadline,
    edge_time,
    energy_prices,
    latency_prices,
    mobile_energy,
    priced,
    query_energy_J,
    route,
    timeline,
    upload_plan,
)
from tests.planner.tables import costs_and_links, powers, random_costs, seeds

REAL = Power(4.0, 0.5, RADIOS["wifi"])
POWER = Power(4.0, 0.5, Radio(0.25, 0.125, 1.0))
COSTS = LayerCosts([8, 8], [1, 2], [3, 3], [4, 2, 4], [4, 2, 4])
LINK = Link(2, 2, 0.5)
weights = st.sampled_from((0.0, 0.25, 1.0, 3.0))


@given(costs_and_links(most=7), powers(), weights, weights)
def test_the_route_is_the_least_of_all_placements_by_the_objective(table, power, seconds, joules):
    if seconds == joules == 0:
        return
    costs, link = table
    uploaded = range(0, len(costs), 2)
    objective = Objective(seconds, joules, power)

    def worth(placement):
        s = latency_prices(costs, link).along(placement)
        return seconds * s + joules * query_energy_J(costs, link, power, placement)

    available = costs.available(uploaded)
    best = min(
        worth(placement)
        for placement in product(("client", "edge"), repeat=len(costs))
        if all(may or where == "client" for may, where in zip(available, placement, strict=True))
    )
    found = route(costs, link, uploaded, objective)
    assert found.energy_J is not None
    assert objective.worth(found.latency_s, found.energy_J) == pytest.approx(best)
    assert worth(found.placement) == pytest.approx(best)
    assert found == priced(costs, link, found.placement, objective)


@given(costs_and_links(), powers())
def test_latency_with_a_known_power_takes_the_fastest_route_and_tells_its_joules(table, power):
    costs, link = table
    uploaded = range(len(costs))
    fastest = route(costs, link, uploaded)
    found = route(costs, link, uploaded, Objective(power=power))
    assert fastest.energy_J is None
    assert found.placement == fastest.placement
    assert found.latency_s == pytest.approx(fastest.latency_s)
    assert found.energy_J == query_energy_J(costs, link, power, found.placement)


@given(costs_and_links(most=6), powers(), weights, st.data())
def test_as_seconds_every_route_takes_what_it_is_worth(table, power, joules, data):
    costs, link = table
    objective = Objective(1.0, joules, power)
    uploaded = data.draw(st.frozensets(st.integers(0, len(costs) - 1))) if len(costs) else set()
    found = route(*objective.as_seconds(costs, link), uploaded)
    expected = route(costs, link, uploaded, objective)
    assert found.latency_s == pytest.approx(objective.worth(expected.latency_s, expected.energy_J))
    assert LATENCY.as_seconds(costs, link) == (costs, link)


@given(seeds)
def test_an_upload_order_by_joules_saves_them_sooner(seed):
    costs, link = random_costs(seed, 7), Link(1e6, 1e6, 0.01)
    table = mobile_energy(REAL).as_seconds(costs, link)
    by_joules = timeline(*table, upload_plan(*table, algorithm="exact"))
    by_seconds = timeline(*table, upload_plan(costs, link, algorithm="exact"))
    assert by_joules.mean_latency_s <= by_seconds.mean_latency_s * (1 + 1e-9)


def test_least_latency_and_least_energy_differ_where_the_radio_is_hungry():
    hungry = Power(1.0, 0.0, Radio(0.0, 0.0, 100.0))
    uploaded = {0, 1}
    assert "edge" in route(COSTS, LINK, uploaded).placement
    assert route(COSTS, LINK, uploaded, mobile_energy(hungry)).placement == ("client", "client")


def test_latency_is_the_default():
    prices, expected = LATENCY.prices(COSTS, LINK), latency_prices(COSTS, LINK)
    for placement in product(("client", "edge"), repeat=2):
        assert prices.along(placement) == expected.along(placement)
    assert route(COSTS, LINK, {0, 1}) == route(COSTS, LINK, {0, 1}, LATENCY)


def test_limits_are_sums_along_the_schedule():
    placement = ("client", "edge")
    up_s, down_s = 2 / 2 + 0.25, 4 / 2 + 0.25
    limit = battery(COSTS, LINK, POWER, 3.0)
    assert (limit.name, limit.at_most) == ("battery", 3.0)
    assert limit.prices.along(placement) == energy_prices(COSTS, LINK, POWER).along(placement)
    assert edge_time(COSTS, 1.5).prices.along(placement) == 2
    assert edge_time(COSTS, 1.5).prices.along(("edge", "edge")) == 3
    assert edge_time(COSTS, 1.5).prices.along(("client", "client")) == 0
    assert deadline(COSTS, LINK, 9.0).prices.along(placement) == 8 + up_s + 2 + down_s


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_numbers_are_refused_by_name(wrong):
    for name in ("s_weight", "J_weight"):
        with pytest.raises(ValueError, match=name):
            Objective(**{"s_weight": 1.0, "J_weight": 1.0, "power": POWER, name: wrong})
    with pytest.raises(ValueError, match="battery"):
        battery(COSTS, LINK, POWER, wrong)
    with pytest.raises(ValueError, match="edge_time"):
        edge_time(COSTS, wrong)
    with pytest.raises(ValueError, match="deadline"):
        deadline(COSTS, LINK, wrong)
    with pytest.raises(ValueError, match="at_most of mine"):
        Limit("mine", Prices([], [], [0], [0]), wrong)


def test_joules_cannot_count_without_power():
    with pytest.raises(ValueError, match="power"):
        Objective(J_weight=1.0)
    with pytest.raises(ValueError, match="nothing to minimise"):
        Objective(s_weight=0.0, power=POWER)


def test_worth_needs_joules_where_they_count():
    assert Objective(2.0).worth(3.0, None) == 6.0
    with pytest.raises(ValueError, match="energy_J"):
        mobile_energy(POWER).worth(3.0, None)


def test_infeasible_says_what_to_raise_and_by_how_much():
    error = Infeasible({"battery": 2.5, "deadline": 0.125})
    assert isinstance(error, ValueError)
    assert error.excess == {"battery": 2.5, "deadline": 0.125}
    assert "battery by 2.5" in str(error)
    assert "deadline by 0.125" in str(error)
