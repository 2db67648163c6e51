"""The parts of benchmarks/papers.py that a wrong cell could come from, and a run of it."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import papers
from papers_figures.agreement import World, nearest_factor
from papers_figures.costs import as_served, costs_on, in_8_bits
from papers_figures.schedules import best_with, pattern, spans
from papers_figures.skips import best_middle

from ionn_client.devices import load_device
from layergraph import LayerGraph, capture
from layergraph.networks import NETWORKS
from planner import LayerCosts, Link
from planner.objective import LATENCY
from planner.prices import Placement, Prices

numbers = st.floats(0.0, 10.0)


@st.composite
def price_tables(draw: st.DrawFn) -> Prices:
    n = draw(st.integers(3, 7))
    per_layer = st.lists(numbers, min_size=n, max_size=n)
    per_cut = st.lists(numbers, min_size=n + 1, max_size=n + 1)
    return Prices(draw(per_layer), draw(per_layer), draw(per_cut), draw(per_cut))


def graph_of(name: str) -> LayerGraph:
    return capture(NETWORKS[name].build(), NETWORKS[name].example(), {})[0]


@given(price_tables(), st.sampled_from(("client-edge", "edge-client", "client-edge-client")))
def test_the_best_schedule_of_a_pattern_is_that_of_all_placements(
    prices: Prices, wanted: str
) -> None:
    every: list[Placement] = list(itertools.product(("client", "edge"), repeat=len(prices)))
    least = min(prices.along(each) for each in every if pattern(each) == wanted)
    price, placement = best_with(wanted, prices)
    assert pattern(placement) == wanted
    assert price == pytest.approx(least)
    assert prices.along(placement) == pytest.approx(least)


def test_a_pattern_needs_a_layer_for_each_side() -> None:
    with pytest.raises(ValueError, match="cannot visit"):
        best_with("client-edge", Prices([1.0], [1.0], [0.0, 0.0], [0.0, 0.0]))


@pytest.mark.parametrize(("at", "rises"), [(1.37, True), (40.0, True), (0.6, False)])
def test_the_nearest_factor_is_closed_in_on(at: float, rises: bool) -> None:
    found = nearest_factor(lambda factor: factor >= at if rises else factor <= at)
    assert found == pytest.approx(at, rel=1e-6)


def test_of_two_factors_the_nearer_is_told_and_of_none_nothing() -> None:
    assert nearest_factor(lambda factor: factor >= 8 or factor <= 1 / 3) == pytest.approx(1 / 3)
    assert nearest_factor(lambda factor: factor > 100) is None


def test_worlds_change_one_thing() -> None:
    world = World(LayerCosts([1.0], [0.5], [1.0], [2.0, 1.0], [2.0, 1.0]), Link(100.0, 200.0))
    assert world.uplink(2.0).link == Link(200.0, 200.0)
    assert world.both(0.5).link == Link(50.0, 100.0)
    assert world.device(4.0).costs.client_s.tolist() == [0.25]
    assert world.edge(5.0).costs.edge_s.tolist() == [0.1]


def test_the_language_networks_begin_with_words_that_were_looked_up() -> None:
    graph = graph_of("pos")
    device = load_device("jetson-tk1-cpu")
    costs = costs_on(graph, device, device)
    served = as_served("pos", costs)
    assert served.names == ("hidden", "output")
    assert served.cut_up_bytes[0] == 28 * 300 * 4
    assert as_served("lenet", costs).client_s.tolist() == costs.client_s.tolist()


def test_a_number_crosses_in_a_byte_whatever_its_type() -> None:
    graph = graph_of("lenet")
    device = load_device("jetson-tk1-cpu")
    costs = in_8_bits(graph, costs_on(graph, device, device))
    assert costs.cut_up_bytes[0] == 28 * 28
    assert costs.cut_up_bytes[-1] == math.prod(graph.cut_specs(len(graph.layers))[0].shape)


def test_without_skips_the_best_middle_is_a_schedule_and_with_them_no_dearer() -> None:
    edge, client = load_device("tesla-k40"), load_device("jetson-tx2")
    for name, has_skips in (("nin", False), ("pix2pix", True)):
        graph = graph_of(name)
        costs = in_8_bits(graph, costs_on(graph, client, edge))
        prices = LATENCY.prices(costs, Link(2e6, 5e6))
        middle = best_middle(graph, costs, prices)
        planned, _ = best_with("client-edge-client", prices)
        if has_skips:
            assert middle.price < planned
            assert middle.crossing < middle.alive
        else:
            assert middle.price == pytest.approx(planned)
            assert middle.crossing == middle.alive
    with pytest.raises(ValueError, match="no middle"):
        best_middle(graph, costs, Prices([1, 1], [1, 1], np.zeros(3), np.zeros(3)))


def test_spans_count_layers_from_one() -> None:
    assert spans(("client", "client", "edge")) == "client 1-2, edge 3"
    assert spans(("edge", "edge")) == "edge"


def test_a_quick_run_prints_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cells.json"
    monkeypatch.setattr(sys, "argv", ["papers.py", "--quick", "--sources", "--json", str(path)])
    assert papers.main() == 0
    text = capsys.readouterr().out
    assert "where each network is split for the best energy" in text
    assert "derived: AlexNet takes 0.081 s" in text
    cells = json.loads(path.read_text())
    assert {each["split"] for each in cells["decisions"]} >= {"input", "conv5", "end"}
    assert all(each["why"] or each["printed"] for each in cells["schedules"])
