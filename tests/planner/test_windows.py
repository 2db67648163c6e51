from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, route, timeline
from planner.upload import UploadPlan
from planner.windows import SIZE, improve_order
from tests.planner.tables import LINKS, costs_and_links, encoder_decoder_costs, random_costs, seeds


def area(costs, link, order):
    """Sum over uploads of (latency while the layer travels) x (its bytes)."""
    total, uploaded = 0.0, set()
    for layer in order:
        total += route(costs, link, uploaded).latency_s * costs.weight_bytes[layer]
        uploaded.add(layer)
    return total


@settings(max_examples=60, deadline=None)
@given(costs_and_links(most=6), st.data())
def test_few_layers_get_the_best_of_all_orders(table, data):
    costs, link = table
    order = data.draw(st.permutations(costs.weighted))
    found = improve_order(costs, link, order)
    assert sorted(found) == sorted(order)
    best = min(area(costs, link, other) for other in permutations(order))
    assert area(costs, link, found) == pytest.approx(best)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 30), st.sampled_from(LINKS), st.data())
def test_never_makes_an_order_worse(seed, layers, link, data):
    costs = random_costs(seed, layers)
    pair = st.tuples(st.integers(0, layers - 1), st.integers(0, layers - 1))
    costs = replace(costs, shared=tuple(data.draw(st.lists(pair, max_size=4))))
    order = data.draw(st.permutations(costs.weighted))
    kept = order[: data.draw(st.integers(0, len(order)))]
    found = improve_order(costs, link, kept)
    assert sorted(found) == sorted(kept)
    assert area(costs, link, found) <= area(costs, link, kept) * (1 + 1e-9)


@given(seeds, st.sampled_from(LINKS))
def test_every_window_of_the_result_is_in_its_best_order(seed, link):
    costs = encoder_decoder_costs(seed, 9)
    found = improve_order(costs, link, costs.weighted)
    least = area(costs, link, found)
    for start in (0, SIZE // 2):
        window = found[start : start + SIZE]
        for one in range(len(window)):
            for other in range(one):
                swapped = list(found)
                a, b = start + one, start + other
                swapped[a], swapped[b] = swapped[b], swapped[a]
                assert area(costs, link, swapped) >= least * (1 - 1e-9)


def test_a_layer_waits_for_the_weights_that_it_shares():
    # Layer 2 runs with layer 0's weights, so layer 0 is worth more than layer 1.
    costs = LayerCosts([9, 10, 9], [1] * 3, [1, 1, 0], [0] * 4, [0] * 4, shared=[(2, 0)])
    assert improve_order(costs, Link(1, 1), [1, 0]) == [0, 1]


def test_deep_models_keep_their_order():
    costs = random_costs(1, 501)
    order = costs.weighted[::-1]
    assert improve_order(costs, LINKS[0], order) == list(order)
    shallow = random_costs(1, 120)
    order = shallow.weighted[::-1]
    better = improve_order(shallow, LINKS[2], order)
    before, after = (
        timeline(shallow, LINKS[2], UploadPlan("", (tuple(each),))) for each in (order, better)
    )
    assert after.mean_latency_s < before.mean_latency_s


@pytest.mark.parametrize("order", [[0, 0], [3], [-1], [1], [0.5], [None]])
def test_refuses_layers_that_have_nothing_to_send_or_come_twice(order):
    costs = LayerCosts([1] * 3, [1] * 3, [1, 0, 1], [1] * 4, [1] * 4)
    with pytest.raises(ValueError, match="order names layers with weights of their own"):
        improve_order(costs, Link(1, 1), order)


@pytest.mark.parametrize("order", [[], [2], [2, 0]])
def test_short_orders(order):
    costs = LayerCosts([9, 1, 5], [1] * 3, [1, 0, 1], [0] * 4, [0] * 4)
    assert improve_order(costs, Link(1, 1), order) == sorted(order)
