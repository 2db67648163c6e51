"""Several processors in one device, against every route and every split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Infeasible, LayerCosts, Link, route
from planner.local_ilp import Amount, limited_route, split_layers
from planner.local_offloading import LocalCosts, Processor, Resources, local_route
from tests.planner.tables import costs_and_links

AMOUNTS: tuple[Amount, ...] = ("latency_s", "energy_J")
whole = st.integers(0, 9)

budgets = st.fixed_dictionaries(
    {name: st.none() | st.sampled_from((0.0, 4.0, 16.0, 64.0)) for name in AMOUNTS}
)


@st.composite
def devices(draw: st.DrawFn, most: int = 3, least: int = 0) -> tuple[LocalCosts, Resources]:
    """Up to three processors and as many layers of up to three units, in small whole numbers."""
    n, k = draw(st.integers(least, most)), draw(st.integers(1, 3))

    def some(count: int, values: st.SearchStrategy[Any] = whole) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    def square() -> list[list[int]]:
        return [[0 if p == q else draw(st.integers(0, 3)) for q in range(k)] for p in range(k)]

    processors = [
        Processor(f"p{p}", some(n), draw(whole), draw(st.integers(0, 2)), some(n, st.booleans()))
        if p
        else Processor("p0", some(n), draw(whole))
        for p in range(k)
    ]
    costs = LocalCosts(
        processors, some(n), some(n + 1), some(n, st.integers(1, 3)),
        copy_s=square(), copy_s_per_byte=square(), copy_W=draw(whole), idle_W=draw(whole),
    )  # fmt: skip
    free = [draw(st.sampled_from((0.5, 1.0))), *some(k - 1, st.sampled_from((0.0, 0.25, 1.0)))]
    memory = some(k, st.sampled_from((0.0, 3.0, 8.0, math.inf)))
    slowdown = some(k, st.sampled_from((1.0, 2.0)))
    return costs, Resources(tuple(free), tuple(slowdown), tuple(memory))


def allowed(costs: LocalCosts, seen: Resources, p: int, i: int) -> bool:
    return bool(seen.free[p] > 0 and costs.processors[p].runs[i])


def work(costs: LocalCosts, seen: Resources, p: int, i: int, share: float) -> tuple[float, float]:
    """Seconds and joules of a share of a layer, with its start."""
    processor = costs.processors[p]
    cool_s = processor.layer_s[i] * share
    hot_s = cool_s * seen.slowdown[p]
    seconds = processor.start_s + hot_s / seen.free[p]
    return seconds, processor.active_W * (processor.start_s + hot_s)


def every_route(
    costs: LocalCosts, seen: Resources
) -> Iterator[tuple[tuple[int, ...], dict[str, float]]]:
    for processors in product(range(len(costs.processors)), repeat=len(costs)):
        if not all(allowed(costs, seen, p, i) for i, p in enumerate(processors)):
            continue
        seconds = joules = 0.0
        for i, (p, q) in enumerate(zip((0, *processors), (*processors, 0), strict=True)):
            moved = costs.copy_s[p, q] + costs.cut_bytes[i] * costs.copy_s_per_byte[p, q]
            seconds, joules = seconds + moved, joules + moved * costs.copy_W
            if i < len(costs):
                more = work(costs, seen, q, i, 1.0)
                seconds, joules = seconds + more[0], joules + more[1]
        amounts = {"latency_s": seconds, "energy_J": joules + costs.idle_W * seconds}
        for at, processor in enumerate(costs.processors):
            held = sum(costs.weight_bytes[i] for i, p in enumerate(processors) if p == at)
            amounts[f"memory_bytes of {processor.name}"] = float(held)
        yield processors, amounts


def every_split(
    costs: LocalCosts, seen: Resources
) -> Iterator[tuple[tuple[tuple[int, ...], ...], dict[str, float]]]:
    k = len(costs.processors)
    choices = [
        [
            had
            for had in product(range(parts + 1), repeat=k)
            if sum(had) == parts
            and all(not of or allowed(costs, seen, p, i) for p, of in enumerate(had))
        ]
        for i, parts in enumerate(costs.units.tolist())
    ]
    for units in product(*choices):
        seconds = joules = 0.0
        held = [0.0] * k
        for i, had in enumerate(units):
            done = []
            for p, of in enumerate(had):
                if not of:
                    continue
                share = of / costs.units[i]
                busy_s, busy_J = work(costs, seen, p, i, share)
                copied = costs.copy_s[0, p] + costs.cut_bytes[i] * costs.copy_s_per_byte[0, p]
                back = costs.cut_bytes[i + 1] * share * costs.copy_s_per_byte[p, 0]
                copied += costs.copy_s[p, 0] + back
                done.append(busy_s + copied)
                joules += busy_J + copied * costs.copy_W
                held[p] += share * costs.weight_bytes[i]
            seconds += max(done)
        amounts = {"latency_s": seconds, "energy_J": joules + costs.idle_W * seconds}
        for processor, size in zip(costs.processors, held, strict=True):
            amounts[f"memory_bytes of {processor.name}"] = float(size)
        yield units, amounts


def limits_of(
    costs: LocalCosts, seen: Resources, given: dict[str, float | None]
) -> dict[str, float]:
    memory = {
        f"memory_bytes of {processor.name}": free
        for processor, free in zip(costs.processors, seen.memory_bytes, strict=True)
    }
    return memory | {name: most for name, most in given.items() if most is not None}


def excess(amounts: dict[str, float], limits: dict[str, float]) -> dict[str, float]:
    return {
        name: amounts[name] - most
        for name, most in limits.items()
        if amounts[name] > most * (1 + 1e-9)
    }


def check(
    plan: Any, every: list[tuple[Any, dict[str, float]]], costs: LocalCosts, seen: Resources,
    minimise: Amount, limits: dict[str, float],
) -> None:  # fmt: skip
    known = dict(every)
    fitting = [a for a in known.values() if not excess(a, limits)]
    given = {name: limits.get(name) for name in AMOUNTS}
    if fitting:
        found = plan(costs, minimise, seen, **given)
        chosen = found.processors if hasattr(found, "processors") else found.units
        assert found.latency_s == pytest.approx(known[chosen]["latency_s"])
        assert found.energy_J == pytest.approx(known[chosen]["energy_J"])
        assert not excess(known[chosen], limits)
        best = min(amounts[minimise] for amounts in fitting)
        assert known[chosen][minimise] == pytest.approx(best, rel=1e-6, abs=1e-9)
        return
    with pytest.raises(Infeasible) as caught:
        plan(costs, minimise, seen, **given)
    # Raised so far, one schedule fits; and none does that exceeds them relatively less.
    raised = limits | {name: limits[name] + more for name, more in caught.value.excess.items()}
    assert any(not excess(amounts, raised) for amounts in known.values())

    def relative(over: dict[str, float]) -> float:
        return sum(more / (limits[name] or 1000.0) for name, more in over.items())

    least = min(relative(excess(amounts, limits)) for amounts in known.values())
    assert relative(caught.value.excess) == pytest.approx(least, rel=1e-5, abs=1e-7)
    for name, more in caught.value.alone.items():
        others = {other: most for other, most in limits.items() if other != name}
        over = [a[name] - limits[name] for a in known.values() if not excess(a, others)]
        assert more == pytest.approx(min(over), rel=1e-5, abs=1e-7)


@given(devices(most=4), st.sampled_from(((1.0, 0.0), (0.0, 1.0), (1.0, 2.0))))
def test_the_shortest_path_is_the_least_of_all_routes(
    device: tuple[LocalCosts, Resources], weights: tuple[float, float]
) -> None:
    costs, seen = device
    found = local_route(costs, seen, *weights)
    prices = {
        route: weights[0] * amounts["latency_s"] + weights[1] * amounts["energy_J"]
        for route, amounts in every_route(costs, seen)
    }
    price = weights[0] * found.latency_s + weights[1] * found.energy_J
    assert price == pytest.approx(prices[found.processors])
    assert price == pytest.approx(min(prices.values()))


@settings(deadline=None, max_examples=60)
@given(devices(), st.sampled_from(AMOUNTS), budgets)
def test_a_limited_route_is_the_least_of_those_that_fit(
    device: tuple[LocalCosts, Resources], minimise: Amount, given: dict[str, float | None]
) -> None:
    costs, seen = device
    limits = limits_of(costs, seen, given)
    check(limited_route, list(every_route(costs, seen)), costs, seen, minimise, limits)


@settings(deadline=None, max_examples=60)
@given(devices(), st.sampled_from(AMOUNTS), budgets)
def test_a_split_is_the_least_of_those_that_fit(
    device: tuple[LocalCosts, Resources], minimise: Amount, given: dict[str, float | None]
) -> None:
    costs, seen = device
    limits = limits_of(costs, seen, given)
    check(split_layers, list(every_split(costs, seen)), costs, seen, minimise, limits)


@given(costs_and_links())
def test_client_and_edge_are_two_processors(table: tuple[LayerCosts, Link]) -> None:
    costs, link = table
    # One number of bytes per cut and no coding times, which local copies do not have.
    both = costs.cut_up_bytes
    plain = LayerCosts(costs.client_s, costs.edge_s, costs.weight_bytes, both, both)
    local = LocalCosts(
        [Processor("client", costs.client_s, 0.0), Processor("edge", costs.edge_s, 0.0)],
        costs.weight_bytes,
        costs.cut_up_bytes,
        copy_s=[[0, link.rtt_s / 2], [link.rtt_s / 2, 0]],
        copy_s_per_byte=[[0, 1 / link.up_Bps], [1 / link.down_Bps, 0]],
    )
    best = route(plain, link, range(len(plain)))
    assert local_route(local).latency_s == pytest.approx(best.latency_s)


def test_units_run_side_by_side() -> None:
    slow, fast = Processor("cpu", [6.0], 1.0), Processor("gpu", [3.0], 5.0)
    costs = LocalCosts([slow, fast], [0], [0, 0], [3])
    found = split_layers(costs, "latency_s")
    assert (found.units, found.latency_s, found.energy_J) == (((1, 2),), 2.0, 2.0 + 10.0)
    assert split_layers(costs).units == ((3, 0),)
    assert split_layers(costs, latency_s=4.0).units == ((2, 1),)


def test_what_others_use_and_heat_takes_is_not_ours() -> None:
    costs = LocalCosts([Processor("cpu", [6.0], 1.0), Processor("gpu", [3.0], 1.0)], [9], [0, 0])
    cases = (
        (Resources((1, 1), (1, 1), (9, 9)), 1, 3.0, 3.0),
        (Resources((1, 0.4), (1, 1), (9, 9)), 0, 6.0, 6.0),
        (Resources((1, 0.75), (1, 1), (9, 9)), 1, 4.0, 3.0),
        (Resources((1, 1), (1, 1.5), (9, 9)), 1, 4.5, 4.5),
        (Resources((1, 0), (1, 1), (9, 9)), 0, 6.0, 6.0),
        (Resources((1, 1), (1, 1), (9, 8)), 0, 6.0, 6.0),
    )
    for seen, at, latency_s, energy_J in cases:
        found = limited_route(costs, "latency_s", seen)
        assert found.processors == (at,)
        assert found.latency_s == pytest.approx(latency_s)
        assert found.energy_J == pytest.approx(energy_J)


def test_what_is_out_of_reach_says_by_how_much() -> None:
    costs = LocalCosts([Processor("cpu", [6.0, 2.0], 1.0)], [4, 4], [0, 0, 0])
    for plan in (limited_route, split_layers):
        with pytest.raises(Infeasible) as caught:
            plan(costs, latency_s=5.0)
        assert caught.value.excess == {"latency_s": pytest.approx(3.0)}
        assert caught.value.alone == {"latency_s": pytest.approx(3.0)}
        with pytest.raises(Infeasible, match="memory_bytes of cpu by 2"):
            plan(costs, resources=Resources((1,), (1,), (6,)))


def test_what_may_take_nothing_says_by_how_much_it_does() -> None:
    # The 6 s and the 2 s on a processor that has half its time for us, while the board idles.
    cpu, off = Processor("cpu", [1, 3], 0), Processor("off", [0, 1], 0, runs=[False, False])
    costs = LocalCosts([cpu, off], [0, 0], [0, 0, 0], copy_s=[[0, 0], [1, 0]], idle_W=1)
    seen = Resources((0.5, 0), (1, 1), (0, 0))
    for plan in (limited_route, split_layers):
        with pytest.raises(Infeasible) as raised:
            plan(costs, "latency_s", seen, energy_J=0)
        assert raised.value.excess == pytest.approx({"energy_J": 8})


def test_fifty_layers_of_64_units_are_split() -> None:
    layer_s = [1e-3 * (1 + i % 7) for i in range(50)]
    processors = [
        Processor("cpu", layer_s, 2.0),
        Processor("gpu", [s / 4 for s in layer_s], 3.0, 5e-4),
        Processor("dsp", [s * 1.5 for s in layer_s], 0.4, 2e-4),
    ]
    costs = LocalCosts(processors, [1e5] * 50, [1e4] * 51, [64] * 50, idle_W=0.3)
    fastest, thriftiest = split_layers(costs, "latency_s"), split_layers(costs)
    middle = split_layers(costs, latency_s=(fastest.latency_s + thriftiest.latency_s) / 2)
    assert fastest.latency_s < local_route(costs).latency_s
    assert thriftiest.energy_J < middle.energy_J < fastest.energy_J
    assert all(sum(had) == 64 for had in middle.units)


def test_an_empty_model_takes_nothing() -> None:
    costs = LocalCosts([Processor("cpu", [], 1.0), Processor("gpu", [], 1.0)], [], [5])
    assert local_route(costs).processors == ()
    assert limited_route(costs, latency_s=0.0).latency_s == 0.0
    assert split_layers(costs, energy_J=0.0).units == ()


CPU = Processor("cpu", [1.0], 1.0)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
def test_wrong_numbers_are_refused_by_name(wrong: float) -> None:
    for name, field in (("layer_s", [[wrong], 1.0]), ("active_W", [[1.0], wrong])):
        with pytest.raises(ValueError, match=name):
            Processor("cpu", *field)
    with pytest.raises(ValueError, match="start_s"):
        Processor("cpu", [1.0], 1.0, wrong)
    good: dict[str, Any] = {"weight_bytes": [1.0], "cut_bytes": [1.0, 1.0], "units": [1]}
    for name in good:
        with pytest.raises(ValueError, match=name):
            LocalCosts([CPU], **(good | {name: [wrong] * len(good[name])}))
    for name in ("copy_W", "idle_W"):
        with pytest.raises(ValueError, match=name):
            LocalCosts([CPU], **good, **{name: wrong})
    gpu = Processor("gpu", [1.0], 1.0)
    for name in ("copy_s", "copy_s_per_byte"):
        with pytest.raises(ValueError, match=name):
            LocalCosts([CPU, gpu], **good, **{name: [[0, wrong], [0, 0]]})
    costs = LocalCosts([CPU], **good)
    for name in ("s_weight", "J_weight"):
        with pytest.raises(ValueError, match=name):
            local_route(costs, **{name: wrong})
    for name in AMOUNTS:
        for plan in (limited_route, split_layers):
            with pytest.raises(ValueError, match=name):
                plan(costs, **{name: wrong})


@pytest.mark.parametrize(
    ("name", "processors", "given"),
    [
        ("processors", [], {}),
        ("name twice", [CPU, CPU], {}),
        ("layer_s of gpu", [CPU, Processor("gpu", [1.0, 2.0], 1.0)], {}),
        ("weight_bytes", [CPU], {"weight_bytes": [1, 2]}),
        ("cut_bytes", [CPU], {"cut_bytes": [1]}),
        ("units", [CPU], {"units": [1, 1]}),
        ("units", [CPU], {"units": [0]}),
        ("units", [CPU], {"units": [1.5]}),
        ("copy_s", [CPU], {"copy_s": [[0, 1]]}),
        ("copy_s", [CPU], {"copy_s": [[1.0]]}),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    name: str, processors: list[Processor], given: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=name):
        LocalCosts(processors, **({"weight_bytes": [1], "cut_bytes": [1, 1]} | given))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("free", {"free": (1.1,)}),
        ("free", {"free": (math.nan,)}),
        ("slowdown", {"slowdown": (0.5,)}),
        ("slowdown", {"slowdown": (1.0, 1.0)}),
        ("memory_bytes", {"memory_bytes": (-1.0,)}),
        ("memory_bytes", {"memory_bytes": ()}),
    ],
)
def test_wrong_resources_are_refused_by_name(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=name):
        Resources(**({"free": (1.0,), "slowdown": (1.0,), "memory_bytes": (1.0,)} | given))


def test_other_wrong_arguments_are_refused_by_name() -> None:
    costs = LocalCosts([CPU], [1], [1, 1])
    with pytest.raises(ValueError, match="runs"):
        Processor("cpu", [1.0], 1.0, runs=[True, True])
    with pytest.raises(ValueError, match="both 0"):
        local_route(costs, None, 0.0, 0.0)
    for plan in (local_route, limited_route, split_layers):
        with pytest.raises(ValueError, match="resources"):
            plan(costs, resources=Resources.all_of(2))
        with pytest.raises(ValueError, match="layer 0"):
            plan(costs, resources=Resources((0,), (1,), (1,)))
    with pytest.raises(ValueError, match="minimise"):
        limited_route(costs, "money")  # type: ignore[arg-type]
