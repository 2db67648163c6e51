"""Power: the papers' model of the radio, and joules of queries, uploads and hours."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import (
    LINKS,
    RADIOS,
    LayerCosts,
    Link,
    Power,
    Radio,
    energy_prices,
    hourly_energy_J,
    query_energy_J,
    upload_energy_J,
)
from tests.planner.tables import costs_and_links, powers

HALF_WATTS = Power(4.0, 0.5, Radio(0.25, 0.125, 1.0))
BAD = (-1.0, math.nan, math.inf, -math.inf)


def written_out_J(costs, link, power, placement) -> float:
    """Joules of a query, state by state."""
    radio, joules = power.radio, 0.0
    for cut, (before, after) in enumerate(pairwise(["client", *placement, "client"])):
        if before == after:
            continue
        up = after == "edge"
        size = (costs.cut_up_bytes if up else costs.cut_down_bytes)[cut]
        coding_s = (costs.cut_up_s if up else costs.cut_down_s)[cut]
        rate = link.up_Bps if up else link.down_Bps
        alpha = radio.up_W_per_Bps if up else radio.down_W_per_Bps
        joules += size / rate * (alpha * rate + radio.base_W + power.idle_W)
        joules += link.rtt_s / 2 * power.idle_W + coding_s * power.compute_W
    for layer, side in enumerate(placement):
        on_client = side == "client"
        joules += costs.client_s[layer] * power.compute_W if on_client else 0.0
        joules += costs.edge_s[layer] * power.idle_W if not on_client else 0.0
    return joules


@given(costs_and_links(most=6), powers())
def test_a_query_draws_what_its_states_draw(table, power):
    costs, link = table
    for placement in product(("client", "edge"), repeat=len(costs)):
        expected = written_out_J(costs, link, power, placement)
        assert query_energy_J(costs, link, power, placement) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("network", "up_W", "down_W"),
    # alpha * t + beta in W at the papers' average rates, worked out by hand.
    [("3g", 1.773758, 1.0654783), ("4g", 3.8526215, 2.0031472), ("wifi", 5.4791096, 7.6642997)],
)
def test_the_networks_of_the_papers(network, up_W, down_W):
    radio, link = RADIOS[network], LINKS[network]
    assert radio.sending_W(link.up_Bps) == pytest.approx(up_W)
    assert radio.receiving_W(link.down_Bps) == pytest.approx(down_W)


def test_a_radio_in_the_units_of_papers():
    radio = Radio.measured("x", 1000.0, 500.0, 250.0)
    assert radio.sending_W(125e3) == pytest.approx(1.25)  # 1 Mbit/s
    assert radio.receiving_W(250e3) == pytest.approx(1.25)  # 2 Mbit/s


def test_on_a_slow_radio_a_byte_costs_more_joules():
    power = Power(4.0, 0.5, RADIOS["wifi"])
    joules = [upload_energy_J(1e6, Link(rate, rate), power) for rate in (1e5, 1e6, 1e7)]
    assert joules == sorted(joules, reverse=True)


def test_an_upload_draws_the_radios_power_only():
    assert upload_energy_J(12, Link(4, 4), HALF_WATTS) == 3 * (0.25 * 4 + 1)
    assert upload_energy_J(0, Link(4, 4), HALF_WATTS) == 0.0


def test_an_hour_is_queries_and_waiting():
    assert hourly_energy_J(HALF_WATTS, 30.0, 10.0, 36) == 36 * 30 + (3600 - 360) * 0.5
    assert hourly_energy_J(HALF_WATTS, 30.0, 10.0, 0) == 1800
    assert hourly_energy_J(HALF_WATTS, 40.0, 10.0, 360) == 360 * 40


def test_an_hour_holds_no_more_queries_than_it_has_time_for():
    with pytest.raises(ValueError, match="queries_per_h"):
        hourly_energy_J(HALF_WATTS, 40.0, 10.0, 361)


@given(costs_and_links(), powers(), st.floats(0.1, 10))
def test_more_power_never_draws_fewer_joules(table, power, factor):
    costs, link = table
    placement = ("edge",) * len(costs)
    more = replace(power, idle_W=power.idle_W + factor, compute_W=power.compute_W + factor)
    joules = query_energy_J(costs, link, power, placement)
    assert query_energy_J(costs, link, more, placement) >= joules


def test_a_model_without_layers_draws_nothing():
    costs = LayerCosts([], [], [], [4], [4])
    assert query_energy_J(costs, Link(1, 1), HALF_WATTS, ()) == 0.0
    assert len(energy_prices(costs, Link(1, 1), HALF_WATTS)) == 0


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.parametrize("field", ["up_W_per_Bps", "down_W_per_Bps", "base_W"])
def test_wrong_radios_are_refused_by_name(field, wrong):
    with pytest.raises(ValueError, match=field):
        replace(HALF_WATTS.radio, **{field: wrong})


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.parametrize("field", ["compute_W", "idle_W"])
def test_wrong_powers_are_refused_by_name(field, wrong):
    with pytest.raises(ValueError, match=field):
        replace(HALF_WATTS, **{field: wrong})


@pytest.mark.parametrize("wrong", BAD)
def test_wrong_numbers_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match="upload_bytes"):
        upload_energy_J(wrong, Link(1, 1), HALF_WATTS)
    given_numbers = {"query_J": 1.0, "query_s": 1.0, "queries_per_h": 1.0}
    for name in given_numbers:
        with pytest.raises(ValueError, match=name):
            hourly_energy_J(HALF_WATTS, **{**given_numbers, name: wrong})


def test_a_placement_of_another_model_is_refused():
    costs = LayerCosts([1], [1], [1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="placement"):
        query_energy_J(costs, Link(1, 1), HALF_WATTS, ("edge", "edge"))
