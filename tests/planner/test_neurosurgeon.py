"""Neurosurgeon's Algorithm 1: against all split points, and against the route."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import LINKS, RADIOS, LayerCosts, Link, Objective, Power, Radio, neurosurgeon, route
from planner.neurosurgeon import split_prices
from tests.planner.tables import costs_and_links, powers, random_costs, seeds

loads = st.sampled_from((0.5, 1.0, 2.0, 9.0))
POWER = Power(2.0, 0.0, RADIOS["wifi"])


def split(n: int, point: int) -> tuple[str, ...]:
    return ("client",) * point + ("edge",) * (n - point)


@given(costs_and_links(), loads)
def test_latency_is_the_published_sum_at_its_least(table, load):
    costs, link = table
    n = len(costs)

    def published_s(j):
        mobile, cloud = sum(costs.client_s[:j]), sum(costs.edge_s[j:]) * load
        if j == n:
            return mobile
        return (
            mobile
            + costs.cut_up_bytes[j] / link.up_Bps
            + link.rtt_s / 2
            + (costs.cut_up_s[j] + cloud)
        )

    sums = [published_s(j) for j in range(n + 1)]
    found = neurosurgeon(costs, link, server_load=load)
    assert sums[found.point] == pytest.approx(min(sums))
    assert found.placement == split(n, found.point)
    assert found.energy_J is None


@given(costs_and_links(), powers())
def test_energy_is_the_published_sum_at_its_least(table, power):
    costs, link = table
    n = len(costs)
    zeros = [0.0] * (n + 1)
    costs = replace(costs, cut_up_s=zeros, cut_down_s=zeros)
    link, power = replace(link, rtt_s=0.0), replace(power, idle_W=0.0)

    def published_J(j):
        mobile = sum(costs.client_s[:j]) * power.compute_W
        if j == n:
            return mobile
        return mobile + costs.cut_up_bytes[j] / link.up_Bps * power.radio.sending_W(link.up_Bps)

    sums = [published_J(j) for j in range(n + 1)]
    assert sums[neurosurgeon(costs, link, power, "energy").point] == pytest.approx(min(sums))


@given(costs_and_links(), powers(), loads, st.sampled_from(("latency", "energy")))
def test_with_the_answer_it_is_the_best_of_all_single_splits(table, power, load, target):
    costs, link = table
    loaded = replace(costs, edge_s=costs.edge_s * load)
    objective = Objective(power=power) if target == "latency" else Objective(0.0, 1.0, power)
    prices = objective.prices(loaded, link)
    best = min(prices.along(split(len(costs), j)) for j in range(len(costs) + 1))
    found = neurosurgeon(costs, link, power, target, load, counts_answer=True)
    assert prices.along(found.placement) == pytest.approx(best)
    assert (found.latency_s if target == "latency" else found.energy_J) == pytest.approx(best)


@given(costs_and_links(), powers(), st.booleans(), st.sampled_from(("latency", "energy")))
def test_no_split_is_better_than_the_route(table, power, counts_answer, target):
    costs, link = table
    found = neurosurgeon(costs, link, power, target, counts_answer=counts_answer)
    objective = Objective(power=power) if target == "latency" else Objective(0.0, 1.0, power)
    best = route(costs, link, range(len(costs)), objective)
    if target == "latency":
        assert found.latency_s >= best.latency_s - 1e-9
    else:
        assert found.energy_J >= best.energy_J - 1e-9


@given(seeds, st.integers(1, 12))
def test_a_busier_server_never_takes_more_layers(seed, layers):
    costs, link = random_costs(seed, layers), LINKS["wifi"]
    points = [neurosurgeon(costs, link, server_load=k).point for k in (1, 2, 5, 20, 1000)]
    assert points == sorted(points)


# A network like AlexNet: activations shrink, the last layers compute little.
ALEXNET = LayerCosts(
    [0.06, 0.08, 0.05, 0.05, 0.04, 0.02, 0.01],
    [0.002, 0.003, 0.002, 0.002, 0.001, 0.001, 0.001],
    [1] * 7,
    [600e3, 280e3, 170e3, 60e3, 60e3, 36e3, 16e3, 4e3],
    [600e3, 280e3, 170e3, 60e3, 60e3, 36e3, 16e3, 4e3],
)


@pytest.mark.parametrize(("up_Bps", "point"), [(1e9, 0), (1e6, 3), (1e5, 7)])
def test_faster_links_move_the_split_to_the_front(up_Bps, point):
    assert neurosurgeon(ALEXNET, Link(up_Bps, up_Bps)).point == point


def test_a_hungry_radio_keeps_layers_here_that_latency_would_send():
    link = Link(1e7, 1e7)
    assert neurosurgeon(ALEXNET, link).point == 0
    hungry = Power(1.0, 0.0, Radio(0.0, 0.0, 50.0))
    assert neurosurgeon(ALEXNET, link, hungry, "energy").point == 7


def test_a_large_answer_is_forgotten_as_published_unless_counted():
    generator = LayerCosts([1, 1, 1], [0, 0, 0], [1] * 3, [1, 9, 9, 90], [1, 9, 9, 90])
    assert neurosurgeon(generator, Link(9, 9)).point == 0
    assert neurosurgeon(generator, Link(9, 9), counts_answer=True).point == 3
    assert neurosurgeon(generator, Link(9, 9)).latency_s == pytest.approx(1 / 9 + 10)


def test_on_a_tie_the_client_runs_more():
    costs = LayerCosts([2, 2], [2, 2], [1, 1], [0, 0, 0], [0, 0, 0])
    assert neurosurgeon(costs, Link(1, 1)).point == 2


def test_a_model_without_layers_stays_here():
    costs = LayerCosts([], [], [], [4], [4])
    found = neurosurgeon(costs, Link(1, 1), POWER)
    assert (found.point, found.placement, found.latency_s, found.energy_J) == (0, (), 0.0, 0.0)
    assert split_prices(Objective().prices(costs, Link(1, 1))).tolist() == [0.0]


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_wrong_loads_are_refused(wrong):
    with pytest.raises(ValueError, match="server_load"):
        neurosurgeon(ALEXNET, Link(1, 1), server_load=wrong)


def test_unknown_objectives_and_missing_power_are_refused():
    with pytest.raises(ValueError, match="objective"):
        neurosurgeon(ALEXNET, Link(1, 1), POWER, "speed")
    with pytest.raises(ValueError, match="power"):
        neurosurgeon(ALEXNET, Link(1, 1), objective="energy")
