"""The event loop's time is shared by devices, not by connections."""

from __future__ import annotations

import pytest

from ionn_edge.machine.turns import RESTS, SMALL_BYTES, SMALL_S, Turns, cost_s


def test_who_is_alone_does_not_wait() -> None:
    assert Turns().rest_s("a", 0.5, 10.0, alone=True) == 0.0


def test_a_device_rests_for_longer_than_it_has_worked() -> None:
    turns = Turns()
    assert turns.rest_s("a", 0.25, 10.0, alone=False) == pytest.approx(0.25 * RESTS)
    assert turns.rest_s("a", 0.25, 20.0, alone=False) == pytest.approx(0.25 * RESTS)


def test_a_devices_connections_rest_one_after_the_other() -> None:
    turns = Turns()
    rests = [turns.rest_s("a", 0.25, 10.0, alone=False) for _ in range(4)]
    assert rests == pytest.approx([0.25 * RESTS * n for n in (1, 2, 3, 4)])
    assert turns.rest_s("b", 0.25, 10.0, alone=False) == pytest.approx(0.25 * RESTS)


def test_a_device_that_is_gone_is_forgotten() -> None:
    turns = Turns()
    for number in range(100):
        turns.rest_s(str(number), 0.25, 10.0 * number, alone=False)
    assert len(turns._until) == 1


def test_who_keeps_within_its_share_does_not_rest() -> None:
    turns, now = Turns(spare_s=0.25), 10.0
    for _ in range(1000):
        assert turns.rest_s("a", 0.25, now, alone=False) == 0.0
        now += 0.25 * RESTS


def test_who_does_not_has_what_is_spare_and_then_its_share() -> None:
    turns, now, spent_s = Turns(spare_s=0.5), 10.0, 0.0
    while now < 110.0:
        spent_s += 0.1
        now += 0.1 + turns.rest_s("a", 0.1, now + 0.1, alone=False)
    assert spent_s == pytest.approx(0.5 + 100.0 / RESTS, rel=0.02)


def test_shares_may_be_smaller() -> None:
    turns = Turns(spare_s=0.5, rests=19.0)
    assert turns.rest_s("a", 0.5, 10.0, alone=False) == 0.0
    assert turns.rest_s("a", 0.25, 10.0, alone=False) == pytest.approx(0.25 * 19.0)


def test_small_messages_count_for_more_than_is_seen_of_them() -> None:
    assert cost_s(3, 1e-6) == SMALL_S
    assert cost_s(3, 0.5) == 0.5
    assert cost_s(SMALL_BYTES, 1e-6) == 1e-6
