from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.growth import inward_order, outward_order

small = st.integers(0, 9)


@st.composite
def blocks(draw):
    count = draw(st.integers(1, 6))
    three = (st.lists(small, min_size=count, max_size=count) for _ in range(3))
    return tuple(np.array(draw(each), dtype=float) for each in three)


def adjacent(layers):
    return max(layers) - min(layers) + 1 == len(layers)


def outward_area(now, enter, leave, sizes, order):
    total = 0.0
    for place, layer in enumerate(order):
        there = set(order[:place])
        runs = [
            enter[i] + leave[j]
            for i in range(len(sizes))
            for j in range(i, len(sizes))
            if set(range(i, j + 1)) <= there
        ]
        total += min([now, *runs]) * sizes[layer]
    return total


def inward_area(enter, leave, sizes, order):
    return sum(
        (enter[min(order[place:])] + leave[max(order[place:])]) * sizes[layer]
        for place, layer in enumerate(order)
    )


@given(blocks(), st.integers(0, 30))
def test_outward_is_the_best_of_the_orders_that_grow_from_a_layer(block, now):
    enter, leave, sizes = block
    area, order = outward_order(now, enter, leave, sizes)
    grown = [
        other
        for other in permutations(range(len(sizes)))
        if all(adjacent(other[: place + 1]) for place in range(len(other)))
    ]
    assert tuple(order) in grown
    assert area == outward_area(now, *block, order)
    assert area == min(outward_area(now, *block, other) for other in grown)


@given(blocks())
def test_inward_is_the_best_of_the_orders_that_leave_one_interval(block):
    area, order = inward_order(*block)
    grown = [
        other
        for other in permutations(range(len(order)))
        if all(adjacent(other[place:]) for place in range(len(other)))
    ]
    assert tuple(order) in grown
    assert area == inward_area(*block, order)
    assert area == min(inward_area(*block, other) for other in grown)


@pytest.mark.parametrize("layers", [1, 2])
def test_inward_ends_with_the_layer_that_costs_least_to_miss(layers):
    enter, leave = np.zeros(layers), np.arange(layers)[::-1].astype(float)
    _, order = inward_order(enter, leave, np.ones(layers))
    assert order == list(range(layers))
