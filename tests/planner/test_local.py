"""Layers that must stay on the client: no planner runs them elsewhere, or uploads them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    LayerCosts,
    Link,
    Objective,
    Plane,
    Power,
    Radio,
    progressive_plan,
    route,
    timeline,
    upload_plan,
)
from planner.costs import KEPT_S
from planner.explain import explain
from planner.ilp import ilp_placement
from planner.jointdnn import jointdnn_placement
from planner.neurosurgeon import neurosurgeon
from planner.prices import latency_prices
from tests.planner.tables import LINKS, random_costs, seeds

ALGORITHMS = ("efficiency", "ionn", "emdl", "all-at-once", "front-to-back", "exact")


def chain_edges(layers: int) -> list[tuple[int, int]]:
    return [(i - 1, i) for i in range(layers + 1)]


def kept(seed: int, layers: int, first: int, last: int) -> LayerCosts:
    costs = replace(random_costs(seed, layers), edges=chain_edges(layers))
    return replace(costs, local=[*range(first), *range(layers - last, layers)])


tables = st.tuples(seeds, st.just(8), st.integers(0, 4), st.integers(0, 4))


@given(tables, st.sampled_from(LINKS), st.integers(0, 255))
def test_a_route_is_the_best_of_those_that_keep_the_layers_here(
    table: tuple[int, int, int, int], link: Link, uploaded: int
) -> None:
    costs = kept(*table)
    there = {layer for layer in range(8) if uploaded >> layer & 1}
    found = route(costs, link, there)
    may = costs.available(there)
    assert not any(may[layer] for layer in costs.local)
    prices = latency_prices(costs, link)
    best = min(
        prices.along(["edge" if on_edge else "client" for on_edge in sides])
        for sides in product((False, True), repeat=8)
        if not any(on_edge and not may[layer] for layer, on_edge in enumerate(sides))
    )
    assert found.latency_s == pytest.approx(best)
    assert all(found.placement[layer] == "client" for layer in costs.local)


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from(LINKS))
def test_no_algorithm_uploads_what_stays_here(table: tuple[int, int, int, int], link: Link) -> None:
    costs = kept(*table)
    for algorithm in ALGORITHMS:
        plan = upload_plan(costs, link, algorithm)  # type: ignore[arg-type]
        assert costs.local.isdisjoint(plan.layers)
        line = timeline(costs, link, plan)
        assert line.points[-1].latency_s <= costs.client_s.sum() * (1 + 1e-9)
    planes = [[Plane(size, 0.0)] if size else [] for size in costs.weight_bytes.tolist()]
    steps = [step for part in progressive_plan(costs, link, planes).partitions for step in part]
    assert costs.local.isdisjoint(layer for layer, _ in steps)


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from(LINKS))
def test_planners_that_do_not_ask_what_is_available_stay_away(
    table: tuple[int, int, int, int], link: Link
) -> None:
    costs = kept(*table)
    power = Power(5.0, 1.0, Radio(1e-7, 1e-7, 0.5))
    for objective in (Objective(), Objective(0.0, 1.0, power), Objective(1.0, 0.3, power)):
        prices = objective.prices(costs, link)
        ways = [jointdnn_placement(prices)[1], ilp_placement(prices)]
        ways += [route(costs, link, range(8), objective).placement]
        for placement in ways:
            assert all(placement[layer] == "client" for layer in costs.local)
    for split in (neurosurgeon(costs, link), neurosurgeon(costs, link, power, "energy")):
        assert all(split.placement[layer] == "client" for layer in costs.local)
    assert all(explain(costs, link).placement[layer] == "client" for layer in costs.local)


def test_the_middle_is_worth_as_much_as_without() -> None:
    free = LayerCosts([1, 1, 1], [0.01] * 3, [10, 10, 10], [1e6, 1, 1, 1e6], [1e6, 1, 1, 1e6])
    link = Link(1e6, 1e6, 0.0)
    ends = replace(free, local=(0, 2))
    assert upload_plan(ends, link).layers == (1,)
    assert route(ends, link, {1}).placement == ("client", "edge", "client")
    assert ends.total_bytes == 10
    assert ends.weighted == (1,)
    assert ends.edge_s.tolist() == [KEPT_S, 0.01, KEPT_S]


def test_layers_that_share_weights_with_one_that_stays_stay_too() -> None:
    tied = LayerCosts(
        [1] * 4, [0] * 4, [5, 5, 5, 0], [1] * 5, [1] * 5, shared=[(3, 0), (3, 2)], local=[0]
    )
    assert tied.local == {0, 2, 3}
    assert tied.weighted == (1,)
    assert tied.available(range(4)) == [False, True, False, False]


def test_what_is_made_of_costs_keeps_them() -> None:
    costs = replace(random_costs(0, 4), local=[3])
    assert replace(costs, edge_s=np.zeros(4)).edge_s.tolist() == [0, 0, 0, KEPT_S]
    merged = costs.grouped([2])
    assert merged.local == {1}
    assert merged.weight_bytes[1] == 0
    assert costs != replace(costs, local=())
    assert hash(costs) != hash(replace(costs, local=()))


@pytest.mark.parametrize("local", [[4], [-1], ["x"], [None], 3, [float("nan")]])
def test_layers_that_are_not_there(local: Any) -> None:
    with pytest.raises(ValueError, match="local"):
        replace(random_costs(0, 4), local=local)
