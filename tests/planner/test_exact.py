from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, route, upload_plan
from planner.exact import _ones
from tests.planner.tables import LINKS, costs_and_links, random_costs, seeds


def area(costs, link, order):
    """Sum over uploads of (latency while the layer travels) x (its bytes)."""
    total, uploaded = 0.0, set()
    for layer in order:
        total += route(costs, link, uploaded).latency_s * costs.weight_bytes[layer]
        uploaded.add(layer)
    return total


@settings(deadline=None)
@given(costs_and_links(most=5))
def test_equals_the_best_of_all_orders(table):
    costs, link = table
    best = min(area(costs, link, order) for order in permutations(costs.weighted))
    assert area(costs, link, upload_plan(costs, link, "exact").layers) == pytest.approx(best)


@settings(max_examples=15, deadline=None)
@given(seeds, st.sampled_from(LINKS))
def test_equals_the_best_of_all_orders_on_realistic_tables(seed, link):
    costs = random_costs(seed, 6)
    best = min(area(costs, link, order) for order in permutations(costs.weighted))
    assert area(costs, link, upload_plan(costs, link, "exact").layers) == pytest.approx(best)


def test_refuses_more_than_twenty_weighted_layers():
    costs = LayerCosts([1] * 22, [1] * 22, [1] * 21 + [0], [1] * 23, [1] * 23)
    with pytest.raises(ValueError, match="at most 20, this model has 21"):
        upload_plan(costs, LINKS[0], "exact")
    merged = costs.grouped(range(2, 22))
    assert len(upload_plan(merged, LINKS[0], "exact").layers) == 20


def test_bit_count_of_old_numpy_counts_bits():
    numbers = np.arange(1 << 12, dtype=np.int32)
    assert _ones(numbers).tolist() == [int(number).bit_count() for number in range(1 << 12)]
