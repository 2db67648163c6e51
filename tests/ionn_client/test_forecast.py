"""Predictions and their corrections, as the planner's numbers."""

from __future__ import annotations

import dataclasses
import re

import pytest

from ionn_client.activations import Activations
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.route_sentence import route_sentence
from ionn_client.machine.sendable import NEVER_BYTES
from planner import CutCoding, Link, Route
from planner.predictor import Predictor, Sample
from planner.work import OperatorWork
from tests.support import WIDTH, chain

LAYERS = 3
LINK = Link(1e6, 1e6, 0.01)
ALL = frozenset(range(LAYERS))
PREDICTOR = Predictor.fit(
    [
        Sample((OperatorWork("linear", 10.0**k, 10.0**k),), 0.002 + 1e-9 * 10.0**k)
        for k in range(2, 8)
    ]
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
    assert text.startswith("edge runs fc0..fc2 (32 B up, 32 B down); saves 2.9")


def test_little_that_is_saved_is_told_in_units_that_show_it() -> None:
    made = forecast(client_s=0.008)
    text = made.explain(made.route(LINK, ALL), ALL)
    assert re.search(r"; saves \d\.\d\d ms$", text), text


def test_what_costs_joules_does_not_save_them() -> None:
    graph, _ = chain(LAYERS)
    here = Route(0.05, ("client",) * LAYERS, 0.25)
    chosen = Route(0.02, ("edge",) * LAYERS, 0.4)
    crossing = forecast().up_coding
    text = route_sentence(graph, chosen, here, ALL, crossing, crossing)
    assert text.endswith("; saves 30.0 ms, costs 150 mJ more")


def test_the_reason_why_not_is_told_too() -> None:
    made = forecast(client_s=1e-6)
    assert "not" not in made.explain(made.route(LINK, ALL), frozenset())
    assert "longer than computing" in made.explain(made.route(LINK, ALL), ALL)


def test_an_edge_a_thousand_times_as_slow_as_it_said_is_left() -> None:
    made = forecast()
    for _ in range(12):
        made.observe_edge(0, LAYERS, 2000 * 0.006)
    assert made.edge_range_s(0, LAYERS) == pytest.approx(12, rel=0.2)
    assert made.route(LINK, ALL).placement == ("client",) * LAYERS


def test_observed_edge_times_move_the_route() -> None:
    made = forecast(client_s=0.02)
    assert "edge" in made.route(LINK, ALL).placement
    for _ in range(40):
        made.observe_edge(0, LAYERS, 5.0)
    assert made.route(LINK, ALL).placement == ("client",) * LAYERS
    for _ in range(500):
        made.relax_edge()
    assert "edge" in made.route(LINK, ALL).placement


def test_a_route_is_found_once_for_what_hardly_moves() -> None:
    made = forecast()
    first = made.route(LINK, ALL)
    near = Link(LINK.up_Bps * 1.009, LINK.down_Bps * 0.991, LINK.rtt_s * 1.009)
    assert made.route(near, frozenset(range(LAYERS))) is first
    for _ in range(3):
        made.observe_edge(0, LAYERS, made.edge_range_s(0, LAYERS))
    assert made.route(near, ALL) is first


@pytest.mark.parametrize(
    "link",
    [
        dataclasses.replace(LINK, up_Bps=LINK.up_Bps * 1.02),
        dataclasses.replace(LINK, down_Bps=LINK.down_Bps * 1.02),
        dataclasses.replace(LINK, rtt_s=LINK.rtt_s + 0.01),
    ],
)
def test_a_route_is_found_anew_for_another_link(link: Link) -> None:
    made = forecast()
    assert made.route(link, ALL).latency_s != made.route(LINK, ALL).latency_s
    assert made.route(link, ALL) == forecast().route(link, ALL)


def test_a_route_is_found_anew_for_other_layers_losses_rations_and_edges() -> None:
    made = forecast()
    first = made.route(LINK, ALL)
    assert made.route(LINK, frozenset({0})) != first
    assert made.route(LINK, ALL) == first
    assert made.route(LINK, ALL, lossless=True) is not made.route(LINK, ALL)
    again = made.route(LINK, ALL)
    assert made.route(LINK, ALL, most_J=1.0) is not again
    made.meet_edge(None, ROOMY)
    assert made.route(LINK, ALL).latency_s != first.latency_s


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


def tolerant(client_s: float, raw_bytes: float = 1000.0) -> Forecast:
    """Cuts that are ten times as short with loss as without."""
    graph, _ = chain(LAYERS)
    cut = (CutCoding("raw", raw_bytes, 0, 0), CutCoding("affine8", raw_bytes / 10, 0, 0))
    errors = {(number, "affine8"): 0.01 for number in range(LAYERS + 1)}
    made = Forecast(graph, [client_s] * LAYERS, Activations((cut,) * (LAYERS + 1), errors), 0.02)
    made.meet_edge(PREDICTOR, ROOMY)
    return made


def test_a_query_that_may_lose_nothing_is_priced_as_it_will_be_sent() -> None:
    link, made = Link(1e3, 1e6, 0.0), tolerant(client_s=0.25)
    rough = made.route(link, ALL)
    assert rough.placement == ("edge",) * LAYERS
    assert rough.latency_s == pytest.approx(0.1, abs=0.02)
    exact = made.route(link, ALL, lossless=True)
    # A second up is longer than computing here.
    assert exact.placement == ("client",) * LAYERS
    assert exact.latency_s == pytest.approx(0.25 * LAYERS)
    assert made.up_coding(0).coding == "affine8"
    assert made.up_coding(0, lossless=True).coding == "raw"


def test_what_is_seen_of_a_crossing_is_known_of_both_kinds_of_queries() -> None:
    link, made = Link(1e3, 1e6, 0.0), tolerant(client_s=1.0)
    for lossless in (False, True):
        before_s = made.route(link, ALL, lossless=lossless).latency_s
        made.observe_crossing_up(0, "affine8", 20)
        made.observe_crossing_up(0, "raw", 20)
        assert (made.route(link, ALL, lossless=lossless).latency_s < before_s) != lossless


@pytest.mark.parametrize(
    ("client_s", "placement", "latency_s"),
    [
        (2.0, ("edge", "client", "edge"), 0.1 + 2.0 + 1.0),
        (0.5, ("edge", "client", "client"), 0.1 + 0.5 + 0.5),
        (0.05, ("client", "client", "client"), 3 * 0.05),
    ],
)
def test_a_second_crossing_is_without_loss_and_priced_so(
    client_s: float, placement: tuple[str, ...], latency_s: float
) -> None:
    # The edge lacks the middle layer; a cut takes 0.1 s with loss, and 1 s without.
    chosen = tolerant(client_s).route(Link(1e3, 1e6, 0.0), frozenset({0, 2}))
    assert chosen.placement == placement
    assert chosen.latency_s == pytest.approx(latency_s, abs=0.02)


def test_what_coding_takes_at_the_edge_is_known_of_every_way_that_codes() -> None:
    graph, _ = chain(LAYERS)
    cut = (CutCoding("raw", 1e6, 0, 0), CutCoding("planes", 1e3, 0.1, 0.3))
    made = Forecast(graph, [9.0] * LAYERS, Activations((cut,) * (LAYERS + 1)))
    made.meet_edge(PREDICTOR, ROOMY)
    before_s = made.route(LINK, ALL).latency_s
    # Twice as long as it takes here: 0.3 s to decode what goes up, 0.1 s to code what comes down.
    made.observe_edge_coding(0, "planes", LAYERS, "planes", 0.8)
    assert made.up_option(0, "planes").decode_s > 0.3
    assert made.up_option(0, "planes").encode_s == 0.1
    assert made.up_option(LAYERS, "planes").decode_s == 0.3
    more_s = made.up_option(0, "planes").decode_s - 0.3
    assert made.route(LINK, ALL).latency_s == pytest.approx(before_s + more_s * 4 / 3)
    before_s = made.route(LINK, ALL).latency_s
    made.observe_edge_coding(0, "raw", LAYERS, "raw", 5.0)
    assert made.route(LINK, ALL).latency_s == before_s
