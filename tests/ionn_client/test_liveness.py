"""When an edge is asked whether it is there, and when its silence is the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.machine.liveness import Liveness

SILENCE_S = 1.8


def connected(rtt_s: float = 0.0) -> Liveness:
    """At time 0."""
    liveness = Liveness(SILENCE_S)
    liveness.opened(-rtt_s)
    liveness.heard(0.0)
    return liveness


def test_an_edge_that_never_greets_is_gone() -> None:
    liveness = Liveness(SILENCE_S)
    liveness.opened(5.0)
    assert liveness.ping_at() is None
    assert liveness.gone_at(0.0) == pytest.approx(5.0 + SILENCE_S)


@pytest.mark.parametrize(("rtt_s", "after_s"), [(0.001, 0.1), (0.05, 0.2), (1.0, 0.45)])
def test_pings_follow_the_round_trip_while_an_answer_is_owed(rtt_s: float, after_s: float) -> None:
    liveness = connected(rtt_s)
    assert liveness.ping_at() == pytest.approx(0.9)
    liveness.owed(0.3, owed=True)
    assert liveness.ping_at() == pytest.approx(0.3 + after_s)
    liveness.heard(0.31)
    assert liveness.ping_at() == pytest.approx(0.31 + after_s)
    liveness.owed(0.32, owed=False)
    assert liveness.ping_at() == pytest.approx(0.31 + 0.9)


def test_silence_that_was_not_asked_into_is_no_sign() -> None:
    liveness = connected()
    assert liveness.gone_at(0.0) is None
    # This program slept: the ping goes out late, and has its time.
    liveness.ping(60.0)
    assert liveness.gone_at(0.0) == pytest.approx(60.9)


def test_what_is_under_way_may_hold_up_the_pong() -> None:
    liveness = connected()
    liveness.ping(0.9)
    assert liveness.gone_at(4.0) == pytest.approx(SILENCE_S + 4.0)


def test_a_pong_is_answered_once_and_tells_the_time() -> None:
    liveness = connected()
    token = liveness.ping(0.9)
    assert liveness.ponged(token, 0.95) == pytest.approx(0.05)
    assert liveness.ponged(token, 0.96) is None
    assert liveness.gone_at(0.0) is None


def test_a_slow_way_has_its_time() -> None:
    liveness = connected(rtt_s=3.0)
    liveness.ping(0.9)
    assert liveness.gone_at(0.0) == pytest.approx(SILENCE_S + 3.0)


@given(st.lists(st.floats(0.0, 0.5), max_size=30), st.booleans(), st.floats(0.0, 0.2))
def test_an_edge_that_falls_silent_is_missed_within_two_seconds(
    heard: list[float], owed: bool, rtt_s: float
) -> None:
    liveness, now = connected(rtt_s), 0.0
    for gap_s in heard:
        now += gap_s
        liveness.heard(now)
    began = now
    liveness.owed(now, owed=owed)
    ping_at = liveness.ping_at()
    assert ping_at is not None
    liveness.ping(ping_at)
    gone_at = liveness.gone_at(0.0)
    assert gone_at is not None
    assert gone_at - began <= 2.0 + 1e-9
    # With time for the pong.
    assert gone_at - ping_at >= SILENCE_S / 2 + rtt_s - 1e-9


def test_what_was_under_way_while_the_machine_slept_tells_no_round_trip() -> None:
    liveness = Liveness(SILENCE_S)
    liveness.opened(0.0)
    liveness.slept(3590.0, 3600.0)
    liveness.heard(3600.1)
    token = liveness.ping(3601.0)
    assert liveness.gone_at(0.0) == pytest.approx(3600.1 + SILENCE_S)
    liveness.slept(3598.0, 7200.0)
    assert liveness.ponged(token, 7200.1) == pytest.approx(3599.1)
    assert liveness.rtt_s == 0.0
    token = liveness.ping(7200.1)
    liveness.slept(0.1, 7200.2)
    liveness.ponged(token, 7200.3)
    assert liveness.rtt_s == pytest.approx(0.2)
