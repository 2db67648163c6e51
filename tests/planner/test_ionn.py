import heapq
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, upload_plan
from planner.ionn import dominators, ionn_partitions
from tests.planner.tables import LINKS, costs_and_links, random_costs, seeds, with_coding


def costs_of(client_s, edge_s, weight_bytes, cut=0.0, edges=None):
    cuts = [cut] * (len(client_s) + 1)
    return LayerCosts(client_s, edge_s, weight_bytes, cuts, cuts, edges=edges)


def published_partitions(costs, link, k):
    """Algorithm 1 as printed: Dijkstra's shortest paths through three nodes a layer."""
    n, uploaded, partitions, penalty = len(costs), set(), [], 1.0
    half = link.rtt_s / 2
    up = costs.cut_up_bytes / link.up_Bps + half + costs.cut_up_s
    down = costs.cut_down_bytes / link.down_Bps + half + costs.cut_down_s
    while penalty >= 0.01:
        graph = {}
        for i in range(n):
            upload_s = 0 if i in uploaded else penalty * costs.weight_bytes[i] / link.up_Bps
            graph["client", i] = {
                ("server", i): up[i],
                ("client", i + 1): costs.client_s[i],
            }
            graph["server", i] = {("output", i): costs.edge_s[i] + upload_s}
            graph["output", i] = {("client", i + 1): down[i + 1]}
            if i + 1 < n:
                graph["output", i]["server", i + 1] = 0.0
        picked = [
            i
            for where, i in shortest_path(graph, ("client", 0), ("client", n))
            if where == "output" and costs.weight_bytes[i] and i not in uploaded
        ]
        if picked:
            partitions.append(tuple(picked))
            uploaded.update(picked)
        penalty *= k
    return tuple(partitions)


def shortest_path(graph, start, end):
    queue, done = [(0.0, start, ())], set()
    while queue:
        length, node, path = heapq.heappop(queue)
        if node == end:
            return (*path, node)
        if node not in done:
            done.add(node)
            for target, weight in graph[node].items():
                heapq.heappush(queue, (length + weight, target, (*path, node)))
    raise AssertionError("the end is not reachable")


@settings(deadline=None)
@given(seeds, st.integers(1, 12), st.sampled_from(LINKS), st.floats(0.02, 0.95), st.booleans())
def test_equals_algorithm_1_on_the_execution_graph(seed, layers, link, k, coded):
    costs = random_costs(seed, layers)
    costs = with_coding(costs, seed) if coded else costs
    assert ionn_partitions(costs, link, k) == published_partitions(costs, link, k)


def test_hand_computed_chain():
    # One byte per second, free transfers: layer i goes to the server in the first iteration with
    # K^n * bytes < client_s - edge_s. Savings 9 for 4, 30 and 40 bytes, then 1000 bytes:
    #   n = 0  weight 1     4 < 9              -> layer 0
    #   n = 1  weight 1/2   15, 20 > 9
    #   n = 2  weight 1/4   7.5 < 9, 10 > 9    -> layer 1
    #   n = 3  weight 1/8   5 < 9              -> layer 2
    #   n = 6  weight 1/64  15.6 > 9; 1/128 is below 0.01, so layer 3 is never uploaded
    costs = costs_of([10] * 4, [1] * 4, [4, 30, 40, 1000])
    assert upload_plan(costs, Link(1, 1), "ionn", k=0.5).partitions == ((0,), (1,), (2,))
    # K = 0.1 looks at weights 1, 0.1, 0.01 only: 1000 * 0.01 = 10 > 9.
    assert upload_plan(costs, Link(1, 1), "ionn", k=0.1).partitions == ((0,), (1, 2))
    # K = 0.9 comes by 0.0107 last, 10.7 > 9, but separates 30 * 0.9^12 = 8.5 from 40 * 0.9^15.
    assert upload_plan(costs, Link(1, 1), "ionn", k=0.9).partitions == ((0,), (1,), (2,))


def test_hand_computed_transfers():
    # Moving over costs 6 in all (3 up, 3 down), so a lone layer that saves 5 stays, and joins
    # when its neighbour (saves 20, 8 bytes) is on the server, where the cut is free.
    costs = costs_of([6, 21], [1, 1], [2, 8], cut=3.0)
    assert upload_plan(costs, Link(1, 1), "ionn").partitions == ((0, 1),)
    costs = costs_of([6, 21], [1, 1], [16, 8], cut=3.0)
    assert upload_plan(costs, Link(1, 1), "ionn").partitions == ((1,), (0,))


def test_what_is_uploaded_costs_nothing_afterwards():
    # Layer 1 alone saves 20 for 8 + 6. Layers 0 and 2 enter later, through an upload weight of
    # their own only: were layer 1 charged again, the block would stay behind.
    costs = costs_of([6, 21, 6], [1, 1, 1], [30, 8, 30], cut=3.0)
    plan = upload_plan(costs, Link(1, 1), "ionn")
    assert plan.partitions[0] == (1,)
    assert set(plan.layers) == {0, 1, 2}
    assert len(plan.layers) == 3


def test_layers_that_are_never_picked_are_not_in_the_plan():
    costs = costs_of([1.0], [0.5], [1e6])
    assert upload_plan(costs, Link(1, 1), "ionn").partitions == ()


@given(costs_and_links(most=7), st.sampled_from((0.1, 0.5, 0.9)))
def test_partitions_hold_weighted_layers_at_most_once(table, k):
    costs, link = table
    layers = upload_plan(costs, link, "ionn", k).layers
    assert len(set(layers)) == len(layers)
    assert set(layers) <= set(costs.weighted)


@pytest.mark.parametrize("k", [0.0, 1.0, -0.5, 2.0, float("nan"), "0.5", None])
def test_refuses_k_outside_zero_and_one(k):
    with pytest.raises(ValueError, match="K lies between 0 and 1"):
        upload_plan(random_costs(0, 3), LINKS[0], "ionn", k)


# A stem (0), two branches (1 -> 2, and 3), a join (4), an end (5).
BRANCHES = [(0, 1), (1, 2), (0, 3), (2, 4), (3, 4), (4, 5)]


@pytest.mark.parametrize(
    ("layers", "edges", "expected"),
    [
        (4, None, (0, 1, 2, 3)),
        (4, [(0, 1), (1, 2), (2, 3)], (0, 1, 2, 3)),
        (6, BRANCHES, (0, 4, 5)),
        (3, [(0, 2), (1, 2)], (2,)),  # two layers read the input
        (3, [(0, 1), (0, 2)], (0, 2)),  # two outputs: 1 is none's source, so it is one
        (3, [(-1, 0), (-1, 2), (0, 1), (1, 2)], (2,)),  # the input is used again at the end
        (3, [(0, 1), (1, 2), (0, 3)], (0, 2)),  # layer 0's result is an output too
        (1, [], (0,)),
        (0, [], ()),
    ],
)
def test_dominators(layers, edges, expected):
    costs = costs_of([1] * layers, [1] * layers, [1] * layers, edges=edges)
    assert dominators(costs) == expected


@given(st.integers(1, 7), st.data())
def test_dominators_are_on_every_path(layers, data):
    pairs = [(a, b) for a in range(layers) for b in range(a + 1, layers)]
    chosen = data.draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    costs = costs_of([1] * layers, [1] * layers, [1] * layers, edges=chosen)
    targets = {layer: [b for a, b in chosen if a == layer] or [layers] for layer in range(layers)}
    targets[-1] = [layer for layer in range(layers) if layer not in {b for _, b in chosen}]

    def paths(layer):
        if layer == layers:
            yield set()
        for target in targets.get(layer, []):
            for rest in paths(target):
                yield {layer} | rest

    always = set.intersection(*paths(-1)) - {-1}
    assert set(dominators(costs)) == always | {layers - 1}


def test_branches_move_as_one_between_dominators():
    # Alone, layer 2 would go first. Layers 1 to 4 can only move together.
    client_s, weights = [1, 10, 99, 10, 1, 1], [50, 5, 1, 5, 0, 50]
    chain = costs_of(client_s, [0.1] * 6, weights)
    graph = costs_of(client_s, [0.1] * 6, weights, edges=BRANCHES)
    assert upload_plan(chain, Link(0.2, 1), "ionn").partitions[0] == (2,)
    assert upload_plan(graph, Link(0.2, 1), "ionn").partitions[0] == (1, 2, 3)


@given(seeds, st.sampled_from(LINKS))
def test_a_chain_of_edges_changes_nothing(seed, link):
    bare = with_coding(random_costs(seed, 8), seed)
    chain = replace(bare, edges=tuple((i, i + 1) for i in range(7)))
    assert upload_plan(chain, link, "ionn") == upload_plan(bare, link, "ionn")
