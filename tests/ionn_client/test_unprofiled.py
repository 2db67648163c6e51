"""A client that has not profiled plans with a predictor of its own, as it does with the edge's."""

from __future__ import annotations

import dataclasses

import pytest

from ionn_client.machine.forecast import Forecast
from layergraph import capture, work
from layergraph.networks import NETWORKS
from planner import Link
from planner.predictor import Predictor, Sample
from planner.work import OperatorWork

LINK = Link(1e7, 1e7, 0.005)
SLOWER = 50.0


def predictor(slower: float) -> Predictor:
    works = [
        OperatorWork("linear", 2.0 * n * n, 4.0 * n, 4.0 * n * n, 4.0 * n, 1, 1, n, n)
        for n in range(8, 4096, 97)
    ]
    return Predictor.fit(
        Sample((each,), slower * (1e-6 + each.flops * 1e-10 + each.weight_bytes * 1e-10))
        for each in works
    )


def test_times_of_both_sides_come_from_predictors() -> None:
    network = NETWORKS["lenet"]
    graph, _ = capture(network.build(), network.example())
    client, edge = predictor(SLOWER), predictor(1.0)
    predicted_s = [client.layer_s(layer) for layer in work(graph)]
    forecast = Forecast(graph, predicted_s)
    forecast.meet_edge(edge, 1 << 26)
    assert forecast.local_s() == pytest.approx(sum(predicted_s))
    assert forecast.local_s() == pytest.approx(
        SLOWER * forecast.edge_range_s(0, len(graph.layers)), rel=0.2
    )
    far = dataclasses.replace(LINK, rtt_s=1e3)
    everything = frozenset(range(len(graph.layers)))
    assert set(forecast.route(far, everything).placement) == {"client"}
