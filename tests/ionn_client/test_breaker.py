"""An edge that keeps failing is left alone for a while, and tried again with one query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.machine.breaker import FIRST_BACKOFF_S, MAX_BACKOFF_S, Breaker


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    assert [breaker.failed("slow", now) for _ in range(3)] == [False, False, True]
    return breaker


def test_three_failures_open_it_and_queries_stay_here() -> None:
    breaker = opened(now=10.0)
    assert breaker.state(10.0) == "open"
    assert not breaker.admits(10.5)
    assert breaker.left_s(10.4) == pytest.approx(0.6)
    assert breaker.last_failure == "slow"


def test_the_first_query_after_the_backoff_is_the_only_probe() -> None:
    breaker = opened()
    assert breaker.state(FIRST_BACKOFF_S) == "half-open"
    assert breaker.admits(FIRST_BACKOFF_S)
    assert breaker.sent(7)
    assert not breaker.admits(FIRST_BACKOFF_S)


def test_a_probe_that_succeeds_closes_it_and_one_more_failure_opens_it_for_longer() -> None:
    breaker = opened()
    breaker.sent(7)
    breaker.succeeded(7)
    assert breaker.state(1.0) == "closed"
    assert not breaker.sent(8)
    assert breaker.failed("again", 2.0)
    assert breaker.left_s(2.0) == 2 * FIRST_BACKOFF_S


def test_what_was_sent_before_it_opened_says_nothing_about_the_probe() -> None:
    breaker = opened()
    breaker.sent(7)
    breaker.succeeded(3)
    assert not breaker.failed("late", 1.1, 4)
    assert breaker.state(1.1) == "half-open"
    assert not breaker.admits(1.1)


def test_a_probe_that_says_nothing_leaves_room_for_the_next() -> None:
    breaker = opened()
    breaker.sent(7)
    breaker.settled(8)
    assert not breaker.admits(1.1)
    breaker.settled(7)
    assert breaker.admits(1.1)


def test_a_lost_connection_fails_the_probe() -> None:
    breaker = opened()
    breaker.sent(7)
    assert breaker.failed("reset", 1.1)
    assert breaker.state(1.2) == "open"


def test_the_backoff_doubles_to_its_limit_and_is_forgotten_after_successes() -> None:
    breaker, now, seen = opened(), 0.0, []
    for number in range(10):
        seen.append(breaker.left_s(now))
        now += breaker.left_s(now)
        breaker.sent(number)
        breaker.failed("slow", now, number)
    assert seen[:3] == [1.0, 2.0, 4.0]
    assert seen[-1] == MAX_BACKOFF_S
    now += breaker.left_s(now)
    breaker.sent(99)
    for _ in range(6):
        breaker.succeeded(99)
    assert [breaker.failed("slow", now) for _ in range(3)] == [False, False, True]
    assert breaker.left_s(now) == FIRST_BACKOFF_S


@pytest.mark.parametrize(("every", "opens"), [(2, True), (3, False), (20, False)])
def test_it_opens_in_the_end_if_more_than_a_third_fails(every: int, opens: bool) -> None:
    breaker = Breaker()
    for number in range(300):
        if number % every == 0:
            breaker.failed("slow", 0.0)
        else:
            breaker.succeeded(number)
    assert (breaker.state(0.0) == "open") == opens


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "fail", "over", "lost"]),
                          st.floats(0.0, 100.0), st.integers(0, 3))))  # fmt: skip
def test_it_never_lets_two_probes_out_and_always_lets_one_out_in_the_end(
    steps: list[tuple[str, float, int]],
) -> None:
    breaker, now, out = Breaker(), 0.0, set()
    for what, passed_s, number in steps:
        now += passed_s
        if what == "ask" and breaker.admits(now):
            if breaker.sent(number):
                assert not out
                out = {number}
        elif what == "ok":
            breaker.succeeded(number)
            out.discard(number)
        elif what == "over":
            breaker.settled(number)
            out.discard(number)
        elif what == "fail":
            breaker.failed("slow", now, number)
            out.discard(number)
        elif what == "lost":
            breaker.failed("gone", now)
            out.clear()
        if breaker.state(now) == "closed":
            out.clear()
    for number in range(4):
        breaker.settled(number)
    assert breaker.admits(now + MAX_BACKOFF_S)
