from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import LayerCosts, Link, route, timeline, upload_plan
from planner.upload import UploadPlan
from tests.planner.tables import costs_and_links, random_costs


def latency_at(costs, link, plan, ack, now):
    """What a query started at `now` takes, from first principles: which layers are known there."""
    known, sent = set(), 0.0
    for partition in plan.partitions:
        arrived = set()
        for layer in partition:
            sent += costs.weight_bytes[layer]
            arrived.add(layer)
            if ack == "layer" and sent / link.up_Bps + link.rtt_s <= now:
                known |= arrived
        if sent / link.up_Bps + link.rtt_s <= now:
            known |= arrived
    return route(costs, link, known).latency_s


@given(
    costs_and_links(most=5),
    st.sampled_from(("efficiency", "ionn", "all-at-once", "front-to-back")),
    st.sampled_from(("layer", "partition")),
    st.one_of(st.none(), st.integers(0, 60)),
)
def test_equals_numerical_integration(table, algorithm, ack, horizon_s):
    costs, link = table
    plan = upload_plan(costs, link, algorithm)
    found = timeline(costs, link, plan, ack=ack, horizon_s=horizon_s)
    if found.horizon_s == 0:
        assert found.mean_latency_s == route(costs, link).latency_s
        return
    # Between the moments at which something can arrive nothing changes: midpoints are exact.
    sizes = costs.weight_bytes[list(plan.layers)].cumsum() if plan.layers else []
    moments = {min(size / link.up_Bps + link.rtt_s, found.horizon_s) for size in sizes}
    moments = sorted(moments | {0.0, found.horizon_s})
    area = sum(
        (b - a) * latency_at(costs, link, plan, ack, (a + b) / 2) for a, b in pairwise(moments)
    )
    assert found.mean_latency_s == pytest.approx(area / found.horizon_s)


@given(costs_and_links(most=6), st.sampled_from(("layer", "partition")))
def test_points_tell_when_what_is_there(table, ack):
    costs, link = table
    plan = upload_plan(costs, link)
    points = timeline(costs, link, plan, ack=ack).points
    assert points[0].time_s == 0
    assert points[0].latency_s == route(costs, link).latency_s
    assert points[-1].uploaded_bytes == costs.total_bytes
    assert len(points) == 1 + len(plan.layers if ack == "layer" else plan.partitions)
    for point in points[1:]:
        assert point.time_s == point.uploaded_bytes / link.up_Bps + link.rtt_s
        assert point.latency_s == pytest.approx(latency_at(costs, link, plan, ack, point.time_s))
    assert [point.layer for point in points[1:]] == (
        list(plan.layers) if ack == "layer" else [None] * len(plan.partitions)
    )


def test_hand_computed_steps():
    costs = LayerCosts([10, 20], [1, 2], [40, 80], [0, 0, 0], [0, 0, 0])
    link, plan = Link(10, 10, 2.0), UploadPlan("by hand", ((1, 0),))
    # Layer 1 is known at 80 / 10 + 2, all at 120 / 10 + 2; a visit to the edge costs 2.
    by_layer = timeline(costs, link, plan)
    assert [(p.time_s, p.latency_s) for p in by_layer.points] == [(0, 30), (10, 14), (14, 5)]
    assert by_layer.horizon_s == 14
    assert by_layer.mean_latency_s == pytest.approx((10 * 30 + 4 * 14) / 14)
    by_partition = timeline(costs, link, plan, ack="partition")
    assert [(p.time_s, p.latency_s) for p in by_partition.points] == [(0, 30), (14, 5)]
    assert by_partition.mean_latency_s == pytest.approx(30)
    longer = timeline(costs, link, plan, horizon_s=28)
    assert longer.mean_latency_s == pytest.approx((10 * 30 + 4 * 14 + 14 * 5) / 28)
    assert timeline(costs, link, plan, horizon_s=5).mean_latency_s == pytest.approx(30)
    assert timeline(costs, link, plan, horizon_s=0).mean_latency_s == pytest.approx(30)


def test_layers_that_a_plan_leaves_out_stay_on_the_client():
    costs = LayerCosts([10, 20], [1, 2], [40, 80], [0, 0, 0], [0, 0, 0])
    found = timeline(costs, Link(10, 10), UploadPlan("half", ((1,),)))
    assert found.horizon_s == 12  # as for a whole upload, so that means compare
    assert found.points[-1].latency_s == 12
    assert found.mean_latency_s == pytest.approx((8 * 30 + 4 * 12) / 12)


def test_nothing_to_upload():
    costs = LayerCosts([10], [1], [0], [1, 1], [1, 1])
    found = timeline(costs, Link(1, 1), upload_plan(costs, Link(1, 1)))
    assert (found.mean_latency_s, found.horizon_s, len(found.points)) == (3, 0, 1)


def test_layers_with_shared_weights_come_with_the_later_of_the_two():
    costs = LayerCosts([9, 9], [1, 1], [4, 4], [0] * 3, [0] * 3, shared=[(0, 1)])
    latencies = [
        [p.latency_s for p in timeline(costs, Link(1, 1), UploadPlan("", (order,))).points]
        for order in ((0, 1), (1, 0))
    ]
    assert latencies == [[18, 18, 2], [18, 10, 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ack": "byte"}, "ack is 'layer' or 'partition'"),
        ({"horizon_s": -1.0}, "horizon_s"),
        ({"horizon_s": float("nan")}, "horizon_s"),
        ({"horizon_s": float("inf")}, "horizon_s"),
        ({"horizon_s": "1"}, "horizon_s"),
        ({"plan": UploadPlan("", ((7,),))}, "layer 7 of 1"),
        ({"plan": UploadPlan("", ((-1,),))}, "layer -1 of 1"),
        ({"plan": UploadPlan("", ((0.0,),))}, "layer 0.0 of 1"),
        ({"plan": UploadPlan("", ((None,),))}, "layer None of 1"),
    ],
)
def test_refuses_what_makes_no_sense(arguments, message):
    costs = LayerCosts([10], [1], [1], [1, 1], [1, 1])
    arguments = {"plan": UploadPlan("", ((0,),)), **arguments}
    with pytest.raises(ValueError, match=message):
        timeline(costs, Link(1, 1), **arguments)


@pytest.mark.parametrize("partitions", [5, None, (0, 1), ((None,),), (("a",),)])
def test_partitions_that_hold_no_layers_are_refused(partitions):
    costs, link = random_costs(0, 2), Link(1e6, 1e6)
    with pytest.raises(ValueError, match="plan"):
        timeline(costs, link, UploadPlan("mine", partitions))
