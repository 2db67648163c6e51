"""A slow link is told from a slow edge: each answer's own time corrects only what it is about."""

from __future__ import annotations

import dataclasses

import pytest

from ionn_client.machine import events
from ionn_client.machine.layer_times import LayerTimes
from tests.ionn_client.test_session import LAYERS, Bench, X, answer_on_edge, only, sent

PREDICTED_S, ROUNDS = 0.002, 12


def asked(compute_s: float, after_s: float) -> Bench:
    """A dozen queries that the edge answers: its own time, and when the answer arrives."""
    bench = Bench()
    bench.upload_all()
    forecast = bench.session.forecast
    forecast._edge = LayerTimes([PREDICTED_S / LAYERS] * LAYERS)
    for number in range(ROUNDS):
        (message,) = sent(bench.step(events.QueryAsked(number, (X,), None), after_s=0.5))
        answer = dataclasses.replace(answer_on_edge(bench, message), compute_s=compute_s)
        only(bench.hear(answer, after_s=after_s), events.FinishQuery)
    return bench


def test_an_edge_that_is_slower_than_predicted_is_learnt_whatever_the_link() -> None:
    for link_s in (0.01, 0.05):
        bench = asked(compute_s=4 * PREDICTED_S, after_s=4 * PREDICTED_S + link_s)
        edge_s = bench.session.forecast.edge_range_s(0, LAYERS)
        assert edge_s == pytest.approx(4 * PREDICTED_S, rel=0.1)


def test_a_link_that_is_slow_changes_nothing_about_the_edge() -> None:
    quick, slow = (asked(PREDICTED_S, PREDICTED_S + link_s) for link_s in (0.011, 0.05))
    for bench in (quick, slow):
        edge_s = bench.session.forecast.edge_range_s(0, LAYERS)
        assert edge_s == pytest.approx(PREDICTED_S, rel=1e-6)
    # It is the link that is found slower.
    assert slow.session.link.rtt_s + 1 / slow.session.link.up_Bps > (
        quick.session.link.rtt_s + 1 / quick.session.link.up_Bps
    )
