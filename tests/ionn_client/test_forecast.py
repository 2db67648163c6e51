"""Predictions and their corrections, as the planner's numbers."""

from __future__ import annotations

import dataclasses

import pytest

from ionn_client.forecast import NEVER_BYTES, Forecast
from planner import Link
from planner.predictor import Predictor, Sample
from tests.support import WIDTH, chain

LAYERS = 3
LINK = Link(1e6, 1e6, 0.01)
ALL = frozenset(range(LAYERS))
PREDICTOR = Predictor.fit(
    [Sample("linear", 10.0**k, 10.0**k, 0.002 + 1e-9 * 10.0**k) for k in range(2, 8)]
)
ROOMY = 1 << 26


def forecast(client_s: float = 1.0) -> Forecast:
    graph, _ = chain(LAYERS)
    made = Forecast(graph, [client_s] * LAYERS)
    made.meet_edge(PREDICTOR, ROOMY)
    return made


def test_a_fast_edge_runs_everything_and_the_reason_names_the_layers() -> None:
    made = forecast()
    chosen = made.route(LINK, ALL)
    assert chosen.placement == ("edge",) * LAYERS
    text = made.explain(chosen, ALL)
    assert text.startswith("edge runs fc0..fc2 (0 KB up, 0 KB down); saves 2.9")


def test_the_reason_why_not_is_told_too() -> None:
    made = forecast(client_s=1e-6)
    assert "not" not in made.explain(made.route(LINK, ALL), frozenset())
    assert "longer than computing" in made.explain(made.route(LINK, ALL), ALL)


def test_observed_edge_times_move_the_route() -> None:
    made = forecast(client_s=0.02)
    assert "edge" in made.route(LINK, ALL).placement
    for _ in range(40):
        made.observe_edge(0, LAYERS, 5.0)
    assert made.route(LINK, ALL).placement == ("client",) * LAYERS
    for _ in range(500):
        made.relax_edge()
    assert "edge" in made.route(LINK, ALL).placement


def test_another_edge_starts_without_what_was_observed_of_the_last() -> None:
    made = forecast()
    before = made.edge_range_s(0, LAYERS)
    made.observe_edge(0, LAYERS, 5.0)
    assert made.edge_range_s(0, LAYERS) > 2 * before
    made.meet_edge(PREDICTOR, ROOMY)
    assert made.edge_range_s(0, LAYERS) == pytest.approx(before)


def test_a_cut_that_no_message_can_hold_is_never_taken() -> None:
    made = forecast()
    made.meet_edge(PREDICTOR, max_message_bytes=16)
    assert set(made.costs(LINK).cut_up_bytes) == {NEVER_BYTES}
    assert made.route(LINK, ALL).placement == ("client",) * LAYERS


def test_layers_whose_shared_weights_are_there_wait_for_nothing() -> None:
    graph, _ = chain(LAYERS)
    weights = list(graph.weights)
    weights[2] = dataclasses.replace(weights[2], digest=weights[0].digest)
    tied = dataclasses.replace(graph, weights=tuple(weights))
    made = Forecast(tied, [1.0] * LAYERS)
    made.meet_edge(PREDICTOR, ROOMY)
    size = WIDTH * WIDTH * 4
    assert made.costs(LINK, [size, size, 0]).available(frozenset()) == [False, False, False]
    assert made.costs(LINK, [0, size, 0]).available(frozenset()) == [True, False, True]
