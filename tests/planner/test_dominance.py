from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import Prices
from planner.dominance import merge, needed_cuts
from planner.prices import cheapest_path, latency_prices
from tests.planner.tables import LINKS, random_costs, several_prices


@given(several_prices(criteria=2, least=1, most=6), st.data())
def test_every_placement_is_matched_without_the_other_cuts(criteria, data):
    n = len(criteria[0])
    may = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
    kept = set(needed_cuts(criteria, may)) | {0, n}
    allowed = [("client", "edge") if there else ("client",) for there in may]
    everything = [
        (placement, [prices.along(placement) for prices in criteria])
        for placement in product(*allowed)
    ]
    coarse = [
        sums
        for placement, sums in everything
        if all(placement[cut - 1] == placement[cut] for cut in range(1, n) if cut not in kept)
    ]
    for _, sums in everything:
        assert any(all(np.less_equal(other, np.add(sums, 1e-9))) for other in coarse)


@given(several_prices(criteria=1, least=1, most=8))
def test_the_shortest_path_stays(criteria):
    (prices,) = criteria
    n = len(prices)
    cuts = np.array([0, *needed_cuts(criteria, np.ones(n, dtype=bool)), n])
    assert cheapest_path(merge(prices, cuts))[0] == pytest.approx(cheapest_path(prices)[0])


def test_a_wide_cut_between_narrow_ones_is_not_needed():
    prices = Prices([4, 4, 4], [1, 1, 1], [2, 9, 1, 9], [9, 9, 9, 1])
    assert needed_cuts([prices], np.ones(3, dtype=bool)) == []
    assert needed_cuts([prices], np.array([False, True, True])) == [2]


def test_long_models_shrink():
    costs = random_costs(7, 1000, "residual")
    kept = needed_cuts([latency_prices(costs, LINKS[1])], np.ones(1000, dtype=bool))
    assert len(kept) < 200


def test_models_of_no_and_of_one_layer_have_no_inner_cuts():
    assert needed_cuts([Prices([], [], [1], [1])], np.ones(0, dtype=bool)) == []
    assert needed_cuts([Prices([1], [1], [1, 1], [1, 1])], np.ones(1, dtype=bool)) == []
