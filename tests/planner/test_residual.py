import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, Objective, Power
from planner.objective import LATENCY
from planner.power import RADIOS
from planner.prices import latency_prices
from planner.residual import residual_placement, tensor_prices
from planner.route import route
from tests.planner.tables import all_sides, costs_and_links

LINK = Link(1, 2, rtt_s=2)


@st.composite
def blocks(draw, most=9):
    """Edges and tensor sizes of a network of blocks: branches of 0 to 2 layers, and their join."""
    edges, source, layer = [], -1, 0
    while layer < most and draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
        if layer + sum(lengths) + 1 > most:
            break
        ends = []
        for length in lengths:
            before = source
            for _ in range(length):
                edges.append((before, layer))
                before, layer = layer, layer + 1
            ends.append(before)
        edges += [(end, layer) for end in set(ends)]
        source, layer = layer, layer + 1
    n = layer
    edges.append((source, n))

    def numbers(count, largest):
        return draw(st.lists(st.integers(0, largest), min_size=count, max_size=count))

    return with_tensors(
        n, edges, numbers(n + 1, 9), numbers(n + 1, 9), numbers(n, 9), numbers(n, 5)
    )


def with_tensors(n, edges, up, down, client_s, edge_s):
    """A cost table whose cuts are the sums of the tensors that are alive."""
    last = [max((b for a, b in edges if a == tensor - 1), default=-1) for tensor in range(n + 1)]
    alive = [[t for t in range(cut + 1) if last[t] >= cut] for cut in range(n + 1)]
    cuts = [[sum(sizes[t] for t in tensors) for tensors in alive] for sizes in (up, down)]
    return LayerCosts(client_s, edge_s, [0] * n, *cuts, edges=edges)


def written_out(costs, up, down, there, link):
    """Seconds of a placement: each tensor crosses once, if anyone on the other side reads it."""
    side = {-1: False, len(costs): False} | dict(enumerate(there))
    total = sum((costs.edge_s if side[i] else costs.client_s)[i] for i in range(len(costs)))
    for tensor in range(-1, len(costs)):
        if any(side[b] != side[a] for a, b in costs.edges if a == tensor):
            size, rate = (down, link.down_Bps) if side[tensor] else (up, link.up_Bps)
            total += size[tensor + 1] / rate + link.rtt_s / 2
    return total


def sizes_of(costs):
    """Tensors from cuts, by solving for all of them at once."""
    n = len(costs)
    last = [max(b for a, b in costs.edges if a == tensor - 1) for tensor in range(n + 1)]
    matrix = np.array([[float(t <= cut <= last[t]) for t in range(n + 1)] for cut in range(n + 1)])
    return np.linalg.solve(matrix, costs.cut_up_bytes), np.linalg.solve(
        matrix, costs.cut_down_bytes
    )


@settings(deadline=None)
@given(blocks(), st.data())
def test_equals_the_best_of_all_placements(costs, data):
    n = len(costs)
    prices = tensor_prices(costs, LINK)
    may = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    up, down = sizes_of(costs)
    legal = [there for there in all_sides(n) if not (there & ~np.array(may, dtype=bool)).any()]
    best = min(written_out(costs, up, down, there, LINK) for there in legal)
    price, placement = residual_placement(prices, may)
    assert price == pytest.approx(best)
    assert prices.along(placement) == pytest.approx(best)
    assert all(there or where == "client" for there, where in zip(may, placement, strict=True))


@settings(deadline=None)
@given(blocks(most=6))
def test_along_prices_each_tensor_once(costs):
    prices, (up, down) = tensor_prices(costs, LINK), sizes_of(costs)
    for there in all_sides(len(costs)):
        placement = ["edge" if on_edge else "client" for on_edge in there]
        assert prices.along(placement) == pytest.approx(written_out(costs, up, down, there, LINK))


@given(costs_and_links())
def test_is_the_route_where_layers_are_a_chain(table):
    costs, link = table
    n = len(costs)
    chain = LayerCosts(
        costs.client_s, costs.edge_s, costs.weight_bytes, costs.cut_up_bytes, costs.cut_down_bytes,
        cut_up_s=costs.cut_up_s, cut_down_s=costs.cut_down_s,
        edges=[(i - 1, i) for i in range(n + 1)],
    )  # fmt: skip
    price, placement = residual_placement(tensor_prices(chain, link))
    assert price == pytest.approx(route(costs, link, frozenset(range(n))).latency_s)
    assert latency_prices(costs, link).along(placement) == pytest.approx(price)


@settings(deadline=None)
@given(blocks())
def test_is_never_dearer_than_crossing_with_all_that_is_alive(costs):
    link = Link(1, 2)  # without a round trip, which each tensor would pay
    price, _ = residual_placement(tensor_prices(costs, link))
    assert price <= route(costs, link).latency_s + 1e-9


def test_the_skip_stays_where_it_is_while_the_branch_visits_the_edge():
    edges = [(-1, 0), (0, 1), (0, 2), (1, 2), (2, 3)]
    # The tensor that the skip keeps is large; what layer 1 makes, and needs not send up, small.
    costs = with_tensors(3, edges, [9, 1, 50, 9], [9, 50, 1, 9], [1, 90, 1], [80, 1, 80])
    price, placement = residual_placement(tensor_prices(costs, Link(1, 1)))
    assert placement == ("client", "edge", "client")
    assert price == 1 + 1 + 1 + 1 + 1
    assert route(costs, Link(1, 1)).latency_s == 1 + 1 + 1 + 51 + 1


def test_the_input_of_two_branches_is_sent_once():
    edges = [(-1, 0), (-1, 1), (0, 2), (1, 2), (2, 3)]
    costs = with_tensors(3, edges, [7, 1, 1, 1], [9, 1, 1, 1], [50, 50, 1], [1, 1, 80])
    price, placement = residual_placement(tensor_prices(costs, Link(1, 1)))
    assert placement == ("edge", "edge", "client")
    assert price == 7 + 1 + 1 + 1 + 1 + 1


@settings(deadline=None)
@given(st.integers(1, 7), st.data())
def test_graphs_of_any_shape_are_priced_right_and_never_dearer_than_the_route(n, data):
    pairs = [(a, b) for a in range(-1, n) for b in range(a + 1, n + 1)]
    edges = [*data.draw(st.lists(st.sampled_from(pairs), unique=True)), (-1, 0)]
    edges += [(b - 1, b) for b in range(n) if not any(target == b for _, target in edges)]
    edges += [(a, n) for a in range(n) if not any(source == a for source, _ in edges)]

    def numbers(count, largest):
        return data.draw(st.lists(st.integers(0, largest), min_size=count, max_size=count))

    sizes = numbers(n + 1, 9), numbers(n + 1, 9)
    costs = with_tensors(n, edges, *sizes, numbers(n, 9), numbers(n, 5))
    link = Link(1, 2)
    price, placement = residual_placement(tensor_prices(costs, link))
    there = [where == "edge" for where in placement]
    assert price == pytest.approx(written_out(costs, *sizes, there, link))
    assert price <= route(costs, link).latency_s + 1e-9


def test_several_answers_are_all_brought_back():
    edges = [(-1, 0), (-1, 1), (0, 2), (1, 2)]
    costs = with_tensors(2, edges, [1, 9, 9], [9, 2, 3], [50, 50], [1, 1])
    price, placement = residual_placement(tensor_prices(costs, Link(1, 1)))
    assert (price, placement) == (1 + 1 + 1 + 2 + 3, ("edge", "edge"))


def test_any_objective():
    edges = [(-1, 0), (0, 1), (0, 2), (1, 2), (2, 3)]
    costs = with_tensors(3, edges, [9, 1, 50, 9], [9, 50, 1, 9], [1, 90, 1], [80, 1, 80])
    power = Power(5, 1, RADIOS["wifi"])
    seconds = tensor_prices(costs, Link(1, 1), LATENCY)
    joules = tensor_prices(costs, Link(1, 1), Objective(0, 1, power))
    both = tensor_prices(costs, Link(1, 1), Objective(1, 0.5, power))
    placement = ("client", "edge", "client")
    assert both.along(placement) == pytest.approx(
        seconds.along(placement) + 0.5 * joules.along(placement)
    )


def test_a_thousand_layers():
    n = 1000
    edges = [(i - 1, i) for i in range(n + 1)] + [(i, i + 3) for i in range(0, n - 3, 3)]
    r = np.random.default_rng(0)
    costs = with_tensors(n, edges, *r.uniform(1, 9, (2, n + 1)), *r.uniform(1, 9, (2, n)))
    prices = tensor_prices(costs, Link(1, 1))
    price, placement = residual_placement(prices)
    assert prices.along(placement) == pytest.approx(price)
    assert price <= route(costs, Link(1, 1)).latency_s


def test_a_model_without_layers_costs_nothing():
    assert residual_placement(tensor_prices(LayerCosts([], [], [], [4], [4], edges=[]), LINK)) == (
        0.0,
        (),
    )


def test_layers_without_sources_read_the_input_and_without_readers_are_answers():
    costs = LayerCosts([9], [1], [0], [2, 3], [2, 3], edges=[])
    assert residual_placement(tensor_prices(costs, Link(1, 1))) == (2 + 1 + 3, ("edge",))


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="edges: residual blocks"):
        tensor_prices(LayerCosts([1], [1], [0], [1, 1], [1, 1]), LINK)
    edges = [(-1, 0), (0, 1), (0, 2), (1, 2), (2, 3)]
    shrunk = LayerCosts([1] * 3, [1] * 3, [0] * 3, [9, 9, 4, 1], [9] * 4, edges=edges)
    with pytest.raises(ValueError, match=r"cut_up_bytes\[2\] is 4.0; what is alive there takes 9"):
        tensor_prices(shrunk, LINK)
    prices = tensor_prices(LayerCosts([1], [1], [0], [1, 1], [1, 1], edges=[]), LINK)
    with pytest.raises(ValueError, match="available has 2 entries for 1"):
        residual_placement(prices, [True, True])
    with pytest.raises(ValueError, match="2 sides for 1"):
        prices.along(["edge", "edge"])


def test_small_tensors_beside_large_ones_are_told_but_for_rounding():
    # The second tensor is told from a cut of 1 + 1e-9, less the first; that is not quite 1e-9.
    edges = [(-1, 0), (-1, 1), (0, 1), (0, 2), (1, 2)]
    alive = [1.0, 1.0 + 1e-9, 1e-9, 0.0]
    costs = LayerCosts([1] * 3, [0] * 3, [0] * 3, alive, alive, edges=edges)
    assert tensor_prices(costs, Link(1, 1)).layers.up == pytest.approx([1, 1e-9, 0, 0], rel=1e-6)
