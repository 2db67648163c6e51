"""Planners side by side: their rows agree with the planner library, and limits are told."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ionn_client.reports.comparison import OURS, RESIDUAL, Planned, Problem, compare, crossings
from ionn_client.reports.explanation import (
    battery_sentence,
    change_sentences,
    closest_sentences,
    explained,
    limit_sentences,
    moves,
    reason_sentences,
)
from planner import LayerCosts, Link, RangeTimes
from planner.objective import Objective, battery, deadline, edge_time, mobile_energy
from planner.power import RADIOS, Power
from planner.prices import Placement

NAMES = ("input", "conv1", "conv2", "fc")
LINK = Link(1e6, 4e6, 0.004)
POWER = Power(8.0, 2.0, RADIOS["wifi"])


def costs() -> LayerCosts:
    return LayerCosts(
        [0.001, 0.080, 0.020, 0.120],
        [0.0001, 0.004, 0.001, 0.006],
        [0, 1e5, 2e5, 9e6],
        [150e3, 150e3, 60e3, 20e3, 4e3],
        [150e3, 150e3, 60e3, 20e3, 4e3],
        names=NAMES,
    )


def by_name(problem: Problem) -> dict[str, Planned]:
    return {row.planner: row for row in compare(problem)}


def all_placements(n: int) -> list[Placement]:
    return list(itertools.product(("client", "edge"), repeat=n))


def test_ours_is_the_best_of_all_placements_and_no_planner_is_better() -> None:
    for objective in (Objective(power=POWER), mobile_energy(POWER), Objective(1.0, 0.3, POWER)):
        problem = Problem(costs(), LINK, objective)
        prices = objective.prices(problem.costs, LINK)
        least = min(map(prices.along, all_placements(4)))
        rows = by_name(problem)
        for name in (OURS, "ILP", "JointDNN"):
            route = rows[name].route
            assert route is not None
            assert prices.along(route.placement) == pytest.approx(least)


def test_rows_say_what_crosses_and_how_long_the_edge_is_busy() -> None:
    rows = by_name(Problem(costs(), LINK, Objective(power=POWER)))
    alone, edge = rows["client only"], rows["edge only"]
    assert (alone.up_bytes, alone.down_bytes, alone.edge_s) == (0, 0, 0)
    assert (edge.up_bytes, edge.down_bytes) == (150e3, 4e3)
    assert edge.edge_s == pytest.approx(0.0111)
    assert alone.letters == "CCCC"
    assert edge.letters == "EEEE"
    assert alone.route is not None
    assert alone.route.energy_J == pytest.approx(0.221 * 8)


def test_energy_has_planners_only_where_power_is_known() -> None:
    assert "Neurosurgeon, energy" not in by_name(Problem(costs(), LINK))
    assert "Neurosurgeon, energy" in by_name(Problem(costs(), LINK, Objective(power=POWER)))


def test_a_limit_is_kept_by_ours_and_told_where_it_is_exceeded() -> None:
    limit = edge_time(costs(), 0.005)
    rows = by_name(Problem(costs(), LINK, limits=(limit,)))
    assert rows["edge only"].broken == ("edge_time",)
    assert "LARAC" in rows
    for name in (OURS, "ILP", "LARAC"):
        route = rows[name].route
        assert route is not None
        assert limit.allows(route.placement)
    fastest = min(
        Problem(costs(), LINK).objective.prices(costs(), LINK).along(placement)
        for placement in all_placements(4)
        if limit.allows(placement)
    )
    assert rows[OURS].route is not None
    assert rows[OURS].route.latency_s == pytest.approx(fastest)


def test_what_the_best_schedule_would_need_of_a_limit_is_told() -> None:
    problem = Problem(costs(), LINK, limits=(edge_time(costs(), 0.005), deadline(costs(), LINK, 9)))
    told = limit_sentences(problem, explained(problem).placement)
    assert len(told) == 1
    assert "the edge limit is 5.00 ms" in told[0]


def test_limits_that_nothing_keeps_say_what_to_raise() -> None:
    impossible = (battery(costs(), LINK, POWER, 0.01), deadline(costs(), LINK, 0.001))
    rows = by_name(Problem(costs(), LINK, Objective(power=POWER), impossible))
    for name in (OURS, "ILP"):
        assert rows[name].route is None
        assert rows[name].letters == ""
        assert "raise the" in rows[name].note
        assert "the battery budget by" in rows[name].note
    assert "LARAC" not in rows


def test_grouped_times_count_a_range_that_is_faster_in_one_go() -> None:
    alone = {(i, i + 1): float(costs().client_s[i]) for i in range(4)}
    together = RangeTimes({**alone, (0, 4): 0.01}, 0.0, costs().client_s)
    rows = by_name(Problem(costs(), LINK, ranges=together))
    assert rows["JointDNN"].letters != "CCCC"
    assert rows["JointDNN, grouped"].letters == "CCCC"


def test_a_ranges_start_up_is_counted_once() -> None:
    ranges = RangeTimes({}, 0.02, costs().client_s)
    problem = Problem(ranges.on_client(costs()), LINK, ranges=ranges)
    rows = by_name(problem)
    assert rows["JointDNN, grouped"].letters == rows[OURS].letters


def test_residual_blocks_say_what_they_take_tensor_by_tensor() -> None:
    # Layer 3 adds what layer 0 made to what layers 1 and 2 make of it. Only layer 2 is quick on the
    # edge: at the cuts round it, layer 0's tensor goes along.
    skip = LayerCosts(
        [0.001, 0.001, 0.2, 0.001],
        [0.5, 0.5, 0.001, 0.5],
        [0, 1e5, 1e5, 0],
        [1e3, 50e3, 60e3, 60e3, 4e3],
        [1e3, 50e3, 60e3, 60e3, 4e3],
        edges=[(-1, 0), (0, 1), (1, 2), (2, 3), (0, 3), (3, 4)],
    )
    row = by_name(Problem(skip, LINK))[RESIDUAL]
    assert row.letters == "CCEC"
    assert row.up_bytes == row.down_bytes == 60e3
    assert row.route is not None
    assert row.route.latency_s == pytest.approx(0.004 + 0.062 + 0.017)
    # Layer 1's output alone is 10 KB, as is layer 2's.
    assert row.note.startswith("20.5 ms if every tensor crossed by itself")


def test_neurosurgeon_says_where_the_answers_way_back_is_what_it_misses() -> None:
    slow_down = Link(1e6, 1e3, 0.004)
    row = by_name(Problem(costs(), slow_down))["Neurosurgeon, latency"]
    assert "counts nothing for the answer's way back" in row.note
    assert row.route is not None
    assert row.route.latency_s > by_name(Problem(costs(), slow_down))[OURS].route.latency_s  # type: ignore[union-attr]
    assert by_name(Problem(costs(), LINK))["Neurosurgeon, latency"].note == ""


def test_networks_without_branches_have_no_row_of_residual_blocks() -> None:
    assert RESIDUAL not in by_name(Problem(costs(), LINK))
    chain = replace(costs(), edges=[(-1, 0), (0, 1), (1, 2), (2, 3), (3, 4)])
    assert RESIDUAL not in by_name(Problem(chain, LINK))


def test_crossings_are_the_cuts_where_sides_change() -> None:
    assert crossings(("client", "edge", "edge", "client")) == ((1,), (3,))
    assert crossings(("edge", "client", "edge")) == ((0, 2), (1, 3))
    assert crossings(()) == ((), ())


def test_sentences_name_layers_values_and_directions() -> None:
    problem = Problem(costs(), LINK, Objective(power=POWER))
    found = explained(problem)
    why = reason_sentences(found, NAMES, problem.objective)
    assert all(sentence.startswith("Layer") and sentence.endswith(".") for sentence in why)
    assert "longer" in why[0]
    assert closest_sentences(found, NAMES, problem.objective, 1)[0] in why
    changes = change_sentences(found, NAMES)
    assert any("uplink" in sentence and "Mbit/s" in sentence for sentence in changes)
    budget = battery_sentence(problem, found.placement, NAMES)
    assert budget is not None
    assert "J of the battery" in budget
    joule_problem = Problem(costs(), LINK, mobile_energy(POWER))
    joule_why = reason_sentences(explained(joule_problem), NAMES, joule_problem.objective)
    assert "of the battery" in joule_why[0]
    assert battery_sentence(Problem(costs(), LINK), found.placement, NAMES) is None


def test_a_change_that_is_told_is_one_that_happens() -> None:
    problem = Problem(costs(), LINK)
    for change in explained(problem).changes:
        if change.dial == "up_Bps":
            beyond = change.at * (1.001 if change.rises else 0.999)
            moved = explained(Problem(costs(), Link(beyond, 4e6, 0.004)))
            assert moved.placement == change.placement


def test_moves_are_told_in_words() -> None:
    old: Placement = ("client", "client", "edge", "edge")
    assert moves(old, ("client",) * 4, NAMES) == "every layer runs on the client"
    assert moves(old, ("edge",) * 4, NAMES) == "every layer runs on the edge"
    assert moves(old, ("client", "edge", "edge", "client"), NAMES) == (
        "move layer 2 (conv1) to the edge, layer 4 (fc) to the client"
    )
