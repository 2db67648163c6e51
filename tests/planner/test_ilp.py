from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Infeasible, Limit, Power, Prices
from planner.ilp import ilp_placement
from planner.jointdnn import grouped_price, jointdnn_placement
from planner.larac import larac_path
from planner.objective import battery, deadline, edge_time
from planner.power import RADIOS, energy_prices
from planner.prices import cheapest_path, latency_prices
from planner.training import TrainingPrices, training_placement
from tests.planner.tables import LINKS, all_sides, all_sums, random_costs, seeds, several_prices
from tests.planner.test_jointdnn import ranges_of
from tests.planner.test_training import all_training_sums, training_prices

FORMS = pytest.mark.parametrize("form", ["glsvlsi", "jointdnn"])


def limits_of(criteria, data):
    """Limits that some placements keep and others do not: between the least and the most."""
    limits = []
    for i, prices in enumerate(criteria):
        sums = all_training_sums(prices) if isinstance(prices, TrainingPrices) else all_sums(prices)
        level = data.draw(st.sampled_from((0.0, 0.05, 0.2, 0.5, 0.9, 1.0)))
        at_most = (
            sums.min() + level * (sums.max() - sums.min()) - data.draw(st.sampled_from((0, 1)))
        )
        limits.append(Limit(f"limit {i}", prices, max(0.0, float(at_most))))
    return limits


def check(form, objective, limits, sums_of, available=None):
    """The ILP against all placements: the least price, or the least excess."""
    n = len(objective)
    sides = all_sides(n)
    legal = np.ones(len(sides), dtype=bool)
    if available is not None:
        legal = ~(sides & ~np.array(available, dtype=bool)).any(axis=1)
    sums = [sums_of(limit.prices)[legal] for limit in limits]
    kept = np.ones(legal.sum(), dtype=bool)
    for limit, limited in zip(limits, sums, strict=True):
        kept &= limited <= limit.at_most * (1 + 1e-9)
    if kept.any():
        placement = ilp_placement(objective, limits, available, form=form)
        assert objective.along(placement) == pytest.approx(sums_of(objective)[legal][kept].min())
        assert all(limit.allows(placement) for limit in limits)
        assert available is None or all(
            may or where == "client" for may, where in zip(available, placement, strict=True)
        )
        return
    with pytest.raises(Infeasible) as raised:
        ilp_placement(objective, limits, available, form=form)
    check_excess(raised.value, limits, sums)


def check_excess(raised, limits, sums):
    at_most = [limit.at_most for limit in limits]
    missing = np.array([np.maximum(s - a, 0) for s, a in zip(sums, at_most, strict=True)])
    if all(at_most):
        relative = (missing / np.array(at_most)[:, None]).sum(axis=0).min()
        told = sum(raised.excess.get(limit.name, 0) / limit.at_most for limit in limits)
        assert told == pytest.approx(relative)
    assert raised.excess
    assert all(excess > 0 for excess in raised.excess.values())
    raises = [raised.excess.get(limit.name, 0.0) for limit in limits]
    assert (missing <= np.array(raises)[:, None] + 1e-6).all(axis=0).any()
    for row, limit in enumerate(limits):
        others = np.arange(len(limits)) != row
        alone = missing[row][(missing[others] <= 1e-9).all(axis=0)]
        assert (limit.name in raised.alone) == (len(alone) > 0)
        if len(alone):
            assert raised.alone[limit.name] == pytest.approx(alone.min())


@FORMS
@settings(deadline=None, max_examples=50)
@given(several_prices(most=12), st.data())
def test_equals_the_shortest_path_where_nothing_is_limited(form, criteria, data):
    (prices,) = criteria
    n = len(prices)
    available = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    placement = ilp_placement(prices, available=available, form=form)
    assert prices.along(placement) == pytest.approx(cheapest_path(prices, available)[0])
    check(form, prices, [], all_sums, available)


@FORMS
@settings(deadline=None, max_examples=50)
@given(st.integers(2, 4).flatmap(lambda k: several_prices(k, least=1, most=12)), st.data())
def test_equals_all_placements_under_any_number_of_limits(form, criteria, data):
    objective, *limited = criteria
    n = len(objective)
    available = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    check(form, objective, limits_of(limited, data), all_sums, available)


@FORMS
@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 12), st.data())
def test_equals_all_placements_on_realistic_tables(form, seed, layers, data):
    costs, link = random_costs(seed, layers), LINKS[seed % 3]
    power = Power(5.0, 1.0, RADIOS["wifi"])
    share = st.floats(0.1, 1.5)
    home_J = float(costs.client_s.sum()) * power.compute_W
    limits = [
        battery(costs, link, power, home_J * data.draw(share)),
        edge_time(costs, float(costs.edge_s.sum()) * data.draw(share)),
        deadline(costs, link, float(costs.client_s.sum()) * data.draw(share)),
    ]
    mix = latency_prices(costs, link) + energy_prices(costs, link, power) * data.draw(share)
    chosen = data.draw(st.lists(st.sampled_from(limits), unique_by=id))
    check(form, mix, chosen, all_sums)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3).flatmap(lambda k: several_prices(k, least=1, most=7)), st.data())
def test_prices_groups_as_groups(criteria, data):
    objective, *limited = criteria
    limits = limits_of(limited, data)
    ranges = {
        "client_ranges": ranges_of(data, objective.client),
        "edge_ranges": ranges_of(data, objective.edge),
    }
    best = min(
        (
            grouped_price(objective, placement, **ranges)
            for placement in product(("client", "edge"), repeat=len(objective))
            if all(limit.allows(placement) for limit in limits)
        ),
        default=None,
    )
    if best is None:
        with pytest.raises(Infeasible):
            ilp_placement(objective, limits, form="jointdnn", **ranges)
        return
    placement = ilp_placement(objective, limits, form="jointdnn", **ranges)
    assert grouped_price(objective, placement, **ranges) == pytest.approx(best)
    if not limits:
        assert jointdnn_placement(objective, **ranges)[0] == pytest.approx(best)


@FORMS
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3).flatmap(lambda k: training_prices(k, least=1, most=5)), st.data())
def test_training_equals_all_placements(form, criteria, data):
    objective, *limited = criteria
    check(form, objective, limits_of(limited, data), all_training_sums)
    if not limited:
        best = training_placement(objective)[0]
        assert objective.along(ilp_placement(objective, form=form)) == pytest.approx(best)


@FORMS
@pytest.mark.parametrize(
    ("chain", "down", "kept_down"),
    [
        (([0, 0, 0, 2, 3, 0], [0, 0, 0, 3, 1, 0]), [0, 0, 0, 0, 0, 1, 0], [1, 0, 1]),
        (([0, 0, 0, 1, 3, 0], [0, 0, 0, 3, 1, 0]), [0, 0, 0, 0, 0, 0, 1], [0, 0, 1]),
    ],
)
def test_what_presolve_takes_for_infeasible_is_not_believed(form, chain, down, kept_down):
    # Found by chance: limits that are kept with nothing to spare.
    nothing = Prices([0] * 6, [0] * 6, [0] * 7, [0] * 7)
    kept = TrainingPrices(
        Prices(*chain, [1, 1, 0, 1, 2, 0, 0], [0, 0, 1, 0, 1, 0, 0]), [0, 1, 0], [0, 0, 0]
    )
    brought = TrainingPrices(Prices([0] * 6, [0] * 6, [0] * 7, down), [0] * 3, kept_down)
    limits = [
        Limit(f"limit {i}", prices, float(all_training_sums(prices).min()))
        for i, prices in enumerate((kept, brought))
    ]
    objective = TrainingPrices(nothing, [0] * 3, [0] * 3)
    check(form, objective, limits, all_training_sums)


def test_limits_of_training_may_count_the_chain_alone():
    chain = Prices([9, 9, 9, 9], [1, 1, 1, 1], [1] * 5, [1] * 5)
    busy = Limit("edge_time", Prices([0] * 4, [1] * 4, [0] * 5, [0] * 5), 2)
    objective = TrainingPrices(chain, [100, 100], [100, 100])
    placement = ilp_placement(objective, [busy])
    assert placement in {("client", "edge", "edge", "client"), ("edge", "client", "client", "edge")}


@pytest.mark.parametrize("layers", [200, 1000])
def test_long_models_lie_between_the_bound_and_larac(layers):
    costs, link, power = random_costs(4, layers), LINKS[1], Power(5.0, 1.0, RADIOS["wifi"])
    prices = latency_prices(costs, link)
    fastest_J = energy_prices(costs, link, power).along(cheapest_path(prices)[1])
    least_J = cheapest_path(energy_prices(costs, link, power))[0]
    limit = battery(costs, link, power, (fastest_J + least_J) / 2)
    near = larac_path(prices, limit)
    exact = prices.along(ilp_placement(prices, [limit]))
    assert near.at_least * (1 - 1e-9) <= exact <= near.price * (1 + 1e-9)


def test_prices_of_very_different_sizes():
    prices = Prices([1e-9, 3e-9, 1e-9], [1e-10] * 3, [1e9, 1e-9, 5, 1e9], [1e9, 9, 1e-9, 1e9])
    assert ilp_placement(prices) == cheapest_path(prices)[1]
    tiny = Limit("tiny", prices * 1e-6, 4.2e-15)
    assert ilp_placement(prices, [tiny]) == ("client", "edge", "client")


def test_a_limit_of_zero_leaves_what_is_free():
    prices = Prices([5, 5], [1, 1], [0, 0, 0], [0, 0, 0])
    busy = Limit("edge_time", Prices([0, 0], [1, 1], [0] * 3, [0] * 3), 0.0)
    assert ilp_placement(prices, [busy]) == ("client", "client")


def test_tells_what_to_raise():
    prices = Prices([10, 10], [1, 1], [2, 2, 2], [2, 2, 2])
    soon = Limit("deadline", prices, 7)
    busy = Limit("edge_time", Prices([0, 0], [1, 1], [0] * 3, [0] * 3), 1)
    with pytest.raises(Infeasible, match="raise edge_time by 1") as raised:
        ilp_placement(prices, [soon, busy])
    assert raised.value.excess == pytest.approx({"edge_time": 1})
    assert raised.value.alone == pytest.approx({"edge_time": 1, "deadline": 8})


@FORMS
def test_a_model_without_layers_has_one_placement(form):
    nothing = Prices([], [], [3], [3])
    assert ilp_placement(nothing, form=form) == ()
    assert ilp_placement(nothing, [Limit("deadline", nothing, 0)], [], form=form) == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"available": [True]}, "available has 1 entries for 2"),
        ({"form": "lp"}, "form is one of glsvlsi, jointdnn, not 'lp'"),
        ({"client_ranges": np.zeros((3, 3))}, "client_ranges and edge_ranges need form='jointdnn'"),
        ({"form": "jointdnn", "edge_ranges": np.zeros((2, 2))}, "edge_ranges is of shape"),
        ({"form": "jointdnn", "edge_ranges": -np.ones((3, 3))}, "edge_ranges.0, 1. is -1"),
        ({"form": "jointdnn", "client_ranges": np.full((3, 3), np.nan)}, "client_ranges.0, 1. is"),
        ({"limits": [Limit("battery", Prices([1], [1], [1, 1], [1, 1]), 3)]}, "battery is for 1"),
        ({"limits": [Limit("a", Prices([1] * 2, [1] * 2, [1] * 3, [1] * 3), 9)] * 2}, "name twice"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    prices = Prices([1, 1], [1, 1], [1, 1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match=message):
        ilp_placement(prices, **arguments)


@FORMS
@pytest.mark.parametrize("out_of_reach", [1e3, 1e9, 1e11])
def test_what_no_schedule_can_use_does_not_blur_the_others(form, out_of_reach):
    prices = Prices([1e-3], [0], [out_of_reach, 0], [0, 1e-9])
    assert ilp_placement(prices, form=form) == ("client",)
    limited = Limit("limit", prices, 1e-3)
    assert ilp_placement(Prices([1], [0], [0, 0], [0, 0]), [limited], form=form) == ("client",)


def training(client, edge, up, down, kept_up, kept_down):
    return TrainingPrices(Prices(client, edge, up, down), kept_up, kept_down)


@FORMS
def test_what_can_be_kept_is_never_said_to_be_out_of_reach(form):
    # A limit of 1e11 and a bit.
    objective = training(
        [0.25, 1e11], [0.13, 0.43], [0.94, 1e11, 0.63], [0.52, 0.24, 0.59], [0.15], [1e11]
    )
    limited = training(
        [1e11, 0.951], [1e11, 0.382], [1e11, 0.7, 1e11], [0.22, 0.56, 0.7], [0.23], [1e11]
    )
    limit = Limit("battery", limited, limited.along(["client", "client"]))
    assert limit.allows(ilp_placement(objective, [limit], form=form))


def far_apart(r, n):
    """Prices about 1 beside some of 1e9."""

    def numbers(count):
        return np.round(r.exponential(1.0, count), 3) * np.where(r.random(count) < 0.25, 1e9, 1)

    return Prices(numbers(n), numbers(n), numbers(n + 1), numbers(n + 1))


@FORMS
@pytest.mark.parametrize("seed", range(60))
def test_prices_of_a_billion_do_not_blur_those_of_one(form, seed):
    r = np.random.default_rng(seed)
    n, count = r.integers(1, 7), r.integers(0, 4)
    limits = []
    for i in range(count):
        prices = far_apart(r, n)
        sums = all_sums(prices)
        at_most = (np.quantile(sums, r.random()), sums.min() * r.uniform(0.5, 1.5))[i % 2]
        limits.append(Limit(f"limit {i}", prices, float(at_most)))
    check(form, far_apart(r, n), limits, all_sums)
