import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import LayerCosts, Link, Objective, Power, Prices
from planner.objective import LATENCY, mobile_energy
from planner.power import RADIOS
from planner.prices import latency_prices
from planner.training import TrainingPrices, training_costs, training_placement
from tests.planner.tables import all_sides, all_sums, random_costs, seeds, with_coding


@st.composite
def training_prices(draw, criteria=1, least=0, most=5):
    """Prices of steps of `most` pairs at the most, of small whole numbers."""
    n = draw(st.integers(least, most))

    def numbers(count, largest):
        return draw(st.lists(st.integers(0, largest), min_size=count, max_size=count))

    return [
        TrainingPrices(
            Prices(numbers(2 * n, 9), numbers(2 * n, 5), *(numbers(2 * n + 1, 6) for _ in "ud")),
            numbers(n, 6),
            numbers(n, 6),
        )
        for _ in range(criteria)
    ]


def all_training_sums(prices):
    """What every placement costs: the chain, and what is kept on the wrong side."""
    if isinstance(prices, Prices):
        return all_sums(prices)
    sums, there = all_sums(prices.chain), all_sides(len(prices))
    for i in range(len(prices) // 2):
        forward, backward = there[:, i], there[:, len(prices) - 1 - i]
        sums = sums + np.where(~forward & backward, prices.kept_up[i], 0)
        sums = sums + np.where(forward & ~backward, prices.kept_down[i], 0)
    return sums


@given(training_prices(), st.data())
def test_equals_the_best_of_all_placements(criteria, data):
    (prices,) = criteria
    n = len(prices)
    may = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    legal = ~(all_sides(n) & ~np.array(may if may is not None else [True] * n, bool)).any(axis=1)
    price, placement = training_placement(prices, may)
    assert price == pytest.approx(all_training_sums(prices)[legal].min())
    assert prices.along(placement) == pytest.approx(price)
    assert may is None or all(m or w == "client" for m, w in zip(may, placement, strict=True))


@given(training_prices(most=3))
def test_along_is_the_sum_of_the_chain_and_what_is_kept(criteria):
    (prices,) = criteria
    sums = all_training_sums(prices)
    for there, expected in zip(all_sides(len(prices)), sums, strict=True):
        placement = ["edge" if on_edge else "client" for on_edge in there]
        assert prices.along(placement) == pytest.approx(expected)
        assert (2 * prices + prices.chain).along(placement) == pytest.approx(
            2 * expected + prices.chain.along(placement)
        )


def test_a_step_of_two_layers_written_out():
    costs = LayerCosts([4, 6], [1, 2], [10, 20], [5, 3, 7], [8, 2, 1], names=["a", "b"])
    step = training_costs(costs, kept_bytes=[100, 200], backward=3)
    assert step.steps.client_s.tolist() == [4, 6, 18, 12]
    assert step.steps.edge_s.tolist() == [1, 2, 6, 3]
    assert step.steps.cut_up_bytes.tolist() == [5, 3, 7, 3, 0]
    assert step.steps.cut_down_bytes.tolist() == [8, 2, 1, 2, 0]
    assert step.steps.names == ("a", "b", "b backward", "a backward")
    prices = step.prices(Link(1, 2, rtt_s=4), LATENCY)
    # All on the edge: the input, both passes, both layers' new weights, an empty last message.
    everything = 5 + 2 + (1 + 2 + 6 + 3) + (10 + 20) / 2 + 2
    assert prices.along(["edge"] * 4) == pytest.approx(everything)
    # Forward on the client, backward of layer b on the edge: what b left goes up.
    placement = ["client", "client", "edge", "client"]
    assert prices.along(placement) == pytest.approx(4 + 6 + 7 + 2 + 200 + 6 + 10 + 2 / 2 + 2 + 12)
    # Forward of layer a on the edge, backward on the client: what a left comes down, and its new
    # weights go up for the next step.
    placement = ["edge", "client", "client", "client"]
    assert prices.along(placement) == pytest.approx(
        5 + 2 + 1 + 2 / 2 + 2 + 6 + 18 + 12 + 100 / 2 + 10
    )


def test_joules_of_a_step_count_the_radio_for_new_weights():
    costs = LayerCosts([4], [1], [10e6], [5, 3], [8, 2])
    step, power = training_costs(costs), Power(2, 0.5, RADIOS["wifi"])
    link = Link(1e6, 2e6)
    energy = step.prices(link, mobile_energy(power))
    receiving_J = 10e6 / 2e6 * (0.5 + RADIOS["wifi"].receiving_W(2e6))
    assert energy.chain.edge[1] == pytest.approx(2 * 1 * 0.5 + receiving_J)
    both = step.prices(link, Objective(1.0, 0.5, power))
    seconds = step.prices(link, LATENCY)
    sides = ["edge", "edge"]
    assert both.along(sides) == pytest.approx(seconds.along(sides) + 0.5 * energy.along(sides))


@given(seeds, st.integers(1, 6))
def test_kept_bytes_are_what_is_alive_before_a_layer_unless_told(seed, layers):
    costs = with_coding(random_costs(seed, layers), seed)
    assert training_costs(costs).kept_bytes.tolist() == costs.cut_up_bytes[:-1].tolist()
    prices = training_costs(costs).prices(Link(1e6, 2e6, 0.1), LATENCY)
    assert prices.kept_up == pytest.approx(costs.cut_up_bytes[:-1] / 1e6)
    changed = costs.weight_bytes / 1e6
    assert prices.kept_down == pytest.approx(costs.cut_up_bytes[:-1] / 2e6 + changed)


def test_backward_layers_need_the_weights_of_their_forward_layers():
    costs = LayerCosts([1] * 3, [1] * 3, [5, 0, 7], [1] * 4, [1] * 4, shared=[(1, 0)])
    steps = training_costs(costs).steps
    assert steps.available({2}) == [False, False, True, True, False, False]
    assert steps.available({0}) == [True, True, False, False, True, True]
    assert steps.total_bytes == 12


def test_where_what_is_kept_is_large_both_passes_of_a_layer_stay_together():
    costs = LayerCosts([9, 9], [1, 1], [1, 1], [4, 1, 1], [4, 1, 1])
    near = training_costs(costs, kept_bytes=[1000, 1000]).prices(Link(1, 1), LATENCY)
    _, placement = training_placement(near)
    assert placement[:2] == placement[:1:-1]


def test_a_model_without_layers_trains_for_nothing():
    step = training_costs(LayerCosts([], [], [], [4], [4]))
    assert len(step) == 0
    assert training_placement(step.prices(Link(1, 1), LATENCY)) == (0.0, ())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kept_bytes": [1]}, "kept_bytes has 1 entries; 2 are needed"),
        ({"kept_bytes": [1, -1]}, r"kept_bytes\[1\] is -1"),
        ({"kept_bytes": [float("nan"), 1]}, r"kept_bytes\[0\] is nan"),
        ({"backward": -1}, "backward is a finite number from 0, not -1"),
        ({"backward": float("nan")}, "backward is a finite number from 0, not nan"),
        ({"backward": float("inf")}, "backward is a finite number from 0, not inf"),
    ],
)
def test_training_costs_refuse_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        training_costs(LayerCosts([1, 1], [1, 1], [1, 1], [1] * 3, [1] * 3), **arguments)


def test_training_prices_refuse_what_does_not_fit():
    odd, even = Prices([1], [1], [1] * 2, [1] * 2), Prices([1] * 2, [1] * 2, [1] * 3, [1] * 3)
    with pytest.raises(ValueError, match="chain has 1 layers"):
        TrainingPrices(odd, [], [])
    with pytest.raises(ValueError, match="chain has 1 layers"):
        TrainingPrices.of(odd)
    with pytest.raises(ValueError, match="kept_up has 2 entries; 1 are needed"):
        TrainingPrices(even, [1, 1], [1])
    with pytest.raises(ValueError, match=r"kept_down\[0\] is -1"):
        TrainingPrices(even, [1], [-1])
    with pytest.raises(ValueError, match="available has 1 entries for 2 layers"):
        training_placement(TrainingPrices(even, [1], [1]), [True])
    with pytest.raises(ValueError, match="3 sides for 2 layers"):
        TrainingPrices(even, [1], [1]).along(["edge"] * 3)


def test_latency_prices_of_the_chain_leave_out_new_weights():
    costs = LayerCosts([4], [1], [10], [5, 3], [8, 2])
    step = training_costs(costs)
    assert latency_prices(step.steps, Link(1, 1)).edge.tolist() == [1, 2]
    assert step.prices(Link(1, 1), LATENCY).chain.edge.tolist() == [1, 12]
