from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, RangeTimes, fit_ranges, range_tilings, route
from planner.grouped import random_tilings, range_errors, spans
from planner.prices import latency_prices
from planner.route import Route
from tests.planner.tables import random_costs, seeds

NAN, INF = float("nan"), float("inf")
seconds = st.floats(1e-6, 1e3)


def times_of(startup_s, marginal_s, layers_measured=()):
    return RangeTimes(dict(layers_measured), startup_s, marginal_s)


@settings(deadline=None)
@given(seconds, st.lists(seconds, min_size=1, max_size=20), st.data())
def test_what_is_exactly_start_up_and_marginal_is_found_again(startup_s, marginal_s, data):
    # No layer may add less than a tenth of what it takes alone, or that is what is fitted.
    startup_s = min(startup_s, 8 * min(marginal_s))
    n = len(marginal_s)
    true = times_of(startup_s, marginal_s)
    measured = {span: true.seconds(*span) for span in spans(range_tilings(n))}
    found = fit_ranges(n, measured)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert found.seconds(start, stop) == pytest.approx(true.seconds(start, stop), rel=1e-6)
    assert found.modelled(start, stop) == pytest.approx(true.modelled(start, stop), rel=1e-6)
    if n > 1:
        assert found.startup_s == pytest.approx(startup_s, rel=1e-3, abs=1e-6 * max(marginal_s))


@settings(deadline=None)
@given(st.integers(1, 12), st.data())
def test_any_times_can_be_fitted(layers, data):
    times = st.one_of(st.just(0.0), st.floats(0, 1e-300), st.floats(0, 1e9), st.floats(1e-6, 10))
    measured = {span: data.draw(times) for span in sorted(spans(range_tilings(layers)))}
    matrix = fit_ranges(layers, measured).matrix()
    assert np.isfinite(matrix).all()
    assert (matrix >= 0).all()


def test_measured_ranges_are_told_as_they_are():
    measured = {(0, 1): 2.0, (1, 2): 2.0, (2, 3): 2.0, (0, 3): 3.0}
    found = fit_ranges(3, measured)
    assert {span: found.seconds(*span) for span in measured} == measured
    assert found.seconds(0, 2) == found.modelled(0, 2)
    assert found.seconds(1, 1) == 0


def test_no_layer_is_free_and_nothing_takes_less_than_no_time():
    # In one go all takes less than the first layer alone.
    found = fit_ranges(2, {(0, 1): 5.0, (1, 2): 1.0, (0, 2): 4.0})
    assert found.startup_s >= 0
    assert found.marginal_s[0] >= 0.5
    assert found.marginal_s[1] >= 0.1


@given(st.lists(seconds, min_size=1, max_size=8), seconds)
def test_the_matrix_has_every_range(marginal_s, startup_s):
    n = len(marginal_s)
    times = times_of(startup_s, marginal_s, {(0, n): 7.0})
    matrix = times.matrix()
    assert matrix.shape == (n + 1, n + 1)
    for i in range(n + 1):
        for j in range(n + 1):
            expected = times.seconds(i, j) if i < j else 0.0
            assert matrix[i, j] == pytest.approx(expected)


@given(seeds, st.integers(1, 7), seconds, st.data())
def test_costs_price_every_range_as_the_model_does(seed, layers, startup_s, data):
    costs, link = random_costs(seed, layers), Link(1e6, 1e6, 0.01)
    times = times_of(startup_s, costs.client_s)
    sides = st.sampled_from(("client", "edge"))
    placement = tuple(data.draw(st.lists(sides, min_size=layers, max_size=layers)))
    bare = latency_prices(
        LayerCosts(
            np.zeros(layers), costs.edge_s, costs.weight_bytes, costs.cut_up_bytes,
            costs.cut_down_bytes,
        ),
        link,
    )  # fmt: skip
    expected = bare.along(placement) + sum(
        times.modelled(part.start, part.stop)
        for part in Route(0.0, placement).ranges
        if part.where == "client"
    )
    found = latency_prices(times.on_client(costs), link).along(placement)
    assert found == pytest.approx(expected)


def test_a_start_up_can_keep_a_layer_on_the_edge():
    costs = LayerCosts([9, 1, 9], [1, 2, 1], [1] * 3, [0] * 4, [0] * 4)
    apart = route(times_of(0, costs.client_s).on_client(costs), Link(1, 1), range(3))
    together = route(times_of(5, costs.client_s).on_client(costs), Link(1, 1), range(3))
    assert apart.placement == ("edge", "client", "edge")
    assert together.placement == ("edge", "edge", "edge")


def test_layer_times_add_up_to_a_run_of_the_whole_model():
    times = times_of(2.0, [1.0, 3.0])
    assert times.layer_s.tolist() == [3.0, 3.0]
    assert times.layer_s.sum() == times.modelled(0, 2)
    assert times_of(0, []).layer_s.tolist() == []


def test_a_slower_device_takes_longer_everywhere():
    times = 3 * times_of(2.0, [1.0, 3.0], {(0, 2): 5.0})
    assert (times.startup_s, times.marginal_s.tolist()) == (6.0, [3.0, 9.0])
    assert times.seconds(0, 2) == 15.0
    assert len(times) == 2


@given(st.integers(1, 200))
def test_tilings_are_few_and_hold_every_layer_alone(layers):
    tilings = range_tilings(layers)
    assert len(set(tilings)) == len(tilings) <= 2 * max(1, layers.bit_length())
    for tiling in tilings:
        assert tiling[0] == 0
        assert tiling[-1] == layers
        assert all(a < b for a, b in pairwise(tiling))
    assert {(i, i + 1) for i in range(layers)} | {(0, layers)} <= spans(tilings)


def test_tilings_have_the_cuts_where_changing_sides_can_pay():
    # Up before layer 2 (fewer bytes than at any cut before), not before 3; down before layer 4.
    up_bytes, down_bytes = [9, 9, 3, 5, 4, 9], [9, 9, 9, 9, 2, 3]
    assert {(0, 2, 5), (0, 4, 5)} <= set(range_tilings(5, up_bytes, down_bytes))
    assert (0, 3, 5) not in range_tilings(5, up_bytes, down_bytes)
    assert range_tilings(1, [1, 2], [2, 1]) == ((0, 1),)


@given(st.integers(0, 30), st.integers(0, 5), st.integers(0, 9))
def test_random_tilings_are_runs_of_the_model(layers, count, seed):
    tilings = random_tilings(layers, count, seed)
    assert len(tilings) == (count if layers > 1 else 0)
    assert tilings == random_tilings(layers, count, seed)
    for tiling in tilings:
        assert (tiling[0], tiling[-1]) == (0, layers)
        assert 3 <= len(tiling) <= 10
        assert all(a < b for a, b in pairwise(tiling))


def test_errors_compare_the_sum_of_layers_with_the_model():
    times = RangeTimes({(0, 1): 2.0, (1, 2): 2.0, (2, 3): 2.0, (0, 3): 4.0}, 1.0, [1.0] * 3)
    # Used, of one layer, or of no time: these tell nothing.
    held_out = {(0, 2): 3.2, (1, 3): 2.5, (0, 3): 9.0, (0, 1): 9.0}
    errors = range_errors(times, held_out)
    assert errors.ranges == ((0, 2), (1, 3))
    assert errors.sum_of_layers.tolist() == pytest.approx([4 / 3.2 - 1, 4 / 2.5 - 1])
    assert errors.grouped.tolist() == pytest.approx([3 / 3.2 - 1, 3 / 2.5 - 1])
    summary = errors.summary()
    assert summary["grouped"]["largest"] == pytest.approx(0.2)
    assert summary["grouped"]["within_10_percent"] == 0.5
    assert summary["sum_of_layers"]["within_10_percent"] == 0
    assert range_errors(times, {}).summary() == {}


def test_no_layers():
    times = fit_ranges(0, {})
    assert times.matrix().tolist() == [[0.0]]
    assert times.seconds(0, 0) == 0
    assert range_tilings(0) == ()
    none = LayerCosts([], [], [], [1], [1])
    assert times.on_client(none) == none


@pytest.mark.parametrize("wrong", [-1.0, NAN, INF, None])
def test_refuses_times_that_are_none(wrong):
    for name, wants in (
        ("measured", lambda: fit_ranges(1, {(0, 1): wrong})),
        ("measured", lambda: range_errors(fit_ranges(1, {(0, 1): 1.0}), {(0, 1): wrong})),
        ("measured", lambda: RangeTimes({(0, 1): wrong}, 1.0, [1.0])),
        ("startup_s", lambda: RangeTimes({}, wrong, [1.0])),
        ("marginal_s", lambda: RangeTimes({}, 1.0, [wrong])),
    ):
        with pytest.raises(ValueError, match=name):
            wants()


@pytest.mark.parametrize(
    "span", [(0, 3), (-1, 1), (1, 1), (2, 1), (0.0, 1.0), (0, 1, 2), (NAN, 1), "01"]
)
def test_refuses_ranges_outside_the_model(span):
    with pytest.raises(ValueError, match=r"no range of 2 layers"):
        fit_ranges(2, {(0, 2): 1.0, span: 1.0})


@pytest.mark.parametrize("layers", [-1, 1.5, None, NAN])
def test_refuses_numbers_of_layers_that_are_none(layers):
    for wants in (
        lambda: fit_ranges(layers, {}),
        lambda: range_tilings(layers),
        lambda: random_tilings(layers, 1, 0),
    ):
        with pytest.raises(ValueError, match="layers is a number from 0"):
            wants()


@pytest.mark.parametrize(
    ("wants", "message"),
    [
        (lambda: fit_ranges(3, {(0, 1): 1.0, (2, 3): 1.0}), "no range with layer 1"),
        (lambda: fit_ranges(1, {(0, 1): 1e300}), r"measured has a range that takes 1e\+300"),
        (lambda: range_tilings(3, [1, 2]), "up_bytes has 2 entries; 4 are needed"),
        (lambda: range_tilings(3, None, [1, NAN, 1, 1]), "down_bytes"),
        (lambda: random_tilings(3, -2, 0), "count is a number from 0"),
        (lambda: times_of(1, [1]).seconds(0, 2), r"no layers \[0, 2\) in a model of 1"),
        (lambda: times_of(1, [1]).seconds(1, 0), "no layers"),
        (lambda: 0 * times_of(1, [1]), "positive number"),
        (lambda: NAN * times_of(1, [1]), "positive number"),
        (lambda: times_of(1, [[1]]), "marginal_s is a flat list"),
        (lambda: times_of(1, [1, 2]).on_client(random_costs(0, 3)), "costs of 3 layers"),
        (lambda: range_errors(times_of(1, [1, 1]), {(0, 2): 1.0}), "layer 0 was not measured"),
    ],
)
def test_refuses_what_does_not_fit(wants, message):
    with pytest.raises(ValueError, match=message):
        wants()
