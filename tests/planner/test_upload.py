from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, route, timeline, upload_plan
from planner.efficiency import greedy_blocks
from planner.upload import UploadPlan
from tests.planner.tables import (
    LINKS,
    SHAPES,
    costs_and_links,
    encoder_decoder_costs,
    naive_efficiency,
    random_costs,
    seeds,
    with_coding,
)

ALGORITHMS = ("efficiency", "ionn", "emdl", "all-at-once", "front-to-back", "exact")
COMPLETE = tuple(name for name in ALGORITHMS if name not in ("ionn", "emdl"))


def mean_s(costs, link, plan):
    return timeline(costs, link, plan).mean_latency_s


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 9), st.sampled_from(LINKS), st.booleans())
def test_greedy_takes_the_blocks_that_the_definition_names(seed, layers, link, coded):
    costs = random_costs(seed, layers)
    costs = with_coding(costs, seed) if coded else costs
    blocks, sent = greedy_blocks(costs, link)
    assert [set(block) for block in blocks] == naive_efficiency(costs, link)
    assert sorted(sent) == sorted(layer for block in blocks for layer in block)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_greedy_takes_the_blocks_that_the_definition_names_in_deep_models(shape, seed):
    costs, link = random_costs(seed, 36, shape), LINKS[seed]
    blocks, _ = greedy_blocks(costs, link)
    assert [set(block) for block in blocks] == naive_efficiency(costs, link)


@given(seeds, st.integers(1, 20), st.sampled_from(LINKS), st.booleans())
def test_partitions_keep_the_blocks_apart_that_windows_do_not_mix(seed, layers, link, hourglass):
    costs = (encoder_decoder_costs if hourglass else random_costs)(seed, layers)
    blocks, sent = greedy_blocks(costs, link)
    plan = upload_plan(costs, link)
    paying = [part for part in plan.partitions if sent.issuperset(part)]
    assert set().union(*paying) == sent
    # Each partition ends where a whole number of blocks is there.
    ends = [set().union(*blocks[: index + 1]) for index in range(len(blocks))]
    assert all(set().union(*paying[: index + 1]) in ends for index in range(len(paying)))
    assert mean_s(costs, link, plan) <= mean_s(
        costs, link, UploadPlan("greedy", tuple(tuple(block) for block in blocks))
    ) * (1 + 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("link", LINKS, ids=lambda link: f"{link.up_Bps * 8e-6:g}Mbit")
def test_efficiency_is_within_one_percent_of_exact_on_network_shapes(shape, link):
    for seed in range(8):
        costs = random_costs(seed, 12, shape)
        exact = mean_s(costs, link, upload_plan(costs, link, "exact"))
        assert exact * (1 - 1e-9) <= mean_s(costs, link, upload_plan(costs, link)) <= 1.01 * exact


@pytest.mark.parametrize("mbits", [1.1, 5.85, 18.88, 80, 400])
def test_efficiency_is_within_one_percent_of_exact_on_encoders_with_decoders(mbits):
    link = Link(mbits * 125e3, mbits * 125e3, 0.005)
    for seed in range(10):
        costs = encoder_decoder_costs(seed, 14)
        exact = mean_s(costs, link, upload_plan(costs, link, "exact"))
        assert exact * (1 - 1e-9) <= mean_s(costs, link, upload_plan(costs, link)) <= 1.01 * exact


@pytest.mark.parametrize(("seed", "mbits"), [(203, 18.88), (175, 400), (15, 400), (240, 5.85)])
def test_windows_mend_what_the_greedy_choice_gets_wrong(seed, mbits):
    costs, link = encoder_decoder_costs(seed, 14), Link(mbits * 125e3, mbits * 125e3, 0.005)
    blocks, _ = greedy_blocks(costs, link)
    exact = mean_s(costs, link, upload_plan(costs, link, "exact"))
    assert mean_s(costs, link, UploadPlan("greedy", tuple(map(tuple, blocks)))) > 1.03 * exact
    assert mean_s(costs, link, upload_plan(costs, link)) <= 1.001 * exact


@given(costs_and_links(most=7), st.sampled_from(COMPLETE))
def test_plans_hold_every_weighted_layer_once(table, algorithm):
    costs, link = table
    plan = upload_plan(costs, link, algorithm)
    assert sorted(plan.layers) == list(costs.weighted)
    assert all(plan.partitions)
    assert plan.algorithm == algorithm


@given(costs_and_links(most=7), st.sampled_from(ALGORITHMS))
def test_plans_are_deterministic(table, algorithm):
    costs, link = table
    assert upload_plan(costs, link, algorithm) == upload_plan(costs, link, algorithm)


@given(costs_and_links(most=7))
def test_no_plan_beats_exact(table):
    costs, link = table
    exact = mean_s(costs, link, upload_plan(costs, link, "exact"))
    for algorithm in COMPLETE:
        assert mean_s(costs, link, upload_plan(costs, link, algorithm)) >= exact * (1 - 1e-12)


def test_efficiency_is_the_default():
    costs = random_costs(3, 20)
    assert upload_plan(costs, LINKS[0]) == upload_plan(costs, LINKS[0], "efficiency")


def test_what_never_pays_comes_last_by_what_it_would_save_per_byte():
    # Layer 1 pays. Layers 0, 2 and 3 would, were the cuts around them free.
    up, down = [999, 99, 99, 99, 99], [99, 99, 99, 999, 999]
    costs = LayerCosts([2, 900, 8, 3], [1] * 4, [1, 10, 1, 1], up, down)
    plan = upload_plan(costs, Link(1, 1))
    assert plan.partitions == ((1,), (2,), (3,), (0,))


def test_a_block_grows_where_it_pays_soonest():
    # Running the middle on the edge needs all three; afterwards the ends pay on their own.
    costs = LayerCosts([50, 80, 20], [1, 1, 1], [10, 10, 10], [5, 5, 5, 5], [5, 5, 5, 5])
    assert upload_plan(costs, Link(1, 1)).layers == (1, 0, 2)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_models_of_no_and_one_layer(layers, algorithm):
    costs = LayerCosts(
        [9] * layers, [1] * layers, [1] * layers, [1] * (layers + 1), [1] * (layers + 1)
    )
    assert upload_plan(costs, Link(10, 10), algorithm).layers == tuple(range(layers))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_model_without_weights_has_nothing_to_upload(algorithm):
    costs = LayerCosts([9, 9], [1, 1], [0, 0], [1] * 3, [1] * 3)
    assert upload_plan(costs, Link(1, 1), algorithm).partitions == ()


def test_equal_layers_without_transfer_costs():
    # All fractions are equal up to rounding: the search must still end.
    n = 400
    costs = LayerCosts([1e-3] * n, [1e-4] * n, [1e5] * n, [0] * (n + 1), [0] * (n + 1))
    assert sorted(upload_plan(costs, Link(1e7, 1e7)).layers) == list(range(n))


def test_cuts_that_nothing_may_cross():
    # 2^60 bytes stand for "never"; beside them, ordinary savings must not drown in rounding.
    bare = random_costs(4, 12, "classifier")
    cuts = bare.cut_up_bytes.copy()
    cuts[[3, 4, 7]] = 2.0**60
    costs = replace(bare, cut_up_bytes=cuts, cut_down_bytes=cuts)
    for link in LINKS:
        exact = mean_s(costs, link, upload_plan(costs, link, "exact"))
        assert mean_s(costs, link, upload_plan(costs, link)) <= 1.01 * exact
        placement = ("client", *route(costs, link, costs.weighted).placement, "client")
        assert all(placement[cut] == placement[cut + 1] for cut in (3, 4, 7))


@pytest.mark.parametrize("algorithm", ["efficiency", "ionn", "exact"])
def test_coding_decides_which_layers_come_first(algorithm):
    # Alike but for the coding at the cuts around layer 0, which eats most of its gain.
    costs = LayerCosts(
        [50, 50], [1, 1], [10, 10], [5] * 3, [5] * 3, cut_up_s=[40, 0, 0], cut_down_s=[0, 0, 0]
    )
    assert upload_plan(costs, Link(1, 1), algorithm).layers[0] == 1


def test_shared_weights_bring_their_owner():
    # The embedding (0) is worth nothing on the edge by itself; the head (2) uses its weights.
    costs = LayerCosts([0, 5, 100], [0, 5, 1], [10, 10, 0], [1] * 4, [1] * 4, shared=[(2, 0)])
    plan = upload_plan(costs, Link(1, 1))
    assert plan.partitions == ((0,), (1,))
    assert route(costs, Link(1, 1), {0}).placement == ("client", "client", "edge")


@given(seeds, st.integers(2, 9), st.data())
def test_efficiency_never_ends_slower_than_it_began_with_shared_weights(seed, layers, data):
    bare = random_costs(seed, layers)
    pair = st.tuples(st.integers(0, layers - 1), st.integers(0, layers - 1))
    costs = replace(bare, shared=tuple(data.draw(st.lists(pair, max_size=4))))
    plan = upload_plan(costs, LINKS[1])
    latencies = [point.latency_s for point in timeline(costs, LINKS[1], plan).points]
    assert sorted(plan.layers) == list(costs.weighted)
    assert latencies == sorted(latencies, reverse=True)
    assert latencies[-1] == pytest.approx(route(costs, LINKS[1], costs.weighted).latency_s)


def test_all_at_once_and_front_to_back():
    costs = LayerCosts([1] * 4, [1] * 4, [1, 0, 1, 1], [1] * 5, [1] * 5)
    assert upload_plan(costs, Link(1, 1), "all-at-once").partitions == ((0, 2, 3),)
    assert upload_plan(costs, Link(1, 1), "front-to-back").partitions == ((0,), (2,), (3,))


@pytest.mark.parametrize("unknown", ["best", "", None, 1, ["efficiency"], float("nan")])
def test_refuses_unknown_algorithms(unknown):
    with pytest.raises(ValueError, match=r"no upload algorithm .*; there are efficiency"):
        upload_plan(random_costs(0, 3), LINKS[0], unknown)


def test_a_plan_lists_its_layers_in_upload_order():
    assert UploadPlan("x", ((2, 1), (0,))).layers == (2, 1, 0)


@pytest.mark.parametrize("algorithm", ["efficiency", "emdl"])
def test_a_few_bytes_beside_very_many_are_ordered_too(algorithm):
    sizes = [1e18, 1, 3, 1e17]
    costs = LayerCosts([1e-9, 5, 1e-9, 3], [1e-9] * 4, sizes, [1e9, 1, 5, 1, 3], [1, 1e9, 1, 1, 0])
    assert upload_plan(costs, Link(1e6, 1e6), algorithm).layers[0] == 1
