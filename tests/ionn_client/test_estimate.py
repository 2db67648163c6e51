"""What acknowledgements and replies tell about the link."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client.machine.estimate import DeliveryRate, LinkEstimator, Skew, Smallest, Transit
from planner import Link


def hops(estimator: LinkEstimator, link: Link, up: int, down: int, count: int = 30) -> None:
    for _ in range(count):
        elapsed_s = link.rtt_s + up / link.up_Bps + down / link.down_Bps + 0.05
        estimator.observe_hop(up, down, elapsed_s, 0.05, idle=True)


@pytest.mark.parametrize(
    "true", [Link(1e6, 4e6, 0.04), Link(2e7, 1e6, 0.002), Link(5e6, 5e6, 0.02)]
)
def test_hops_alone_tell_both_rates_and_the_round_trip(true: Link) -> None:
    estimator = LinkEstimator(Link(3e6, 3e6, 0.01))
    for _ in range(6):
        hops(estimator, true, 100, 100)
        hops(estimator, true, 1_000_000, 100)
        hops(estimator, true, 100, 1_000_000)
    found = estimator.link
    assert found.rtt_s == pytest.approx(true.rtt_s, rel=0.1)
    assert found.up_Bps == pytest.approx(true.up_Bps, rel=0.1)
    assert found.down_Bps == pytest.approx(true.down_Bps, rel=0.1)


def test_an_uplink_measured_by_the_upload_is_left_alone_by_hops() -> None:
    estimator = LinkEstimator(Link(1e6, 1e6, 0.005))
    estimator.observe_upload(1e7)
    estimator.observe_hop(1_000_000, 0, 0.5, 0.0, idle=False)
    assert estimator.link.up_Bps == 1e7


def test_until_measured_the_downlink_is_taken_for_as_fast_as_the_uplink() -> None:
    estimator = LinkEstimator(Link(1e6, 1e6, 0.005))
    estimator.observe_upload(1e7)
    assert estimator.link.down_Bps == 1e7


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 10),
                          st.floats(0, 10), st.booleans())))  # fmt: skip
def test_any_observation_leaves_a_valid_link(
    observed: list[tuple[int, int, float, float, bool]],
) -> None:
    estimator = LinkEstimator(Link(1e6, 1e6, 0.01))
    for up, down, elapsed_s, busy_s, idle in observed:
        estimator.observe_hop(up, down, elapsed_s, busy_s, idle=idle)
        link = estimator.link
        assert link.up_Bps > 0
        assert link.down_Bps > 0
        assert link.rtt_s >= 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-10, 10)), min_size=1))
def test_the_smallest_is_that_of_the_last_seconds(steps: list[tuple[float, float]]) -> None:
    smallest, seen, now = Smallest(2.0), [], 0.0
    for pause_s, value in steps:
        now += pause_s
        seen.append((now, value))
        found = smallest.add(value, now)
        assert found == min(each for at, each in seen if at >= now - 2.0)


def test_a_wait_is_told_from_the_way_by_clocks_that_were_never_set() -> None:
    transit = Transit()
    for number in range(50):
        wait_s = 0.004 * (number % 3)
        sent_at = 0.1 * number
        arrived_s = sent_at + 0.01 + wait_s
        clock_s, found_s = transit.observe(sent_at, arrived_s + 5000, arrived_s + 0.02)
        assert clock_s == arrived_s + 5000
        assert found_s == pytest.approx(wait_s, abs=1e-9)
    assert transit.round_trip_s == pytest.approx(0.03)


@pytest.mark.parametrize("clock_s", [float("nan"), float("inf"), -float("inf"), 1e12])
def test_an_impossible_clock_is_replaced_by_our_own(clock_s: float) -> None:
    assert Transit().observe(1.0, clock_s, 1.5) == (1.5, 0.0)


def test_chunks_that_seem_to_come_before_they_were_sent_end_in_no_loop() -> None:
    transit = Transit()
    transit.observe(1.0, 5000.0, 1.1)
    # The clock jumped, and the chunk is so much larger that it seems to be sent tomorrow.
    assert transit.observe(2.0, 9000.0, 1.5) == (1.5, 0.0)
    assert transit.observe(2.5, 9000.1, 1.9)[0] == 1.9
    assert transit.round_trip_s == 0.0


def test_a_clock_that_stands_is_found_out_after_a_round_trip() -> None:
    transit = Transit()
    taken = [transit.observe(0.01 * i, 77.0, 0.01 * i + 0.03)[0] for i in range(20)]
    assert taken[0] == 77.0
    assert taken[10:] == pytest.approx([0.01 * i + 0.03 for i in range(10, 20)])


def test_the_rate_is_blind_to_pauses_of_the_edge() -> None:
    rate, clock_s = DeliveryRate(), 0.0
    for number in range(2000):
        clock_s += 0.001
        # For 40 ms in 400 it hears nothing, and then everything at once.
        heard_s = clock_s if number % 400 >= 40 else clock_s - clock_s % 0.4 + 0.04
        rate.add(max(heard_s, clock_s), 1000, filling=True)
    assert rate.Bps == pytest.approx(1e6, rel=0.05)


def test_a_sender_with_nothing_to_send_does_not_make_the_link_slow() -> None:
    rate = DeliveryRate()
    for number in range(500):
        rate.add(0.001 * number, 1000, filling=True)
    for number in range(500):
        rate.add(0.5 + 0.01 * number, 1000, filling=False)
    assert rate.Bps == pytest.approx(1e6, rel=0.05)


@pytest.mark.parametrize("skew", [0.0, 1e-4, -1e-4])
@pytest.mark.parametrize("longer_s", [0.0, 0.001, 0.02])
def test_a_skew_is_found_in_spite_of_jitter_and_of_a_way_that_becomes_longer(
    skew: float, longer_s: float
) -> None:
    found = Skew()
    chance = random.Random(1)
    for step in range(8_000):
        now = 50.0 + step / 1_000
        way_s = 0.01 + longer_s * (step > 5_000) + chance.uniform(0.0002, 0.001)
        found.observe(way_s - skew * now, now)
    assert found.share == pytest.approx(skew, abs=2e-5)


def test_no_skew_is_believed_that_no_clock_has() -> None:
    found = Skew()
    for step in range(8_000):
        found.observe(step / 1_000, step / 1_000)
    assert found.share == 0.0


def test_waits_do_not_grow_with_a_clock_that_gains() -> None:
    transit = Transit()
    chance = random.Random(1)
    for step in range(20_000):
        now = step / 1_000
        sent_at, there_s = now - 0.02, chance.uniform(0.0095, 0.01)
        _, wait_s = transit.observe(sent_at, 7.0 + 1.0001 * (sent_at + there_s), now)
        assert step < 3_000 or wait_s < 0.0007


@pytest.mark.parametrize("gained_s", [-0.06, 0.06, -1.0, 1.0])
def test_what_a_quartz_gains_while_nothing_is_sent_is_no_jump(gained_s: float) -> None:
    transit = Transit()
    transit.observe(0.0, 50.01, 0.02)
    clock_s = 650.01 + gained_s
    assert (transit.observe(600.0, clock_s, 600.02)[0] == clock_s) == (abs(gained_s) < 0.1)


def test_longer_chunks_change_nothing_of_a_way_that_is_not_known() -> None:
    transit, other = Transit(), Transit()
    transit.shift(0.5)
    assert transit.round_trip_s is None
    assert transit.observe(1.0, 50.0, 1.2) == other.observe(1.0, 50.0, 1.2)
    assert transit.round_trip_s == other.round_trip_s


def test_once_the_link_is_full_what_came_before_says_nothing_of_its_rate() -> None:
    rate, clock_s = DeliveryRate(), 0.0
    rate.full(clock_s)
    assert rate.Bps is None
    for size_bytes in (1_000, 2_000, 4_000):
        for _ in range(8):
            clock_s += 0.005
            rate.add(clock_s, size_bytes, filling=True)
    assert rate.Bps is not None
    assert rate.Bps < 600_000
    rate.full(clock_s)
    assert rate.Bps == pytest.approx(800_000, rel=0.1)
