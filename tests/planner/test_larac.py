import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Infeasible, Limit, Power, Prices
from planner.ilp import ilp_placement
from planner.larac import LaracPath, larac, larac_path
from planner.objective import battery
from planner.power import RADIOS, energy_prices
from planner.prices import cheapest_path, latency_prices
from tests.planner.tables import LINKS, all_sides, all_sums, random_costs, seeds, several_prices
from tests.planner.test_training import all_training_sums, training_prices


def check(objective, limit, sums_of, available=None):
    legal = ~(all_sides(len(objective)) & ~np.array(available, dtype=bool)).any(axis=1)
    prices, limited = sums_of(objective)[legal], sums_of(limit.prices)[legal]
    kept = limited <= limit.at_most * (1 + 1e-9)
    if not kept.any():
        with pytest.raises(Infeasible) as raised:
            larac_path(objective, limit, available)
        missing = pytest.approx({limit.name: limited.min() - limit.at_most})
        assert raised.value.excess == missing
        assert raised.value.alone == missing
        return
    found = larac_path(objective, limit, available)
    best = prices[kept].min()
    assert limit.allows(found.placement)
    assert found.price == pytest.approx(objective.along(found.placement))
    assert found.at_least <= best * (1 + 1e-9)
    assert best <= found.price * (1 + 1e-9)
    assert found.price <= found.at_least * (1 + found.gap) * (1 + 1e-9) or found.at_least == 0
    assert all(may or w == "client" for may, w in zip(available, found.placement, strict=True))
    # No multiplier gives a greater bound than LARAC's (its theorem), so it is the best of them.
    for multiplier in (0.1, 0.5, 1, 2, 10):
        bound = (prices + multiplier * limited).min() - multiplier * limit.at_most
        assert found.at_least >= bound - 1e-6


@given(several_prices(2, most=9), st.floats(0, 40), st.data())
def test_keeps_the_limit_and_its_bound_holds(criteria, at_most, data):
    objective, limited = criteria
    n = len(objective)
    may = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    check(objective, Limit("battery", limited, at_most), all_sums, may)


@given(training_prices(2, most=4), st.floats(0, 60))
def test_plans_training_under_a_limit(criteria, at_most):
    objective, limited = criteria
    everywhere = [True] * len(objective)
    check(objective, Limit("battery", limited, at_most), all_training_sums, everywhere)
    check(objective.chain, Limit("battery", limited, at_most), all_training_sums, everywhere)
    check(objective, Limit("battery", limited.chain, at_most), all_training_sums, everywhere)


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(2, 40), st.floats(0, 1))
def test_the_integer_programme_lies_between_the_bound_and_larac(seed, layers, level):
    costs, link, power = random_costs(seed, layers), LINKS[seed % 3], Power(5.0, 1.0, RADIOS["4g"])
    prices, joules = latency_prices(costs, link), energy_prices(costs, link, power)
    least_J = cheapest_path(joules)[0]
    most_J = joules.along(cheapest_path(prices)[1])
    limit = battery(costs, link, power, least_J + level * (most_J - least_J))
    near = larac_path(prices, limit)
    exact = prices.along(ilp_placement(prices, [limit]))
    assert near.at_least * (1 - 1e-9) <= exact <= near.price * (1 + 1e-9)


def test_a_gap_that_only_the_integer_programme_closes():
    # Three ways to run: 4 s and 11 J, 8 s and 9 J, 10 s and 2 J. With 10 J, the line from the
    # first to the last passes below the second.
    seconds = Prices([5, 5], [1, 1], [2, 2, 2], [0, 1, 0])
    joules = Prices([1, 1], [4, 2], [5, 6, 9], [0, 2, 0])
    limit = Limit("battery", joules, 10)
    assert seconds.along(("edge", "edge")) == 4
    assert joules.along(("edge", "edge")) == 11
    assert ilp_placement(seconds, [limit]) == ("client", "edge")
    assert seconds.along(("client", "edge")) == 8
    assert larac_path(seconds, limit).placement == ("client", "client")
    assert larac_path(seconds, limit).at_least == pytest.approx(4 + 6 / 9)
    assert larac_path(seconds, limit).gap == pytest.approx(10 / (4 + 6 / 9) - 1)


def test_a_limit_that_the_best_keeps_costs_nothing():
    prices = Prices([9], [1], [1, 1], [1, 1])
    found = larac_path(prices, Limit("deadline", prices, 3))
    assert (found.price, found.at_least, found.gap, found.multiplier) == (3, 3, 0, 0)
    assert larac(prices, Limit("deadline", prices, 3)) == ("edge",)


def test_the_gap_is_relative_to_the_bound():
    assert LaracPath(("client",), price=9.0, at_least=6.0, multiplier=1.0).gap == 0.5
    assert LaracPath(("client",), price=9.0, at_least=0.0, multiplier=1.0).gap == float("inf")
    assert LaracPath(("client",), price=0.0, at_least=0.0, multiplier=1.0).gap == 0


def test_a_model_without_layers():
    nothing = Prices([], [], [3], [3])
    assert larac(nothing, Limit("battery", nothing, 0)) == ()


def test_refuses_what_does_not_fit():
    prices, other = Prices([1] * 2, [1] * 2, [1] * 3, [1] * 3), Prices([1], [1], [1] * 2, [1] * 2)
    with pytest.raises(ValueError, match="battery is for 1 layers, not 2"):
        larac(prices, Limit("battery", other, 1))
    with pytest.raises(ValueError, match="available has 1 entries for 2"):
        larac(prices, Limit("battery", prices, 9), [True])


def test_the_bound_counts_what_limits_allow_for_rounding():
    objective = Prices([1], [0], [0, 0], [0, 0])
    limited = Prices([4 * (1 + 9e-10)], [4.001], [0, 0], [0, 0])
    found = larac_path(objective, Limit("battery", limited, 4.0))
    assert found.placement == ("client",)
    assert 1 - 1e-6 < found.at_least <= 1
