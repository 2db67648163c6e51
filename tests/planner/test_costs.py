from dataclasses import replace

import numpy as np
import pytest

from planner import (
    LayerCosts,
    Limit,
    Link,
    LocalCosts,
    Objective,
    Prices,
    Processor,
    Radio,
    RangeTimes,
    jointdnn_placement,
    neurosurgeon,
    training_costs,
)
from tests.planner.tables import random_costs

FIELDS = ("client_s", "edge_s", "weight_bytes", "cut_up_bytes", "cut_down_bytes", "cut_up_s",
          "cut_down_s")  # fmt: skip


def _table() -> dict[str, list[float]]:
    return {name: [1.0] * (3 if name.startswith("cut") else 2) for name in FIELDS}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_refuses_numbers_that_are_negative_or_not_finite(field, wrong):
    table = _table()
    table[field][1] = wrong
    with pytest.raises(ValueError, match=rf"{field}\[1\]"):
        LayerCosts(**table)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("length", [0, 1, 4])
def test_refuses_lengths_that_do_not_match(field, length):
    table = _table()
    table[field] = [1.0] * length
    with pytest.raises(ValueError, match=r"has \d+ entries; \d+ are needed"):
        LayerCosts(**table)


@pytest.mark.parametrize("wrong", ["ab", [[1.0, 2.0]], [None, 1.0], ["x", "y"], 3.0])
def test_refuses_what_is_not_a_flat_list_of_numbers(wrong):
    with pytest.raises(ValueError, match="client_s"):
        LayerCosts(**{**_table(), "client_s": wrong})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"edges": [(1, 0)]}, "edges go from a layer to a later one"),
        ({"edges": [(0, 3)]}, r"edges has \(0, 3\)"),
        ({"shared": [(0, 2)]}, r"shared has \(0, 2\)"),
        ({"names": ["a"]}, "names has 1 entries for 2 layers"),
    ],
)
def test_refuses_optional_fields_that_do_not_fit(extra, message):
    with pytest.raises(ValueError, match=message):
        LayerCosts(**_table(), **extra)


@pytest.mark.parametrize(
    "link", [(0, 1, 0), (1, -1, 0), (float("inf"), 1, 0), (1, 1, -0.1), (1, 1, float("nan"))]
)
def test_refuses_impossible_links(link):
    with pytest.raises(ValueError, match=r"up_Bps|down_Bps|rtt_s"):
        Link(*link)


def test_tables_are_values():
    a, b = random_costs(1, 5), random_costs(1, 5)
    assert a == b
    assert hash(a) == hash(b)
    assert a != random_costs(2, 5)
    assert a != replace(a, cut_up_s=[1] * 6)
    assert a != replace(a, cut_down_s=[1] * 6)
    assert replace(a, cut_up_s=[0] * 6) == a
    with pytest.raises(ValueError, match="read-only"):
        a.client_s[0] = 1.0


def test_does_not_alias_what_it_was_given():
    client_s = np.ones(2)
    costs = LayerCosts(client_s, [1, 1], [1, 1], [1, 1, 1], [1, 1, 1])
    client_s[0] = 5.0
    assert costs.client_s.tolist() == [1.0, 1.0]


def test_shared_weights_are_needed_from_their_owner():
    costs = LayerCosts([1] * 3, [1] * 3, [5, 0, 7], [1] * 4, [1] * 4, shared=[(2, 0), (1, 0)])
    assert costs.needs == ((0,), (0,), (0, 2))
    assert costs.available({2}) == [False, False, False]
    assert costs.available({0}) == [True, True, False]
    assert costs.available({0, 2}) == [True, True, True]


def test_grouping_adds_layers_and_keeps_boundaries():
    costs = LayerCosts(
        [1, 2, 3, 4], [5, 6, 7, 8], [1, 0, 2, 3], [10, 11, 12, 13, 14], [20, 21, 22, 23, 24],
        cut_up_s=[1, 2, 3, 4, 5], cut_down_s=[6, 7, 8, 9, 10],
        edges=[(0, 1), (0, 2), (1, 3), (2, 3)], shared=[(3, 0), (2, 3)], names="abcd",
    )  # fmt: skip
    assert costs.grouped([2, 1]) == LayerCosts(
        [1, 2, 7], [5, 6, 15], [1, 0, 5], [10, 11, 12, 14], [20, 21, 22, 24],
        cut_up_s=[1, 2, 3, 5], cut_down_s=[6, 7, 8, 10],
        edges=[(0, 1), (0, 2), (1, 2)], shared=[(2, 0)], names=["a", "b", "c"],
    )  # fmt: skip
    assert costs.grouped([]).client_s.tolist() == [10.0]
    assert costs.grouped([1, 2, 3]) == replace(costs, shared=sorted(costs.shared))


@pytest.mark.parametrize("boundary", [0, 4, -1])
def test_grouping_refuses_cuts_outside_the_model(boundary):
    with pytest.raises(ValueError, match="cuts from 1 to 3"):
        random_costs(0, 4).grouped([boundary])


NO_NUMBERS = pytest.mark.parametrize("wrong", ["fast", None, [], 1j, 10**400])


@NO_NUMBERS
@pytest.mark.parametrize("name", ["up_Bps", "down_Bps", "rtt_s"])
def test_a_link_of_no_numbers_is_refused_by_name(name, wrong):
    with pytest.raises(ValueError, match=name):
        Link(**{"up_Bps": 1, "down_Bps": 1, name: wrong})


@NO_NUMBERS
def test_what_is_no_number_is_refused_by_name(wrong):
    prices = Prices([1], [1], [1, 1], [1, 1])
    table = LayerCosts([1], [1], [1], [1, 1], [1, 1])
    link = Link(1, 1)
    calls = {
        r"client_s": lambda: LayerCosts([wrong], [1], [1], [1, 1], [1, 1]),
        "edges": lambda: LayerCosts([1], [1], [1], [1, 1], [1, 1], edges=[(0, wrong)]),
        "weight of prices": lambda: prices * wrong,
        "base_W": lambda: Radio(1, 1, wrong),
        "s_weight": lambda: Objective(wrong),
        "at_most of battery": lambda: Limit("battery", prices, wrong),
        "server_load": lambda: neurosurgeon(table, link, server_load=wrong),
        "backward": lambda: training_costs(table, backward=wrong),
        "client_ranges": lambda: jointdnn_placement(prices, [[0, wrong], [0, 0]]),
        "copy_s": lambda: LocalCosts([Processor("cpu", [1], 1)], [1], [1, 1], copy_s=[[wrong]]),
        "factor of times": lambda: RangeTimes({}, 1, [1]) * wrong,
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=name):
            call()
