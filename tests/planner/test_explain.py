"""Reasons and changes, against every placement in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    LATENCY,
    RADIOS,
    LayerCosts,
    Link,
    Objective,
    Placement,
    Power,
    Radio,
    Where,
    cheapest_path,
    explain,
    mobile_energy,
)
from planner.changes import DIALS, Dial
from tests.planner.tables import costs_and_links, random_costs

SIDES: tuple[Where, ...] = ("client", "edge")
POWER = Power(3, 1, Radio(0.5, 0.25, 2, "small numbers"))
OBJECTIVES = (LATENCY, Objective(2, 0, POWER), Objective(1, 3, POWER), mobile_energy(POWER))
RECIPROCAL = ("up_Bps", "down_Bps", "device_speed")


def exact_price(
    costs: LayerCosts, link: Link, objective: Objective, placement: Placement, **dials: Fraction
) -> Fraction:
    """What `placement` costs with dials (reciprocals as such) set, from the model's definition."""
    now = {
        "up_Bps": 1 / Fraction(link.up_Bps),
        "down_Bps": 1 / Fraction(link.down_Bps),
        "rtt_s": Fraction(link.rtt_s),
        "server_load": Fraction(1),
        "device_speed": Fraction(1),
        "s_per_J": Fraction(objective.J_weight) / Fraction(objective.s_weight or 1),
    } | dials
    power = objective.power or POWER
    s_weight = Fraction(objective.s_weight)
    J_weight = s_weight * now["s_per_J"] if s_weight else Fraction(objective.J_weight)
    total = Fraction(0)

    def spend(seconds: Fraction, watts: float) -> None:
        nonlocal total
        total += seconds * (s_weight + J_weight * Fraction(watts))

    sides = ("client", *placement, "client")
    for i, (before, after) in enumerate(pairwise(sides)):
        if before != after:
            up = after == "edge"
            size = Fraction((costs.cut_up_bytes if up else costs.cut_down_bytes)[i])
            radio = power.radio
            spend(size * now["up_Bps" if up else "down_Bps"], power.idle_W + radio.base_W)
            total += J_weight * size * Fraction(radio.up_W_per_Bps if up else radio.down_W_per_Bps)
            spend(now["rtt_s"] / 2, power.idle_W)
            spend(Fraction((costs.cut_up_s if up else costs.cut_down_s)[i]), power.compute_W)
        if i < len(placement):
            if after == "client":
                spend(Fraction(costs.client_s[i]) * now["device_speed"], power.compute_W)
            else:
                spend(Fraction(costs.edge_s[i]) * now["server_load"], power.idle_W)
    return total


def placements(available: list[bool]) -> Iterator[Placement]:
    return product(*(SIDES if may else ("client",) for may in available))


def turned(costs: LayerCosts, link: Link, objective: Objective, dial: Dial, value: float):
    """The inputs with a dial at `value`, as an application would give them."""
    if dial in ("up_Bps", "down_Bps", "rtt_s"):
        return costs, replace(link, **{dial: value}), objective
    if dial == "server_load":
        return replace(costs, edge_s=costs.edge_s * value), link, objective
    if dial == "device_speed":
        return replace(costs, client_s=costs.client_s / value), link, objective
    return costs, link, replace(objective, J_weight=objective.s_weight * value)


tables = costs_and_links(most=5)
objectives = st.sampled_from(OBJECTIVES)
subsets = st.one_of(st.none(), st.sets(st.integers(0, 5)))


@settings(deadline=None)
@given(tables, objectives, subsets)
def test_no_change_is_missed_and_none_made_up(
    table: tuple[LayerCosts, Link], objective: Objective, uploaded: set[int] | None
) -> None:
    costs, link = table
    there = None if uploaded is None else {i for i in uploaded if i < len(costs)}
    available = [True] * len(costs) if there is None else costs.available(there)
    found = explain(costs, link, there, objective)
    told = {(change.dial, change.rises): change for change in found.changes}
    assert len(told) == len(found.changes)
    for dial in DIALS:
        if dial == "s_per_J" and (objective.power is None or not objective.s_weight):
            assert (dial, True) not in told
            assert (dial, False) not in told
            continue

        def line(placement: Placement, dial: Dial = dial) -> tuple[Fraction, Fraction]:
            ends = [
                exact_price(costs, link, objective, placement, **{dial: Fraction(x)})
                for x in (0, 1)
            ]
            return ends[0], ends[1] - ends[0]

        fixed, slope = line(found.placement)
        lines = {placement: line(placement) for placement in placements(available)}
        for grows in (True, False):
            meets = {
                placement: (other - fixed) / (slope - rate)
                for placement, (other, rate) in lines.items()
                if (rate < slope if grows else rate > slope)
            }
            change = told.get((dial, grows != (dial in RECIPROCAL)))
            ours = [x for x in meets.values() if x > 0 or grows]
            if not ours:
                assert change is None
                continue
            assert change is not None
            nearest = min(ours) if grows else max(ours)
            at = 1 / change.at if dial in RECIPROCAL else change.at
            assert at == pytest.approx(float(nearest), rel=1e-9, abs=1e-12)
            # Just beyond, the cheapest is the one of those that meet here that turns the most.
            slopes = [lines[p][1] for p, x in meets.items() if x == nearest]
            assert meets[change.placement] == nearest
            assert lines[change.placement][1] == (min(slopes) if grows else max(slopes))


@given(tables, objectives)
def test_at_a_change_both_placements_are_the_cheapest(
    table: tuple[LayerCosts, Link], objective: Objective
) -> None:
    found = explain(*table, objective=objective)
    for change in found.changes:
        assert change.moved
        assert (change.at >= change.now) if change.rises else (change.at <= change.now)
        costs, link, there = turned(*table, objective, change.dial, change.at)
        prices = there.prices(costs, link)
        least, _ = cheapest_path(prices)
        for placement in (found.placement, change.placement):
            assert prices.along(placement) == pytest.approx(least, rel=1e-9)
        assert change.price == pytest.approx(least, rel=1e-9)


@given(tables, objectives, subsets)
def test_a_reason_is_the_cheapest_route_with_the_layer_elsewhere(
    table: tuple[LayerCosts, Link], objective: Objective, uploaded: set[int] | None
) -> None:
    costs, link = table
    there = None if uploaded is None else {i for i in uploaded if i < len(costs)}
    available = [True] * len(costs) if there is None else costs.available(there)
    found = explain(costs, link, there, objective)
    prices = objective.prices(costs, link)
    assert found.price == pytest.approx(prices.along(found.placement))
    assert [reason.layer for reason in found.reasons] == list(range(len(costs)))
    for i, reason in enumerate(found.reasons):
        assert reason.where == found.placement[i]
        assert reason.uploaded == available[i]
        forced = ["edge"] if reason.where == "client" else ["client"]
        choices = [SIDES if may else ("client",) for may in available]
        choices[i] = tuple(forced)
        least = min(prices.along(placement) for placement in product(*choices))
        assert reason.extra == pytest.approx(least - found.price, abs=1e-9)
        assert reason.computing + reason.transfer == pytest.approx(reason.extra, abs=1e-9)
        assert reason.start <= i < reason.stop
        flipped = tuple(
            ("edge" if where == "client" else "client")
            if reason.start <= j < reason.stop
            else where
            for j, where in enumerate(found.placement)
        )
        assert prices.along(flipped) == pytest.approx(least, abs=1e-9)


def test_a_slower_uplink_brings_layers_home() -> None:
    costs = LayerCosts([1.0, 1.0], [0.1, 0.1], [5, 5], [100, 10, 1], [100, 10, 1])
    found = explain(costs, Link(1000.0, 1e9))
    assert found.placement == ("edge", "edge")
    change = next(c for c in found.changes if c.dial == "up_Bps")
    # 100 bytes at the edge's times against 1 s more and 10 bytes: 90 bytes in 0.9 s.
    assert (change.rises, change.placement, change.moved) == (False, ("client", "edge"), (0,))
    assert change.at == pytest.approx(100.0, rel=1e-6)


def test_a_layer_whose_weights_are_missing_says_what_they_would_bring() -> None:
    costs = LayerCosts([1.0], [0.1], [5], [1, 1], [1, 1], names=["fc"])
    (reason,) = explain(costs, Link(1e3, 1e3), uploaded=()).reasons
    assert (reason.name, reason.uploaded, reason.where) == ("fc", False, "client")
    assert reason.extra == pytest.approx(0.1 + 2e-3 - 1.0)


def test_deep_models_and_real_radios_are_explained() -> None:
    power = Power(3.0, 1.0, RADIOS["wifi"])
    for seed in range(5):
        costs, link = random_costs(seed, 200), Link(2.36e6, 6.87e6, 0.01)
        found = explain(costs, link, objective=Objective(1.0, 0.1, power))
        for change in found.changes:
            args = turned(costs, link, Objective(1.0, 0.1, power), change.dial, change.at)
            prices = args[2].prices(args[0], args[1])
            assert prices.along(change.placement) == pytest.approx(cheapest_path(prices)[0])


def test_an_empty_model_has_nothing_to_explain() -> None:
    found = explain(LayerCosts([], [], [], [1], [1]), Link(1, 1))
    assert (found.reasons, found.changes, found.price) == ((), (), 0.0)


def test_layers_that_do_not_exist_are_refused() -> None:
    costs = LayerCosts([1.0], [0.1], [5], [1, 1], [1, 1])
    with pytest.raises(ValueError, match="uploaded"):
        explain(costs, Link(1, 1), uploaded={1})
