"""Prices: sums along schedules, and the cheapest of all."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given

from planner import LayerCosts, Link, Prices, Where, cheapest_path, latency_prices, route
from planner.ilp import ilp_placement
from planner.jointdnn import jointdnn_placement
from planner.local_offloading import Resources
from planner.training import TrainingPrices, training_placement
from tests.planner.tables import costs_and_links

SIDES: tuple[Where, ...] = ("client", "edge")


@given(costs_and_links())
def test_the_cheapest_path_is_the_least_sum_over_all_placements(
    table: tuple[LayerCosts, Link],
) -> None:
    prices = latency_prices(*table)
    price, placement = cheapest_path(prices)
    assert price == pytest.approx(prices.along(placement))
    assert price == pytest.approx(
        min(prices.along(other) for other in product(SIDES, repeat=len(prices)))
    )


@given(costs_and_links(least=1))
def test_what_the_edge_lacks_stays_on_the_client(table: tuple[LayerCosts, Link]) -> None:
    costs, link = table
    available = costs.available(())
    _, placement = cheapest_path(latency_prices(costs, link), available)
    assert all(may or where == "client" for may, where in zip(available, placement, strict=True))
    assert placement == route(costs, link).placement


def test_prices_add_and_scale() -> None:
    prices = Prices([1, 2], [3, 4], [5, 6, 7], [8, 9, 10])
    mixed = 2 * prices + prices * 0.5
    assert mixed.along(("client", "edge")) == 2.5 * (1 + 6 + 4 + 10)
    assert mixed.along(("edge", "client")) == 2.5 * (5 + 3 + 9 + 2)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("field", ["client", "edge", "up", "down"])
def test_wrong_prices_are_refused_by_name(field: str, wrong: float) -> None:
    table = {"client": [1.0], "edge": [1.0], "up": [1.0, 1.0], "down": [1.0, 1.0]}
    table[field][0] = wrong
    with pytest.raises(ValueError, match=field):
        Prices(**table)


def test_lengths_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="up"):
        Prices([1], [1], [1], [1, 1])
    one, two = Prices([1], [1], [1, 1], [1, 1]), Prices([1, 1], [1, 1], [1] * 3, [1] * 3)
    with pytest.raises(ValueError, match="add up"):
        one + two
    with pytest.raises(ValueError, match="placement"):
        one.along(("client", "edge"))
    with pytest.raises(ValueError, match="cloud"):
        one.along(("cloud",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight"):
        one * -1.0


NO_LISTS = (5, 2.5, object(), {True, False}, iter([True, True]), "ab")


@pytest.mark.parametrize("wrong", NO_LISTS)
def test_what_is_no_list_is_refused_by_name(wrong):
    prices = Prices([1, 1], [1, 1], [1] * 3, [1] * 3)
    training = TrainingPrices(prices, [0], [0])
    for plan in (cheapest_path, ilp_placement, jointdnn_placement):
        with pytest.raises(ValueError, match="available"):
            plan(prices, available=wrong)
    with pytest.raises(ValueError, match="available"):
        training_placement(training, wrong)
    for priced in (prices, training):
        with pytest.raises(ValueError, match=r"placement|a layer runs"):
            priced.along(wrong)
    for name in ("free", "slowdown", "memory_bytes"):
        with pytest.raises(ValueError, match=name):
            Resources(**({"free": (1,), "slowdown": (1,), "memory_bytes": (1,)} | {name: wrong}))


@pytest.mark.parametrize("wrong", [[None, 1], ["a", "b"], [[1], [2]]])
def test_entries_of_wrong_types_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=r"placement|a layer runs"):
        Prices([1, 1], [1, 1], [1] * 3, [1] * 3).along(wrong)
    with pytest.raises(ValueError, match="free"):
        Resources(wrong, (1, 1), (1, 1))
    with pytest.raises(ValueError, match="uploaded"):
        LayerCosts([1], [1], [1], [1, 1], [1, 1]).available(wrong)
