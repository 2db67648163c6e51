"""Payback: joules of an upload against joules saved, second by second as the oracle."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner import (
    LATENCY,
    LayerCosts,
    Link,
    Objective,
    Power,
    Radio,
    UploadPlan,
    mobile_energy,
    payback,
    query_energy_J,
    route,
    upload_energy_J,
    upload_plan,
    worth_uploading,
)
from planner.payback import HourExceeded
from tests.planner.tables import costs_and_links, powers, random_costs, seeds

# One layer of 100 bytes, 10 s to upload; then a query draws 2 J instead of 20.
LINK = Link(10, 10)
COSTS = LayerCosts([10], [1], [100], [5, 0], [0, 0])
POWER = Power(2.0, 0.0, Radio(0.2, 0.2, 2.0))  # sends at 4 W: 40 J for the layer
PLAN = UploadPlan("front-to-back", ((0,),))


def written_out(costs, link, power, layers, stay_s, queries_per_h, objective):
    """Joules (spent, saved), interval by interval, with a route for each."""
    sent = 0.0
    arrivals = [(0.0, frozenset())]
    for layer in layers:
        sent += costs.weight_bytes[layer]
        arrivals.append((sent / link.up_Bps + link.rtt_s, arrivals[-1][1] | {layer}))

    def above_idle_J(uploaded):
        found = route(costs, link, uploaded, objective)
        drawn_J = query_energy_J(costs, link, power, found.placement)
        return drawn_J - power.idle_W * found.latency_s

    saved = 0.0
    ends = [time for time, _ in arrivals[1:]] + [math.inf]
    for (begin, uploaded), end in zip(arrivals, ends, strict=True):
        lasting = max(0.0, min(end, stay_s) - begin)
        gain = above_idle_J(frozenset()) - above_idle_J(uploaded)
        saved += lasting * queries_per_h / 3600 * gain
    spent = min(stay_s, sent / link.up_Bps) * power.radio.sending_W(link.up_Bps)
    return spent, saved


objectives = st.sampled_from(("latency", "energy", "both"))


def objective_of(name, power):
    return {
        "latency": LATENCY, "energy": mobile_energy(power), "both": Objective(1.0, 0.5, power)
    }[name]  # fmt: skip


@given(costs_and_links(most=6), powers(), st.integers(0, 40), st.integers(0, 60), objectives)
def test_equals_the_sum_over_intervals(table, power, stay_s, queries_per_h, name):
    costs, link = table
    objective = objective_of(name, power)
    plan = upload_plan(costs, link)
    found = payback(costs, link, power, plan, stay_s, queries_per_h, objective)
    expected = written_out(costs, link, power, plan.layers, stay_s, queries_per_h, objective)
    assert (found.spent_J, found.saved_J) == pytest.approx(expected)
    assert found.net_J == pytest.approx(expected[1] - expected[0])


@given(costs_and_links(most=6), powers(), st.integers(1, 60), objectives)
def test_at_break_even_nothing_is_gained_and_later_never_lost(table, power, queries_per_h, name):
    costs, link = table
    objective = objective_of(name, power)
    plan = upload_plan(costs, link)

    def net_J(stay_s):
        return payback(costs, link, power, plan, stay_s, queries_per_h, objective).net_J

    moment = payback(costs, link, power, plan, 0, queries_per_h, objective).break_even_s
    if moment is None:
        assert net_J(1e4) < 0
        return
    assert net_J(moment) == pytest.approx(0, abs=1e-6)
    assert all(net_J(moment + later) >= -1e-6 for later in (0.1, 1, 10, 1000))
    assert moment == 0 or net_J(moment * (1 - 1e-3)) < 1e-9


@given(costs_and_links(most=6), powers(), st.integers(0, 60), st.integers(0, 60), objectives)
def test_what_is_worth_uploading_is_the_best_of_all_first_partitions(
    table, power, stay_s, queries_per_h, name
):
    costs, link = table
    objective = objective_of(name, power)
    plan = upload_plan(costs, link)
    prefixes = [
        UploadPlan(plan.algorithm, plan.partitions[:k]) for k in range(len(plan.partitions) + 1)
    ]
    nets = [
        payback(costs, link, power, prefix, stay_s, queries_per_h, objective).net_J
        for prefix in prefixes
    ]
    found = worth_uploading(costs, link, power, plan, stay_s, queries_per_h, objective)
    assert found in prefixes
    assert nets[len(found.partitions)] == pytest.approx(max(nets), abs=1e-9)


def test_the_joules_of_one_layer_by_hand():
    # 36 queries an hour: 0.01 a second, each saving 20 - 0.5 * 4 J once the layer is there.
    found = payback(COSTS, LINK, POWER, PLAN, stay_s=110, queries_per_h=36)
    assert found.spent_J == pytest.approx(40)
    assert found.saved_J == pytest.approx(100 * 0.01 * 18)
    assert found.break_even_s == pytest.approx(10 + 40 / 0.18)


def test_leaving_early_does_not_pay_and_staying_does():
    early = payback(COSTS, LINK, POWER, PLAN, stay_s=200, queries_per_h=36)
    late = payback(COSTS, LINK, POWER, PLAN, stay_s=300, queries_per_h=36)
    assert early.net_J < 0 < late.net_J
    assert early.break_even_s == late.break_even_s
    assert worth_uploading(COSTS, LINK, POWER, PLAN, 200, 36).partitions == ()
    assert worth_uploading(COSTS, LINK, POWER, PLAN, 300, 36) == PLAN


def test_leaving_during_the_upload_spends_its_part():
    found = payback(COSTS, LINK, POWER, PLAN, stay_s=5, queries_per_h=36)
    assert (found.spent_J, found.saved_J) == (pytest.approx(20), 0.0)


def test_without_queries_nothing_is_ever_paid_back():
    assert payback(COSTS, LINK, POWER, PLAN, 1e6, 0).break_even_s is None


def test_a_faster_route_may_draw_more_and_never_pay():
    hungry = Power(0.1, 0.0, Radio(1.0, 1.0, 5.0))
    found = payback(COSTS, LINK, hungry, PLAN, 1e4, 36)
    assert found.saved_J < 0
    assert found.break_even_s is None
    assert payback(COSTS, LINK, hungry, PLAN, 1e4, 36, mobile_energy(hungry)).saved_J == 0.0


def test_an_empty_plan_costs_nothing_and_owes_nothing():
    found = payback(COSTS, LINK, POWER, UploadPlan("ionn", ()), 100, 36)
    assert (found.spent_J, found.saved_J, found.break_even_s) == (0.0, 0.0, 0.0)


@given(seeds)
def test_a_whole_upload_spends_its_bytes(seed):
    costs, link = random_costs(seed, 8), Link(1e6, 1e6, 0.01)
    plan = upload_plan(costs, link)
    found = payback(costs, link, POWER, plan, 1e9, 1)
    assert found.spent_J == pytest.approx(upload_energy_J(costs.total_bytes, link, POWER))


@given(costs_and_links(least=1))
def test_queries_that_fill_more_than_an_hour_are_refused(table):
    costs, link = table
    slowest_s = route(costs, link).latency_s
    assume(slowest_s > 0)
    with pytest.raises(HourExceeded, match="queries_per_h") as refused:
        payback(costs, link, POWER, upload_plan(costs, link), 1, 3601 / slowest_s)
    assert refused.value.most_per_h == pytest.approx(3600 / slowest_s)
    payback(costs, link, POWER, upload_plan(costs, link), 1, refused.value.most_per_h)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_numbers_are_refused_by_name(wrong):
    for judge in (payback, worth_uploading):
        with pytest.raises(ValueError, match="stay_s"):
            judge(COSTS, LINK, POWER, PLAN, wrong, 1)
        with pytest.raises(ValueError, match="queries_per_h"):
            judge(COSTS, LINK, POWER, PLAN, 1, wrong)


@pytest.mark.parametrize("layer", [-1, 1])
def test_plans_of_layers_that_do_not_exist_are_refused(layer):
    with pytest.raises(ValueError, match=f"layer {layer} of 1"):
        payback(COSTS, LINK, POWER, UploadPlan("ionn", ((layer,),)), 1, 1)
