"""A battery's joules, shared out among the queries that it has to last for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client import Battery
from ionn_client.machine.battery import Rations

shares = st.floats(0, 1)


@given(st.floats(0, 1e6), st.lists(shares, min_size=1, max_size=30))
def test_rations_that_are_kept_never_overdraw_the_battery(
    energy_J: float, used: list[float]
) -> None:
    rations, drawn_J = Rations(Battery(energy_J, len(used))), 0.0
    for share in used:
        most_J = rations.most_J
        assert most_J is not None
        rations.asked(share * most_J)
        drawn_J += share * most_J
    assert drawn_J <= energy_J * (1 + 1e-9)
    assert rations.left_J == pytest.approx(energy_J - drawn_J, abs=1e-6)


def test_what_a_query_leaves_is_shared_among_the_next() -> None:
    rations = Rations(Battery(12.0, 3))
    assert rations.most_J == 4.0
    rations.asked(2.0)
    assert rations.most_J == 5.0
    rations.answered(2.0, 7.0)  # it fell back, and drew more
    assert rations.most_J == 2.5
    rations.asked(2.5)
    assert rations.most_J == 2.5


def test_an_overdrawn_battery_gives_nothing() -> None:
    rations = Rations(Battery(1.0, 2))
    rations.asked(3.0)
    assert (rations.left_J, rations.most_J) == (-2.0, 0.0)


def test_after_its_queries_the_last_share_is_what_is_left() -> None:
    rations = Rations(Battery(6.0, 1))
    for left_J in (6.0, 5.0, 4.0):
        assert rations.most_J == left_J
        rations.asked(1.0)


def test_without_a_battery_nothing_is_rationed() -> None:
    rations = Rations(None)
    rations.asked(None)
    rations.answered(None, None)
    assert (rations.left_J, rations.most_J) == (None, None)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, "much", None, 10**400])
def test_wrong_joules_are_refused_by_name(wrong: float) -> None:
    with pytest.raises(ValueError, match="energy_J"):
        Battery(wrong, 1)


@pytest.mark.parametrize("wrong", [0, -3, 1.5, math.nan])
def test_wrong_numbers_of_queries_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(ValueError, match="queries"):
        Battery(1.0, wrong)
