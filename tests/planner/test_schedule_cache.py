"""Cached schedules: how far from the best they really are, and that only whole caches load."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import (
    RADIOS,
    LayerCosts,
    Link,
    Objective,
    Power,
    Where,
    battery,
    cheapest_path,
    latency_prices,
)
from planner.region import Region
from planner.schedule_cache import OutsideCache, ScheduleCache
from tests.planner.tables import costs_and_links, random_costs, seeds

SIDES: tuple[Where, ...] = ("client", "edge")
POWER = Power(3.0, 1.0, RADIOS["wifi"])
WIDE = Region((1e5, 5e7), (2e5, 5e7), (0.001, 0.1), (1.0, 8.0), (0.0, 2.0))
COSTS = random_costs(0, 12)
shares = st.floats(0, 1)


def within(low: float, high: float, share: float) -> float:
    return min(max(low + share * (high - low), low), high)


def inside(region: Region, at: list[float]) -> tuple[Link, float, float]:
    """Conditions in the region: a share of the way for each."""
    up, down, rtt_s, load, worth = (
        within(low, high, share)
        for (low, high), share in zip(region.ranges.values(), at, strict=True)
    )
    return Link(up, down, rtt_s), load, worth


def loaded(costs: LayerCosts, server_load: float) -> LayerCosts:
    return replace(costs, edge_s=costs.edge_s * server_load)


def check(cache: ScheduleCache, costs: LayerCosts, at: list[float]) -> None:
    link, load, worth = inside(cache.region, at)
    found = cache.lookup(link, load, worth)
    prices = Objective(1.0, worth, POWER).prices(loaded(costs, load), link)
    least, _ = cheapest_path(prices)
    price = prices.along(found.placement)
    assert found.price == pytest.approx(price, rel=1e-9, abs=1e-12)
    assert price - least <= found.regret + 1e-9 * price
    if cache.regret < float("inf"):
        assert found.regret <= cache.regret * least + 1e-9 * price


@st.composite
def regions(draw: st.DrawFn) -> Region:
    def ends(values: tuple[float, ...]) -> tuple[float, float]:
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        return min(a, b), max(a, b)

    return Region(
        ends((0.5, 1, 2, 8)), ends((0.25, 1, 4)), ends((0, 1, 2)), ends((0, 1, 5)), ends((0, 1, 3))
    )


at_points = st.lists(st.lists(shares, min_size=5, max_size=5), min_size=1, max_size=8)


@settings(deadline=None)
@given(costs_and_links(), regions(), st.sampled_from((0.0, 0.05)), at_points)
def test_the_true_regret_is_never_above_the_bound(
    table: tuple[LayerCosts, Link], region: Region, regret: float, points: list[list[float]]
) -> None:
    costs, _ = table
    cache = ScheduleCache.solve(costs, region, POWER, regret=regret, most_cells=24)
    assert cache.cells <= 24
    assert cache.regret <= regret + 1e-9 or cache.cells == 24
    for at in points:
        check(cache, costs, at)


@settings(deadline=None, max_examples=30)
@given(seeds, at_points)
def test_models_are_cached_within_what_was_asked(seed: int, points: list[list[float]]) -> None:
    costs = random_costs(seed, 30)
    region = replace(WIDE, rtt_s=(0.005, 0.005), server_load=(1.0, 1.0), s_per_J=(0.0, 0.0))
    cache = ScheduleCache.solve(costs, region, regret=0.05)
    assert cache.regret <= 0.05
    for at in points:
        check(cache, costs, at)


def test_more_cells_give_a_tighter_bound() -> None:
    caches = [ScheduleCache.solve(COSTS, WIDE, POWER, regret=0, most_cells=n) for n in (1, 64, 512)]
    assert [cache.cells for cache in caches] == [1, 64, 512]
    assert caches[0].regret > caches[1].regret > caches[2].regret > 0


def test_where_one_schedule_is_the_best_everywhere_it_is_proved_so() -> None:
    costs = LayerCosts([1.0, 1.0], [9.0, 9.0], [1, 1], [1, 1, 1], [1, 1, 1])
    cache = ScheduleCache.solve(costs, Region((1, 9), (1, 9), (0, 1), (1, 2)))
    assert (cache.cells, cache.schedules, cache.regret) == (1, 1, 0.0)
    found = cache.lookup(Link(2, 3, 0.5), 1.5)
    assert (found.placement, found.price, found.regret) == (("client", "client"), 2.0, 0.0)


def test_a_schedule_uses_only_what_the_edge_has() -> None:
    available = [i % 2 == 0 for i in range(len(COSTS))]
    cache = ScheduleCache.solve(COSTS, WIDE, POWER, available, most_cells=50)
    for at in product((0, 0.3, 1), repeat=5):
        link, load, worth = inside(WIDE, list(at))
        found = cache.lookup(link, load, worth)
        assert all(w == "client" or a for w, a in zip(found.placement, available, strict=True))
        prices = Objective(1.0, worth, POWER).prices(loaded(COSTS, load), link)
        least, _ = cheapest_path(prices, available)
        assert prices.along(found.placement) - least <= found.regret + 1e-9


@pytest.mark.parametrize("width", [1.0, 1e-6, 1e-12])
def test_seconds_under_a_battery_are_exact_where_cells_are_thin(width: float) -> None:
    region = replace(WIDE, s_per_J=(1.0, 1.0 + width))
    cache = ScheduleCache.solve(COSTS, region, POWER, most_cells=8)
    link = Link(3e6, 5e6, 0.02)
    found = cache.lookup_battery(link, 1e6, 2.0)
    seconds = latency_prices(loaded(COSTS, 2.0), link).along(found.placement)
    assert found.price == pytest.approx(seconds, rel=1e-13)


@settings(deadline=None)
@given(costs_and_links(most=5), regions(), shares, st.lists(shares, min_size=5, max_size=5))
def test_a_battery_is_kept_and_the_time_it_costs_bounded(
    table: tuple[LayerCosts, Link], region: Region, share: float, at: list[float]
) -> None:
    region = replace(region, s_per_J=(0.0, 3.0))
    costs, _ = table
    cache = ScheduleCache.solve(costs, region, POWER, most_cells=16)
    link, load, _ = inside(region, at)
    limit = battery(loaded(costs, load), link, POWER, 0.0)
    seconds = latency_prices(loaded(costs, load), link)
    every = [
        (limit.prices.along(placement), seconds.along(placement))
        for placement in product(SIDES, repeat=len(costs))
    ]
    battery_J = within(0.0, 1.1 * max(joules for joules, _ in every), share)
    least_J = min(
        limit.prices.along(cache.lookup(link, load, worth).placement) for worth in (0, 1.5, 3)
    )
    if battery_J < least_J:
        battery_J = 1.001 * least_J + 0.001  # a smaller one is another test's
    found = cache.lookup_battery(link, battery_J, load)
    assert limit.prices.along(found.placement) <= battery_J * (1 + 1e-9) + 1e-9
    assert seconds.along(found.placement) == pytest.approx(found.price, abs=1e-9)
    least = min(s for joules, s in every if joules <= battery_J * (1 + 1e-9) + 1e-9)
    assert found.price - least <= found.regret + 1e-6


@pytest.mark.parametrize(
    ("field", "link", "load", "worth"),
    [
        ("up_Bps", Link(9e4, 1e6, 0.01), 1.0, 0.0),
        ("down_Bps", Link(1e6, 6e7, 0.01), 1.0, 0.0),
        ("rtt_s", Link(1e6, 1e6, 0.0), 1.0, 0.0),
        ("server_load", Link(1e6, 1e6, 0.01), 8.1, 0.0),
        ("server_load", Link(1e6, 1e6, 0.01), float("nan"), 0.0),
        ("s_per_J", Link(1e6, 1e6, 0.01), 1.0, -0.1),
    ],
)
def test_outside_of_the_region_is_said(field: str, link: Link, load: float, worth: float) -> None:
    cache = ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=4)
    with pytest.raises(OutsideCache, match=field):
        cache.lookup(link, load, worth)


def test_a_cache_comes_back_from_json_as_it_was() -> None:
    cache = ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=100)
    plain = cache.to_plain()
    again = ScheduleCache.from_plain(json.loads(json.dumps(plain)), COSTS, POWER)
    assert again.to_plain() == plain
    assert (again.cells, again.schedules) == (cache.cells, cache.schedules)
    for at in product((0.0, 0.4, 1.0), repeat=5):
        found, same = (c.lookup(*inside(WIDE, list(at))) for c in (cache, again))
        assert found.placement == same.placement
        assert found.price == same.price
        assert found.regret == pytest.approx(same.regret, abs=1e-12)


def test_a_cache_for_other_costs_is_refused() -> None:
    plain = ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=4).to_plain()
    slower = replace(COSTS, client_s=COSTS.client_s * 1.01)
    everything = [True] * len(COSTS)
    for costs, power, available in (
        (slower, POWER, None),
        (COSTS, replace(POWER, idle_W=2.0), None),
        (COSTS, POWER, everything),
    ):
        with pytest.raises(ValueError, match="fingerprint"):
            ScheduleCache.from_plain(plain, costs, power, available)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**6) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
PLAIN = ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=12).to_plain()


@settings(deadline=None)
@given(st.data())
def test_hostile_forms_are_refused_or_harmless(data: st.DataObject) -> None:
    plain = copy.deepcopy(PLAIN)
    where = plain
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(where[key], dict | list) or not where[key] or data.draw(st.booleans()):
            break
        where = where[key]
    where[key] = data.draw(JSON)
    try:
        cache = ScheduleCache.from_plain(plain, COSTS, POWER)
    except ValueError:
        return
    low = {name: ends[0] for name, ends in cache.region.ranges.items()}
    link = Link(low["up_Bps"], low["down_Bps"], low["rtt_s"])
    assert len(cache.lookup(link, low["server_load"], low["s_per_J"]).placement) == len(COSTS)


@pytest.mark.parametrize("plain", [None, [], "cache", 1, {}, {"format": 2}, {"format": True}])
def test_other_things_are_no_cache(plain: object) -> None:
    with pytest.raises(ValueError, match="cache"):
        ScheduleCache.from_plain(plain, COSTS, POWER)


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("end before", [["up_Bps", 1e-6], [[0], [], 0.5]]),
        ("go on", [[[0], [], 0.5], [[0], [], 0.5]]),
        ("end before", []),
        ("axis", [["weather", 1.0], [[0], [], 0.5], [[0], [], 0.5]]),
        ("outside", [["server_load", 9.0], [[0], [], 0.5], [[0], [], 0.5]]),
        ("outside", [["server_load", float("nan")], [[0], [], 0.5], [[0], [], 0.5]]),
        ("schedules", [[[99], [], 0]]),
        ("schedules", [[[], [], 0]]),
        ("gaps", [[[0], [0.0], 0]]),
        ("gaps", [[[0], [-1.0] * 32, 0]]),
        ("gaps", [[[0], [1e9] * 32, 0]]),
        ("gaps", [[[0], [float("nan")] * 32, 0]]),
        ("gaps", [[[0, 1], [], 0]]),
        ("share", [[[0], [], -0.1]]),
        ("share", [[[0], [], 1.1]]),
        ("share", [[[0], [], float("nan")]]),
        ("share", [[[0], [], None]]),
        ("node", [[[0], []]]),
        ("node", [7]),
    ],
)
def test_broken_trees_are_refused(name: str, nodes: list[object]) -> None:
    with pytest.raises(ValueError, match=name):
        ScheduleCache.from_plain(PLAIN | {"nodes": nodes}, COSTS, POWER)


@pytest.mark.parametrize("cuts", [[12], [-1], [2, 2], [3, 1], [0.5], [True], "0", [1] * 99])
def test_broken_schedules_are_refused(cuts: object) -> None:
    with pytest.raises(ValueError, match="schedule"):
        ScheduleCache.from_plain(PLAIN | {"schedules": [cuts]}, COSTS, POWER)


def test_too_many_schedules_and_nodes_are_refused() -> None:
    for field, entry in (("schedules", []), ("nodes", [[0], [], 0])):
        with pytest.raises(ValueError, match=f"{field} are at most"):
            ScheduleCache.from_plain(PLAIN | {field: [entry] * 200_000}, COSTS, POWER)


@pytest.mark.parametrize("field", ["up_Bps", "down_Bps", "rtt_s", "server_load", "s_per_J"])
@pytest.mark.parametrize("ends", [(2, 1), (-1, 1), (1, float("nan")), (1, float("inf")), (1,), 5])
def test_wrong_regions_are_refused_by_name(field: str, ends: object) -> None:
    with pytest.raises(ValueError, match=field):
        Region(**(dict.fromkeys(WIDE.ranges, (1, 1)) | {field: ends}))


def test_wrong_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="power"):
        ScheduleCache.solve(COSTS, WIDE)
    with pytest.raises(ValueError, match="available"):
        ScheduleCache.solve(COSTS, WIDE, POWER, [True])
    for regret in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="regret"):
            ScheduleCache.solve(COSTS, WIDE, POWER, regret=regret)
    for cells in (0, 10**6, 1.5):
        with pytest.raises(ValueError, match="most_cells"):
            ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=cells)  # type: ignore[arg-type]
    cache = ScheduleCache.solve(COSTS, WIDE, POWER, most_cells=2)
    with pytest.raises(ValueError, match="battery_J"):
        cache.lookup_battery(Link(1e6, 1e6, 0.01), float("nan"))
    with pytest.raises(OutsideCache, match="battery_J"):
        cache.lookup_battery(Link(1e6, 1e6, 0.01), 1e-9)
    fixed = ScheduleCache.solve(COSTS, replace(WIDE, s_per_J=(0.0, 0.0)), most_cells=2)
    with pytest.raises(OutsideCache, match="s_per_J"):
        fixed.lookup_battery(Link(1e6, 1e6, 0.01), 1.0)


def test_an_empty_model_is_cached_too() -> None:
    cache = ScheduleCache.solve(LayerCosts([], [], [], [1], [1]), WIDE, POWER)
    assert cache.lookup(Link(1e6, 1e6, 0.01)).placement == ()
