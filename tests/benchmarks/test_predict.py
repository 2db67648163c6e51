"""The parts of benchmarks/predict.py that a wrong figure could come from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import predict
from predict_figures import regret as regrets
from predict_figures.measuring import Layers, measure
from predict_figures.networks import Network, network_of
from predict_figures.regret import regret
from predict_figures.running import MOST_COPIES, Apart, Running

from ionn_edge.calibration.measure import VISITS
from planner import LayerCosts, Link, timeline, upload_plan

LINK = Link(1e6, 1e6, 0.01)


@pytest.fixture(scope="module")
def process() -> Iterator[Apart]:
    apart = Apart("lenet")
    yield apart
    apart.close()


@pytest.fixture
def lenet(process: Apart) -> Network:
    return network_of("lenet", process, 3)


def table() -> LayerCosts:
    r = np.random.default_rng(0)
    cuts = np.array([2e5, 1e6, 1e4, 5e5, 1e3, 1e3])
    weights = r.uniform(1e5, 1e6, 5)
    return LayerCosts(r.uniform(0.2, 1, 5), r.uniform(0.01, 0.1, 5), weights, cuts, cuts)


def test_right_times_are_not_regretted_and_wrong_ones_are() -> None:
    costs = table()
    right = regret(costs, costs.edge_s.tolist(), LINK)
    assert (right.route, right.upload) == (0, 0)
    # Taken for slower than the client: nothing would run there.
    wrong = regret(costs, (10 * costs.client_s).tolist(), LINK)
    best_s = min(costs.client_s.sum(), costs.edge_s.sum() + 0.01 + 2.01e5 / 1e6)
    assert wrong.route == pytest.approx(costs.client_s.sum() / best_s - 1, rel=0.05)
    assert wrong.upload > 0


def test_the_mean_while_uploading_is_the_planners_own() -> None:
    costs = table()
    mean_s = regrets._mean_s(costs, costs, LINK)
    assert mean_s == pytest.approx(timeline(costs, LINK, upload_plan(costs, LINK)).mean_latency_s)


def test_ranges_are_of_the_network_and_their_runs_are_counted(lenet: Network) -> None:
    network = lenet
    layers = len(network.graph.layers)
    assert {(i, i + 1) for i in range(layers)} < set(network.ranges)
    assert network.long_ranges == [(0, layers)]
    network.visit((0, layers))
    first = len(network.seconds((0, layers)))
    # Not the first, which finds caches full of what ran before.
    assert first >= 1
    network.visit((0, layers))
    assert len(network.seconds((0, layers))) > first
    assert min(network.seconds((0, layers))) <= network.cost_s((0, layers))


def test_weights_of_small_ranges_come_from_memory() -> None:
    running = Running("pos")
    copies = running.copies((0, 6))
    # Together more than a cache holds, one after the other, and all alike; tables are left out.
    held = sum(weight.nbytes for copy in copies for weight in copy.values())
    assert held > 48 << 20 or len(copies) == MOST_COPIES
    assert all(weight.ndim != 2 or weight.shape[0] < 1000 for weight in copies[0].values())
    name, first = next(iter(copies[0].items()))
    assert len({copy[name].data_ptr() for copy in copies}) == len(copies)
    assert all(torch.equal(copy[name], first) for copy in copies)
    running.taken_s((4, 5))


def test_what_two_runs_measured_adds_up(lenet: Network) -> None:
    both, one = Layers(), Layers()
    networks = [lenet]
    for seed in (1, 2):
        one = Layers()
        measure(networks, 1, 1, seed, one)
        both.add(json.loads(json.dumps(one.to_plain())))
    assert len(both.seen) == 2 * len(one.seen)
    assert both.seen[len(one.seen) :] == one.seen
    assert all(len(layer.visits) == VISITS for layer in both.held_out)
    assert not {s.work for s in one.seen} & {h.work for h in one.held_out if h.work[0].flops > 1e6}
    assert all(len(visits) == 2 for visits in networks[0].visits.values())
    again = [replace(lenet, visits={})]
    predict.add(json.loads(json.dumps(predict.report(networks, both))), again, Layers())
    assert again[0].visits == networks[0].visits
    first, second = both.twice
    assert [s.work for s in first] == [s.work for s in second]


def test_half_of_the_visits_is_compared_with_the_other(lenet: Network) -> None:
    network = lenet
    network.visits = {(0, 5): [[1.0, 2.0, 8.0, 9.0], [4.0], [3.0]]}
    # The least of the visits' lower quartiles.
    assert network.cost_s((0, 5)) == 2
    # Whole visits, because runs of one visit resemble each other.
    assert network.halves_s((0, 5)) == (2.0, 4.0)
    network.visits[0, 5] = [[1.0, 2.0]]
    with pytest.raises(ValueError, match="1 times"):
        network.halves_s((0, 5))
