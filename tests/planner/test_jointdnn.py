from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import Prices, RangeTimes
from planner.jointdnn import grouped_price, jointdnn_placement, range_sums
from planner.prices import cheapest_path, latency_prices
from tests.planner.tables import LINKS, random_costs, seeds, several_prices


def ranges_of(data, layers):
    """Prices of groups, mostly less than their sums, sometimes more: any whole numbers."""
    n = len(layers)
    sums = range_sums(layers)
    saved = data.draw(st.lists(st.integers(-2, 3), min_size=(n + 1) ** 2, max_size=(n + 1) ** 2))
    return np.maximum(sums - np.array(saved, dtype=float).reshape(n + 1, n + 1), 0)


def written_out(prices, placement, client, edge):
    """The price of a placement, group by group and transfer by transfer."""
    total, start, before = 0.0, 0, "client"
    n = len(placement)
    for stop in range(1, n + 1):
        if stop == n or placement[stop] != placement[start]:
            here = placement[start]
            total += (client if here == "client" else edge)[start, stop]
            if here != before:
                total += prices.up[start] if here == "edge" else prices.down[start]
            before, start = here, stop
    return total + (prices.down[n] if before == "edge" else 0.0)


@given(several_prices(most=8), st.data())
def test_equals_the_best_of_all_placements(criteria, data):
    (prices,) = criteria
    n = len(prices)
    client, edge = ranges_of(data, prices.client), ranges_of(data, prices.edge)
    may = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    placements = list(product(*(("client", "edge") if there else ("client",) for there in may)))
    best = min(written_out(prices, placement, client, edge) for placement in placements)
    price, placement = jointdnn_placement(prices, client, edge, may)
    assert price == pytest.approx(best)
    assert placement in set(placements)
    assert written_out(prices, placement, client, edge) == pytest.approx(best)
    assert grouped_price(prices, placement, client, edge) == pytest.approx(best)


@given(seeds, st.integers(0, 60))
def test_is_the_route_where_layers_add_up(seed, layers):
    costs = random_costs(seed, layers) if layers else random_costs(seed, 1).grouped([])
    prices = latency_prices(costs, LINKS[seed % 3])
    price, placement = jointdnn_placement(prices)
    assert price == pytest.approx(cheapest_path(prices)[0])
    assert prices.along(placement) == pytest.approx(price)
    assert grouped_price(prices, placement) == pytest.approx(price)


def test_a_group_that_is_cheap_in_one_go_moves_to_the_edge_whole():
    prices = Prices([3, 3, 3], [3, 3, 3], [1, 9, 9, 9], [9, 9, 9, 1])
    assert jointdnn_placement(prices)[1] == ("client",) * 3
    edge = range_sums(prices.edge)
    edge[0, 3] = 4
    assert jointdnn_placement(prices, edge_ranges=edge) == (6.0, ("edge",) * 3)


def test_the_client_wins_ties():
    prices = Prices([3, 3], [3, 3], [0, 0, 0], [0, 0, 0])
    assert jointdnn_placement(prices) == (6.0, ("client", "client"))


def test_a_model_without_layers_costs_nothing():
    assert jointdnn_placement(Prices([], [], [3], [3])) == (0.0, ())
    assert grouped_price(Prices([], [], [3], [3]), ()) == 0.0


def test_below_the_diagonal_nothing_is_looked_at():
    prices = Prices([3, 3], [3, 3], [0, 0, 0], [0, 0, 0])
    ranges = np.triu(range_sums(prices.client), 1) + np.tril(np.full((3, 3), np.nan))
    assert jointdnn_placement(prices, ranges, ranges)[0] == 6.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"client_ranges": np.zeros((2, 3))}, r"client_ranges is of shape \(3, 3\), not \(2, 3\)"),
        ({"edge_ranges": [[0, 1], [2]]}, "edge_ranges is a square of numbers"),
        ({"edge_ranges": "cheap"}, "edge_ranges is a square of numbers"),
        ({"client_ranges": np.full((3, 3), np.nan)}, r"client_ranges\[0, 1\] is nan"),
        ({"client_ranges": np.full((3, 3), np.inf)}, r"client_ranges\[0, 1\] is inf"),
        ({"edge_ranges": np.full((3, 3), -1)}, r"edge_ranges\[0, 1\] is -1"),
        ({"available": [True]}, "available has 1 entries for 2 layers"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    prices = Prices([1, 1], [1, 1], [1, 1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match=message):
        jointdnn_placement(prices, **arguments)


def test_grouped_price_refuses_other_placements():
    prices = Prices([1, 1], [1, 1], [1, 1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match="1 sides for 2 layers"):
        grouped_price(prices, ("edge",))
    with pytest.raises(ValueError, match="not on 'cloud'"):
        grouped_price(prices, ("edge", "cloud"))


def test_small_layers_behind_large_ones_keep_their_price():
    times = np.array([1e9, 1e-9, 3e-9, 2e-9])
    assert range_sums(times)[1, 4] == pytest.approx(6e-9, rel=1e-12)
    assert RangeTimes({}, 0, times).matrix()[2, 4] == pytest.approx(5e-9, rel=1e-12)
    price, placement = jointdnn_placement(Prices(times, [0, 1, 1, 1], [0] * 5, [0] * 5))
    assert placement == ("edge", "client", "client", "client")
    assert price == pytest.approx(6e-9, rel=1e-12)
