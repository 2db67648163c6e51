"""The cheapest schedule under one limit: against all placements."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import (
    Infeasible,
    LayerCosts,
    Limit,
    Link,
    Power,
    Prices,
    Radio,
    battery,
    cheapest_path,
    deadline,
    edge_time,
    energy_prices,
    latency_prices,
    mobile_energy,
    route,
    route_within,
)
from planner.constrained import cheapest_within
from planner.larac import larac_path
from planner.training import TrainingPrices
from tests.planner.tables import costs_and_links, powers, random_costs, seeds

POWER = Power(3.0, 0.5, Radio(2e-6, 1e-6, 0.5))


def random_prices(seed: int, layers: int) -> Prices:
    """Prices without any shape, so that many placements are not beaten in both sums."""
    r = np.random.default_rng(seed)
    return Prices(*(r.exponential(1.0, layers + ends) for ends in (0, 0, 1, 1)))


def allowed(available, layers):
    for placement in product(("client", "edge"), repeat=layers):
        if all(may or where == "client" for may, where in zip(available, placement, strict=True)):
            yield placement


def check_against_all(objective, limit, available):
    sums = [(objective.along(p), limit.prices.along(p)) for p in allowed(available, len(objective))]
    within = [price for price, total in sums if total <= limit.at_most * (1 + 1e-9)]
    if not within:
        with pytest.raises(Infeasible) as raised:
            cheapest_within(objective, limit, available)
        least = min(total for _, total in sums)
        assert raised.value.excess[limit.name] == pytest.approx(least - limit.at_most)
        return
    found = cheapest_within(objective, limit, available)
    assert found in set(allowed(available, len(objective)))
    assert limit.allows(found)
    assert objective.along(found) == pytest.approx(min(within))


@given(costs_and_links(most=7), powers(), st.integers(0, 60), st.data())
def test_a_battery_is_kept_at_the_least_latency(table, power, joules, data):
    costs, link = table
    uploaded = data.draw(st.frozensets(st.integers(0, len(costs) - 1))) if len(costs) else set()
    limit = battery(costs, link, power, joules)
    check_against_all(latency_prices(costs, link), limit, costs.available(uploaded))


@given(seeds, st.integers(1, 9), st.floats(0, 1.2))
def test_prices_without_any_shape(seed, layers, share):
    objective, limited = random_prices(seed, layers), random_prices(seed + 1, layers)
    least, most = cheapest_path(limited)[0], limited.along(cheapest_path(objective)[1])
    limit = Limit("joules", limited, max(0.0, least + share * (most - least)))
    check_against_all(objective, limit, [True] * layers)


@given(costs_and_links(most=6), powers(), st.integers(0, 30))
def test_any_limit_and_any_objective(table, power, at_most):
    costs, link = table
    joules = mobile_energy(power).prices(costs, link)
    for limit in (deadline(costs, link, at_most), edge_time(costs, at_most)):
        check_against_all(joules, limit, [True] * len(costs))


@given(seeds, st.integers(10, 60), st.floats(0, 1))
def test_larger_models_are_never_worse_than_larac_nor_better_than_its_bound(seed, layers, share):
    costs, link = random_costs(seed, layers), Link(1e6, 3e6, 0.01)
    latency, joules = latency_prices(costs, link), energy_prices(costs, link, POWER)
    least = cheapest_path(joules)[0]
    most = joules.along(cheapest_path(latency)[1])
    limit = battery(costs, link, POWER, least + share * (most - least))
    near, exact = larac_path(latency, limit), latency.along(cheapest_within(latency, limit))
    assert near.at_least * (1 - 1e-9) <= exact <= near.price * (1 + 1e-9)


def test_the_duality_gap_is_closed():
    # (price, joules): (0, 18), (4, 12), (7, 9) and (11, 3). The third lies above the line between
    # its neighbours, where no multiplier finds it.
    objective = Prices([0, 0], [4, 7], [0, 0, 0], [0, 0, 0])
    limited = Prices([9, 9], [3, 0], [0, 0, 0], [0, 0, 0])
    limit = Limit("battery", limited, 10.0)
    assert larac_path(objective, limit).placement == ("edge", "edge")
    assert cheapest_within(objective, limit) == ("client", "edge")


@given(seeds, st.integers(10, 60), st.floats(0, 1))
def test_with_few_labels_it_keeps_the_limit_and_is_no_worse_than_larac(seed, layers, share):
    objective, limited = random_prices(seed, layers), random_prices(seed + 1, layers)
    least, most = cheapest_path(limited)[0], limited.along(cheapest_path(objective)[1])
    limit = Limit("battery", limited, least + share * (most - least))
    near, found = larac_path(objective, limit), cheapest_within(objective, limit, most_labels=2)
    assert limit.allows(found)
    assert near.at_least * (1 - 1e-9) <= objective.along(found) <= near.price * (1 + 1e-9)


def test_a_route_within_a_battery():
    costs = LayerCosts([8, 8], [1, 2], [3, 3], [4, 2, 4], [4, 2, 4])
    link, hungry = Link(2, 2), Power(1.0, 0.0, Radio(0.0, 0.0, 5.0))
    uploaded = {0, 1}
    fastest = route(costs, link, uploaded)
    rich = route_within(costs, link, battery(costs, link, hungry, 99), uploaded)
    assert rich.placement == fastest.placement
    poor = route_within(costs, link, battery(costs, link, hungry, 17), uploaded)
    assert poor.placement == ("client", "client")
    assert route_within(costs, link, deadline(costs, link, 16)).placement == ("client", "client")
    with pytest.raises(Infeasible) as raised:
        route_within(costs, link, battery(costs, link, hungry, 15), uploaded)
    assert raised.value.excess == {"battery": pytest.approx(1.0)}


def test_a_model_without_layers_keeps_every_limit():
    assert cheapest_within(Prices([], [], [9], [9]), Limit("x", Prices([], [], [9], [9]), 0)) == ()


def test_what_does_not_fit_together_is_refused():
    one, two = random_prices(0, 1), random_prices(0, 2)
    with pytest.raises(ValueError, match="battery"):
        cheapest_within(one, Limit("battery", two, 1.0))
    with pytest.raises(ValueError, match="available"):
        cheapest_within(one, Limit("battery", one, 99.0), [True, True])
    with pytest.raises(ValueError, match="training"):
        cheapest_within(two, Limit("battery", TrainingPrices.of(two), 1.0))
    costs = LayerCosts([1], [1], [1], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="layer 7 of 1"):
        route_within(costs, Link(1, 1), edge_time(costs, 1.0), {7})
