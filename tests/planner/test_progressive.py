from dataclasses import replace
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner import LayerCosts, Link, Plane, ProgressivePlan, route, timeline, upload_plan
from planner.efficiency import efficiency_blocks
from planner.progressive import (
    PRECISION_NOISE,
    mantissa_noise,
    progressive_plan,
    progressive_timeline,
)
from tests.planner.tables import LINKS, costs_and_links, random_costs, seeds


@st.composite
def planned(draw, most=5, most_planes=3):
    """Costs with shared weights, a link, and planes of which some are there already."""
    costs, link = draw(costs_and_links(most=most))
    n = len(costs)
    planes = []
    for size in costs.weight_bytes:
        count = draw(st.integers(1, most_planes)) if size else 0
        noises = sorted(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))[::-1]
        there = draw(st.integers(0, count))
        sizes = [0 if k < there else draw(st.integers(0, 6)) for k in range(count)]
        planes.append(tuple(map(Plane, sizes, noises)))
    pairs = [(layer, owner) for layer in range(n) for owner in range(n) if planes[owner]]
    shared = draw(st.lists(st.sampled_from(pairs), max_size=3)) if pairs else []
    return replace(costs, shared=tuple(shared)), link, tuple(planes)


def first_planes(costs, planes):
    return replace(costs, weight_bytes=[own[0].missing_bytes if own else 0 for own in planes])


def runs_at(costs, link, planes, arrived):
    """Latency and noise with the arrived (layer, plane)s, written out."""

    def there(layer, plane):
        return not planes[layer][plane].missing_bytes or (layer, plane) in arrived

    def weights_of(layer):
        owners = [owner for used_by, owner in costs.shared if used_by == layer]
        return [w for w in {layer, *owners} if planes[w]]

    def noise_of(layer):
        known = 0
        while known < len(planes[layer]) and there(layer, known):
            known += 1
        return planes[layer][known - 1].noise if known else 0.0

    usable = [all(there(w, 0) for w in weights_of(layer)) for layer in range(len(costs))]
    # A table in which a layer weighs something exactly when it cannot run on the edge.
    here = replace(costs, weight_bytes=[0.0 if can else 1.0 for can in usable], shared=())
    best = route(here, link)
    on_edge = [layer for layer, where in enumerate(best.placement) if where == "edge"]
    return best.latency_s, sum(noise_of(w) for layer in on_edge for w in weights_of(layer))


@given(planned())
def test_plans_hold_every_missing_plane_once_in_order(table):
    costs, link, planes = table
    steps = progressive_plan(costs, link, planes).steps
    missing = {(i, k) for i, own in enumerate(planes) for k, p in enumerate(own) if p.missing_bytes}
    assert len(steps) == len(missing)
    assert set(steps) == missing
    for layer in range(len(costs)):
        own = [plane for i, plane in steps if i == layer]
        assert own == sorted(own)
    assert all(progressive_plan(costs, link, planes).partitions)


@given(planned())
def test_first_planes_go_in_the_efficiency_order_of_their_bytes(table):
    costs, link, planes = table
    steps = progressive_plan(costs, link, planes).steps
    plan = upload_plan(first_planes(costs, planes), link)
    assert tuple(layer for layer, plane in steps if plane == 0) == plan.layers


@given(planned())
def test_first_planes_that_pay_come_before_all_else_and_those_that_do_not_after_refinement(table):
    costs, link, planes = table
    first = first_planes(costs, planes)
    paying, rest = efficiency_blocks(first, link)
    plan = progressive_plan(costs, link, planes)
    blocks = tuple(tuple((layer, 0) for layer in block) for block in paying)
    assert plan.partitions[: len(blocks)] == blocks
    placement = route(first, link, {layer for block in paying for layer in block}).placement
    refined = {layer for layer, where in enumerate(placement) if where == "edge"}
    refined |= {owner for layer, owner in costs.shared if placement[layer] == "edge"}
    steps = plan.steps[sum(map(len, blocks)) :]
    if rest:
        before = steps[: steps.index((rest[0], 0))]
        assert {layer for layer, _ in before} <= refined
        assert not {layer for layer, _ in steps[len(before) :]} & refined


@settings(max_examples=300, deadline=None)
@given(planned(most=4))
def test_refinement_has_the_least_area_of_all_orders(table):
    costs, link, planes = table
    first = first_planes(costs, planes)
    paying, rest = efficiency_blocks(first, link)
    arrived = {(layer, 0) for block in paying for layer in block}
    later = [step for step in progressive_plan(costs, link, planes).steps if step not in arrived]
    refinement = later[: later.index((rest[0], 0))] if rest else later
    assume(len(refinement) <= 6)
    known = {}

    def area(order):
        total, there = 0.0, frozenset(arrived)
        for layer, plane in order:
            if there not in known:
                known[there] = runs_at(costs, link, planes, there)[1]
            total += known[there] * planes[layer][plane].missing_bytes
            there |= {(layer, plane)}
        return total

    def in_order(order):
        return all(a[0] != b[0] or a[1] < b[1] for i, b in enumerate(order) for a in order[:i])

    least = min(area(order) for order in permutations(refinement) if in_order(order))
    assert area(refinement) == pytest.approx(least)


@given(planned(), st.one_of(st.none(), st.integers(0, 60)))
def test_timeline_equals_numerical_integration(table, horizon_s):
    costs, link, planes = table
    plan = progressive_plan(costs, link, planes)
    found = progressive_timeline(costs, link, planes, plan, horizon_s)
    arrived, size = set(), 0.0
    expected = [(0.0, *runs_at(costs, link, planes, arrived))]
    for layer, plane in plan.steps:
        size += planes[layer][plane].missing_bytes
        arrived.add((layer, plane))
        time_s = size / link.up_Bps + link.rtt_s
        expected.append((time_s, *runs_at(costs, link, planes, arrived)))
    for point, (time_s, latency_s, noise) in zip(found.points, expected, strict=True):
        assert (point.time_s, point.latency_s) == (time_s, pytest.approx(latency_s))
        assert point.noise == noise
    until = [min(p.time_s, found.horizon_s) for p in found.points[1:]] + [found.horizon_s]
    if found.horizon_s:
        widths = [b - a for a, b in pairwise([0.0, *until])]
        for mean, values in (
            (found.mean_latency_s, [p.latency_s for p in found.points]),
            (found.mean_noise, [p.noise for p in found.points]),
        ):
            area = sum(width * value for width, value in zip(widths, values, strict=True))
            assert mean == pytest.approx(area / found.horizon_s)
    else:
        assert found.mean_latency_s == found.points[0].latency_s


@given(costs_and_links(most=6))
def test_weights_sent_whole_are_planned_as_ever(table):
    costs, link = table
    planes = [(Plane(size, 0.0),) if size else () for size in costs.weight_bytes]
    plan, exact = progressive_plan(costs, link, planes), upload_plan(costs, link)
    assert plan.partitions == tuple(tuple((i, 0) for i in part) for part in exact.partitions)
    found = progressive_timeline(costs, link, planes, plan)
    expected = timeline(costs, link, exact)
    assert found.mean_latency_s == pytest.approx(expected.mean_latency_s)
    assert found.horizon_s == expected.horizon_s
    assert found.mean_noise == 0
    assert [(p.time_s, p.uploaded_bytes, p.partition, p.layer) for p in found.points] == [
        (p.time_s, p.uploaded_bytes, p.partition, p.layer) for p in expected.points
    ]


@given(seeds, st.integers(1, 12), st.sampled_from(LINKS))
def test_a_quarter_of_the_bytes_first_is_never_slower_and_ends_exact(seed, layers, link):
    costs = random_costs(seed, layers)
    planes = [
        (Plane(size / 4, mantissa_noise(3)), Plane(size * 3 / 4, 0.0)) if size else ()
        for size in costs.weight_bytes.tolist()
    ]
    exact = timeline(costs, link, upload_plan(costs, link))
    plan = progressive_plan(costs, link, planes)
    found = progressive_timeline(costs, link, planes, plan, exact.horizon_s)
    assert found.mean_latency_s <= exact.mean_latency_s * (1 + 1e-9)
    assert found.points[-1].latency_s == pytest.approx(exact.points[-1].latency_s)
    assert found.points[-1].noise == 0


def free_to_cross(layers, **extra):
    return LayerCosts(
        [9] * layers, [1] * layers, [1] * layers, [0] * (layers + 1), [0] * (layers + 1), **extra
    )


def test_refines_by_noise_removed_per_byte():
    small = (Plane(4, 16.0), Plane(1, 2.0), Plane(4, 0.0))  # 14 and 0.5 per byte
    large = (Plane(40, 16.0), Plane(10, 2.0), Plane(40, 0.0))  # 1.4 and 0.05 per byte
    plan = progressive_plan(free_to_cross(2), Link(1, 1), (large, small))
    assert plan.partitions == (
        ((1, 0),), ((0, 0),), ((1, 1),), ((0, 1),), ((1, 2),), ((0, 2),),
    )  # fmt: skip


@given(planned(), st.data())
def test_what_makes_layers_slower_changes_no_order_but_its_own(table, data):
    costs, link, planes = table
    slower = [data.draw(st.sampled_from([0.0, 1.0, 5.0])) for _ in planes]
    steps = progressive_plan(costs, link, planes, slower).steps
    assert sorted(steps) == sorted(progressive_plan(costs, link, planes).steps)
    slowing = {
        (layer, len(own) - 1)
        for layer, own in enumerate(planes)
        if len(own) > 1 and slower[layer] and own[-1].missing_bytes
    }
    # The rest is in the order in which it would be if what slows were not there.
    short = [
        own[:-1] if (layer, len(own) - 1) in slowing else own for layer, own in enumerate(planes)
    ]
    rest = [step for step in steps if step not in slowing]
    assert rest == list(progressive_plan(costs, link, short).steps)


def test_of_planes_that_make_layers_slower_those_that_add_least_per_byte_go_first():
    alike = (Plane(1, 16.0), Plane(1, 2.0), Plane(4, 0.0))
    large = (Plane(1, 16.0), Plane(1, 2.0), Plane(40, 0.0))
    planes = (alike, large, alike)
    plan = progressive_plan(free_to_cross(3), Link(1, 1), planes, [1.0, 2.0, 0.0])
    assert plan.steps[-3:] == ((2, 2), (1, 2), (0, 2))


@pytest.mark.parametrize("slower", [[1.0], 5, "ab", [0.0, -1.0], [0.0, float("nan")], [None, 0.0]])
def test_what_makes_no_sense_as_slower_is_refused_by_name(slower):
    with pytest.raises(ValueError, match="slower"):
        progressive_plan(free_to_cross(2), Link(1, 1), ((), ()), slower)


def test_a_plane_goes_early_for_the_sake_of_the_next():
    # The middle plane of layer 0 removes nothing itself, but opens the way for the last.
    opening, plain = (Plane(1, 9), Plane(1, 9), Plane(1, 0)), (Plane(1, 9), Plane(3, 0))
    plan = progressive_plan(free_to_cross(2), Link(1, 1), (opening, plain))
    assert plan.partitions[-2:] == (((0, 1), (0, 2)), ((1, 1),))


def test_noise_of_shared_weights_counts_for_each_layer_that_uses_them():
    alike = (Plane(1, 8.0), Plane(1, 0.0))
    costs = free_to_cross(3, shared=[(2, 1)])
    planes = (alike, alike, ())
    plan = progressive_plan(costs, Link(1, 1), planes)
    assert plan.partitions[-2:] == (((1, 1),), ((0, 1),))
    noise = [p.noise for p in progressive_timeline(costs, Link(1, 1), planes, plan).points]
    # Layer 1 first: its weights put two layers on the edge.
    assert noise == [0, 16, 24, 8, 0]


def test_a_layer_with_its_first_plane_there_is_only_refined():
    planes = ((Plane(0, 8.0), Plane(0, 4.0), Plane(3, 0.0)), (Plane(2, 1.0), Plane(1, 0.0)))
    costs, link = free_to_cross(2), Link(1, 1)
    plan = progressive_plan(costs, link, planes)
    assert plan.steps == ((1, 0), (0, 2), (1, 1))
    points = progressive_timeline(costs, link, planes, plan).points
    assert [(p.latency_s, p.noise) for p in points] == [(10, 4), (2, 5), (2, 1), (2, 0)]


def test_what_never_runs_on_the_edge_is_sent_last():
    planes = ((Plane(1, 8.0), Plane(9, 0.0)), (Plane(1, 8.0), Plane(1, 0.0)))
    costs = replace(free_to_cross(2), client_s=[9, 0])
    plan = progressive_plan(costs, Link(1, 1), planes)
    assert plan.steps == ((0, 0), (0, 1), (1, 0), (1, 1))


@pytest.mark.parametrize("bits", [3, 7])
def test_mantissa_noise_is_what_cut_weights_have(bits):
    weights = np.random.default_rng(0).normal(0, 0.05, 200_000).astype(np.float32)
    dropped = 23 - bits
    words = weights.view(np.uint32) >> dropped << dropped
    known = (words | (1 << dropped >> 1)).astype(np.uint32).view(np.float32)
    power = np.mean((known.astype(float) - weights) ** 2) / np.mean(weights.astype(float) ** 2)
    assert mantissa_noise(bits) == pytest.approx(power, rel=0.1)
    assert mantissa_noise(bits) == pytest.approx(0.18 * 2.0 ** (-2 * (bits + 1)), rel=0.01)


def test_noise_falls_with_precision():
    assert mantissa_noise(3) > PRECISION_NOISE["bfloat16"] > PRECISION_NOISE["exact"] == 0


@pytest.mark.parametrize("bits", [-1, 1.5, float("nan"), "3", None])
def test_refuses_numbers_of_bits_that_are_none(bits):
    with pytest.raises(ValueError, match="bits"):
        mantissa_noise(bits)


def test_a_model_without_layers_has_no_steps():
    costs, link = LayerCosts([], [], [], [4], [4]), Link(1, 1)
    plan = progressive_plan(costs, link, ())
    found = progressive_timeline(costs, link, (), plan)
    assert (plan.steps, found.mean_latency_s, found.mean_noise, found.horizon_s) == ((), 0, 0, 0)


@pytest.mark.parametrize("field", ["missing_bytes", "noise"])
@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "3", None])
def test_refuses_planes_that_make_no_sense(field, wrong):
    with pytest.raises(ValueError, match=field):
        Plane(**{"missing_bytes": 1.0, "noise": 1.0, field: wrong})


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ([()], "planes has 1 entries; 2 are needed"),
        ([(), (Plane(1, 0.1), Plane(1, 0.2))], r"planes\[1\] adds noise"),
        ([(), (1.0,)], r"planes\[1\] holds something that is no Plane"),
        ([(None,), ()], r"planes\[0\] holds something that is no Plane"),
    ],
)
def test_refuses_planes_that_do_not_fit(planes, message):
    with pytest.raises(ValueError, match=message):
        progressive_plan(free_to_cross(2), Link(1, 1), planes)
    with pytest.raises(ValueError, match=message):
        progressive_timeline(free_to_cross(2), Link(1, 1), planes, ProgressivePlan(()))


@pytest.mark.parametrize(
    ("steps", "horizon_s", "message"),
    [
        (((7, 0),), None, "plane 0 of layer 7"),
        (((0, 1),), None, "plane 1 of layer 0"),
        (((-1, 0),), None, "plane 0 of layer -1"),
        (((0.5, 0),), None, "plane 0 of layer 0.5"),
        (((0, "0"),), None, "plane 0 of layer 0"),
        (((0, 0), (0, 0)), None, "a step twice"),
        (((0, 0),), -1.0, "horizon_s"),
        (((0, 0),), float("nan"), "horizon_s"),
        (((0, 0),), "1", "horizon_s"),
    ],
)
def test_refuses_timelines_that_make_no_sense(steps, horizon_s, message):
    with pytest.raises(ValueError, match=message):
        progressive_timeline(
            free_to_cross(1), Link(1, 1), [(Plane(1, 0.0),)], ProgressivePlan((steps,)), horizon_s
        )


@pytest.mark.parametrize("planes", [5, None, "ab", [None, None], [1, 2]])
def test_planes_that_are_no_lists_are_refused_by_name(planes):
    with pytest.raises(ValueError, match="planes"):
        progressive_plan(random_costs(0, 2), LINKS[0], planes)
