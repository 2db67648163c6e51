from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, timeline, upload_plan
from planner.emdl import emdl_partitions
from planner.ionn import dominators
from tests.planner.tables import LINKS, costs_and_links, naive_efficiency, random_costs, seeds


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 9), st.sampled_from(LINKS))
def test_partitions_are_the_blocks_with_the_largest_gain_per_byte(seed, layers, link):
    costs = random_costs(seed, layers)
    assert [set(block) for block in emdl_partitions(costs, link)] == naive_efficiency(costs, link)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 9), st.sampled_from(LINKS), st.data())
def test_graphs_move_in_one_piece_between_dominators(seed, layers, link, data):
    pairs = [(a, b) for a in range(layers) for b in range(a + 1, layers)]
    edges = data.draw(st.sets(st.sampled_from(pairs)))
    costs = replace(random_costs(seed, layers), edges=tuple(sorted(edges)))
    cuts = [layer + 1 for layer in dominators(costs)[:-1]]
    units = naive_efficiency(costs.grouped(cuts), link)
    unit_of = [sum(cut <= layer for cut in cuts) for layer in range(layers)]
    expected = [{layer for layer in costs.weighted if unit_of[layer] in unit} for unit in units]
    assert [set(part) for part in emdl_partitions(costs, link)] == expected


@given(costs_and_links(most=7))
def test_a_partition_makes_queries_faster_and_goes_front_to_back(table):
    costs, link = table
    plan = upload_plan(costs, link, "emdl")
    assert all(list(part) == sorted(part) for part in plan.partitions)
    assert len(set(plan.layers)) == len(plan.layers)
    latencies = [point.latency_s for point in timeline(costs, link, plan, "partition").points]
    assert all(after < before for before, after in pairwise(latencies))


def test_what_pays_nothing_is_not_uploaded():
    costs = LayerCosts([9, 1], [1, 9], [2, 2], [0] * 3, [0] * 3)
    assert emdl_partitions(costs, Link(1, 1)) == ((0,),)


def test_hand_computed_blocks():
    # Alone, layer 1 saves 21 - 1 - 6 = 14 for 8 bytes; both save 27 - 2 - 6 = 19 for 24 bytes.
    costs = LayerCosts([6, 21], [1, 1], [16, 8], [3] * 3, [3] * 3)
    assert emdl_partitions(costs, Link(1, 1)) == ((1,), (0,))
    # With 2 bytes in layer 0, both save 19 for 10 bytes.
    assert emdl_partitions(replace(costs, weight_bytes=[2, 8]), Link(1, 1)) == ((0, 1),)


@pytest.mark.parametrize("k", [0.0, 7.0, float("nan")])
def test_needs_no_k(k):
    costs = random_costs(0, 5)
    assert upload_plan(costs, LINKS[0], "emdl", k) == upload_plan(costs, LINKS[0], "emdl")
