from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LATENCY, LayerCosts, Link, Objective, Range, route
from planner.exact import subset_latencies_s
from planner.prices import latency_prices
from tests.planner.tables import (
    LINKS,
    SHAPES,
    all_sides,
    all_sums,
    costs_and_links,
    powers,
    random_costs,
    seeds,
    with_coding,
)


def price(costs, link, placement):
    """Seconds of one placement, written out: the sides visited, from client to client."""
    sides = ["client", *placement, "client"]
    total = 0.0
    for cut, (before, after) in enumerate(pairwise(sides)):
        if (before, after) == ("client", "edge"):
            total += costs.cut_up_bytes[cut] / link.up_Bps + link.rtt_s / 2
            total += costs.cut_up_s[cut]
        if (before, after) == ("edge", "client"):
            total += costs.cut_down_bytes[cut] / link.down_Bps + link.rtt_s / 2
            total += costs.cut_down_s[cut]
    for i, side in enumerate(placement):
        total += costs.client_s[i] if side == "client" else costs.edge_s[i]
    return total


def placements(costs, uploaded):
    choices = [
        ("client", "edge") if i in uploaded or costs.weight_bytes[i] == 0 else ("client",)
        for i in range(len(costs))
    ]
    return product(*choices)


@given(costs_and_links(), st.data())
def test_equals_the_best_of_all_placements(table, data):
    costs, link = table
    uploaded = data.draw(st.frozensets(st.integers(0, len(costs) - 1))) if len(costs) else set()
    best = min(price(costs, link, p) for p in placements(costs, uploaded))
    found = route(costs, link, uploaded)
    assert found.latency_s == pytest.approx(best)
    assert found.placement in set(placements(costs, uploaded))
    assert price(costs, link, found.placement) == pytest.approx(best)


@given(seeds, st.integers(1, 9))
def test_equals_the_best_of_all_placements_on_realistic_tables(seed, layers):
    costs, link = with_coding(random_costs(seed, layers), seed), Link(1e6, 3e6, 0.02)
    uploaded = frozenset(range(0, layers, 2))
    best = min(price(costs, link, p) for p in placements(costs, uploaded))
    assert route(costs, link, uploaded).latency_s == pytest.approx(best)


@settings(deadline=None)
@given(costs_and_links(most=12), powers(), st.integers(0, 3), st.integers(0, 3), st.data())
def test_equals_the_best_of_all_placements_of_up_to_12_layers(table, power, seconds, joules, data):
    costs, link = table
    n = len(costs)
    uploaded = data.draw(st.frozensets(st.integers(0, n - 1))) if n else frozenset()
    objective = Objective(seconds, joules, power) if seconds or joules else LATENCY
    prices = objective.prices(costs, link)
    legal = ~(all_sides(n) & ~np.array(costs.available(uploaded), dtype=bool)).any(axis=1)
    found = route(costs, link, uploaded, objective)
    assert found.placement in set(placements(costs, uploaded))
    assert prices.along(found.placement) == pytest.approx(all_sums(prices)[legal].min())
    assert found.latency_s == pytest.approx(price(costs, link, found.placement))


@settings(deadline=None)
@given(seeds, st.integers(10, 12), st.sampled_from(SHAPES))
def test_equals_the_best_of_all_placements_of_networks_of_12_layers(seed, layers, shape):
    costs, link = with_coding(random_costs(seed, layers, shape), seed), LINKS[seed % 3]
    uploaded = frozenset(np.random.default_rng(seed).permutation(layers)[: layers // 2].tolist())
    legal = ~(all_sides(layers) & ~np.array(costs.available(uploaded))).any(axis=1)
    sums = all_sums(latency_prices(costs, link))
    assert route(costs, link, uploaded).latency_s == pytest.approx(sums[legal].min())
    everything = frozenset(range(layers))
    assert route(costs, link, everything).latency_s == pytest.approx(sums.min())


@given(costs_and_links(most=5))
def test_the_sums_of_all_placements_are_those_written_out(table):
    costs, link = table
    sums = all_sums(latency_prices(costs, link))
    for there, total in zip(all_sides(len(costs)), sums, strict=True):
        placement = ["edge" if on_edge else "client" for on_edge in there]
        assert total == pytest.approx(price(costs, link, placement))


@given(seeds, st.integers(1, 7))
def test_vectorised_latencies_are_the_routes(seed, layers):
    costs, link = with_coding(random_costs(seed, layers), seed), Link(2e6, 1e6, 0.01)
    latency_s = subset_latencies_s(costs, link)
    assert len(latency_s) == 2 ** len(costs.weighted)
    for index, latency in enumerate(latency_s):
        uploaded = {layer for bit, layer in enumerate(costs.weighted) if index >> bit & 1}
        assert latency == route(costs, link, uploaded).latency_s


@given(costs_and_links(), st.data())
def test_more_uploaded_never_slower(table, data):
    costs, link = table
    layers = st.frozensets(st.integers(0, max(0, len(costs) - 1)) if len(costs) else st.nothing())
    some, more = data.draw(layers), data.draw(layers)
    assert route(costs, link, some | more).latency_s <= route(costs, link, some).latency_s


def test_a_model_without_layers_takes_no_time():
    costs = LayerCosts([], [], [], [4], [4])
    assert route(costs, Link(1, 1)).latency_s == 0.0
    assert route(costs, Link(1, 1)).placement == ()
    assert route(costs, Link(1, 1)).ranges == ()


def test_one_layer_pays_input_and_answer():
    costs = LayerCosts([10], [1], [5], [2, 99], [99, 4])
    link = Link(up_Bps=1, down_Bps=2, rtt_s=1)
    assert route(costs, link).ranges == (Range("client", 0, 1),)
    there = route(costs, link, {0})
    assert there.latency_s == 2 / 1 + 0.5 + 1 + 4 / 2 + 0.5
    assert there.ranges == (Range("edge", 0, 1),)


def test_coding_counts_where_the_cut_is_crossed():
    costs = LayerCosts(
        [10, 10], [1, 1], [0, 5], [2, 99, 99], [99, 4, 99], cut_up_s=[3, 50, 50],
        cut_down_s=[50, 0.5, 50],
    )  # fmt: skip
    there = route(costs, Link(1, 2))
    assert there.ranges == (Range("edge", 0, 1), Range("client", 1, 2))
    assert there.latency_s == 2 + 3 + 1 + 4 / 2 + 0.5 + 10


def test_layers_without_weights_run_on_the_edge_from_the_start():
    costs = LayerCosts([9, 9, 9], [1, 1, 1], [5, 0, 5], [1] * 4, [1] * 4)
    found = route(costs, Link(1, 1))
    assert found.ranges == (Range("client", 0, 1), Range("edge", 1, 2), Range("client", 2, 3))
    assert found.latency_s == 9 + 1 + 1 + 1 + 9


def test_the_data_may_change_sides_as_often_as_it_pays():
    costs = LayerCosts([9, 1, 9], [1, 9, 1], [1, 1, 1], [1] * 4, [1] * 4)
    found = route(costs, Link(10, 10), {0, 1, 2})
    assert found.placement == ("edge", "client", "edge")


def test_the_client_wins_ties():
    costs = LayerCosts([3, 3], [2, 3], [0, 0], [1, 0, 0], [0, 1, 0])
    assert route(costs, Link(1, 1)).placement == ("client", "client")


def test_layers_with_shared_weights_wait_for_the_owner():
    costs = LayerCosts([1, 9], [1, 1], [5, 0], [0] * 3, [0] * 3, shared=[(1, 0)])
    assert route(costs, Link(1, 1)).placement == ("client", "client")
    assert route(costs, Link(1, 1), {0}).placement == ("client", "edge")


@pytest.mark.parametrize("layer", [-1, 2])
def test_refuses_layers_that_do_not_exist(layer):
    with pytest.raises(ValueError, match=f"layer {layer} of 2"):
        route(random_costs(0, 2), Link(1, 1), {layer})
