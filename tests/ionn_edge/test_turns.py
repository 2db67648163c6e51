"""The event loop's time is shared by devices, not by connections."""

from __future__ import annotations

import pytest

from ionn_edge.turns import RESTS, Turns


def test_who_is_alone_does_not_wait() -> None:
    assert Turns().rest_s("a", 0.5, 10.0, alone=True) == 0.0


def test_a_device_rests_for_longer_than_it_has_worked() -> None:
    turns = Turns()
    assert turns.rest_s("a", 0.25, 10.0, alone=False) == pytest.approx(0.25 * RESTS)
    assert turns.rest_s("a", 0.25, 11.0, alone=False) == pytest.approx(0.25 * RESTS)


def test_a_devices_connections_rest_one_after_the_other() -> None:
    turns = Turns()
    rests = [turns.rest_s("a", 0.25, 10.0, alone=False) for _ in range(4)]
    assert rests == pytest.approx([0.25 * RESTS * n for n in (1, 2, 3, 4)])
    assert turns.rest_s("b", 0.25, 10.0, alone=False) == pytest.approx(0.25 * RESTS)


def test_a_device_that_is_gone_is_forgotten() -> None:
    turns = Turns()
    for number in range(100):
        turns.rest_s(str(number), 0.25, float(number), alone=False)
    assert len(turns._until) == 1
