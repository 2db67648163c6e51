"""When a reply is late, from how late others were."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.machine.lateness import FLOOR_S, GRAIN_S, MEMORY, Lateness

TIMES = st.floats(0.0, 1e6)


def test_the_prior_holds_until_a_quantile_can_be_told() -> None:
    lateness = Lateness(prior=3.0)
    for _ in range(18):
        lateness.observe(0.1, 0.1)
        assert lateness.ratio == 3.0
    lateness.observe(0.1, 0.1)
    assert lateness.ratio == 1.0


def test_one_in_twenty_is_later_whatever_they_are_distributed_like() -> None:
    chance = random.Random(1)
    for draw in (chance.random, lambda: chance.paretovariate(1.5), lambda: chance.gauss(9, 1)):
        lateness, late = Lateness(prior=100.0), 0
        for number in range(4000):
            took_s = draw()
            late += number >= MEMORY and took_s > lateness.p95_s(0.5)
            lateness.observe(0.5, took_s)
        assert 0.04 < late / (4000 - MEMORY) < 0.06


def test_a_busy_moment_of_small_replies_does_not_delay_large_ones() -> None:
    lateness = Lateness(prior=3.0)
    for _ in range(MEMORY):
        lateness.observe(0.001, 0.02)
    assert lateness.p95_s(0.001) == pytest.approx(0.02)
    assert lateness.p95_s(2.0) < 2.8 * 2.0


def test_an_edge_that_becomes_quick_again_is_believed_after_a_while() -> None:
    lateness = Lateness(prior=3.0)
    for took_s in (1.0, 0.1):
        for _ in range(MEMORY):
            lateness.observe(0.1, took_s)
    assert lateness.ratio == pytest.approx(1.0)


@given(st.lists(st.tuples(TIMES, TIMES), max_size=2 * MEMORY), TIMES)
def test_no_reply_is_late_before_its_time(seen: list[tuple[float, float]], next_s: float) -> None:
    lateness = Lateness(prior=3.0)
    for expected_s, elapsed_s in seen:
        lateness.observe(expected_s, elapsed_s)
    assert next_s + FLOOR_S <= lateness.p95_s(next_s) < math.inf
    recent = [(b + GRAIN_S) / (a + GRAIN_S) for a, b in seen[-MEMORY:]]
    assert lateness.ratio in (*recent, 3.0)


def test_times_that_are_none_are_not_learnt_from() -> None:
    lateness = Lateness(prior=3.0)
    for _ in range(MEMORY):
        lateness.observe(1.0, math.inf)
        lateness.observe(1.0, math.nan)
    assert lateness.ratio == 3.0
