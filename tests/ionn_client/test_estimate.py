"""The pacer and the link estimator against a simulated link on a virtual clock."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_client.estimate import LinkEstimator, UploadPacer
from planner import Link


def upload(
    rate_Bps: float, rtt_s: float, seconds: float, clock_offset_s: float = 1e4
) -> tuple[UploadPacer, float, float]:
    """Send as the pacer allows over a FIFO link. Returns it, the goodput and the worst queue."""
    pacer = UploadPacer(max_chunk_bytes=1 << 18)
    now, departs, worst_queue_s, delivered = 0.0, 0.0, 0.0, 0
    arrivals: list[tuple[float, float, int]] = []
    while now < seconds:
        while pacer.may_send(now):
            size = pacer.chunk_bytes()
            departs = max(departs, now) + size / rate_Bps
            if now > seconds / 2:
                worst_queue_s = max(worst_queue_s, departs - now)
            heapq.heappush(arrivals, (departs + rtt_s, departs + rtt_s / 2, size))
            pacer.sent(size, now)
        now, received_s, size = heapq.heappop(arrivals)
        delivered += size
        pacer.acknowledged(received_s + clock_offset_s, now)
    return pacer, delivered / now, worst_queue_s


@settings(max_examples=25, deadline=None)
@given(st.floats(5e5, 3e7), st.floats(0.001, 0.1))
def test_it_fills_any_link_and_keeps_the_queue_short(rate_Bps: float, rtt_s: float) -> None:
    pacer, goodput_Bps, queue_s = upload(rate_Bps, rtt_s, seconds=30.0)
    assert goodput_Bps > 0.93 * rate_Bps
    assert pacer.mean_rate_Bps == pytest.approx(rate_Bps, rel=0.1)
    assert queue_s < 0.02 + 1.3 * rtt_s + 5 * pacer.chunk_bytes() / rate_Bps


def test_chunks_are_a_few_milliseconds_of_the_link() -> None:
    pacer, _, _ = upload(1e7, 0.005, seconds=3.0)
    assert 0.002 < pacer.chunk_bytes() / 1e7 < 0.006


def test_a_lost_connection_empties_the_flight() -> None:
    pacer = UploadPacer(1 << 18)
    while pacer.may_send(0.0):
        pacer.sent(4096, 0.0)
    assert pacer.in_flight_bytes > 0
    pacer.reset_flight()
    assert pacer.in_flight_bytes == 0
    assert pacer.may_send(0.1)


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


@given(st.lists(st.floats(0, 1e300, allow_subnormal=True), min_size=2, max_size=40))
def test_no_clock_of_an_edge_can_break_the_pacer(clocks: list[float]) -> None:
    pacer = UploadPacer(1 << 18)
    now = 0.0
    for clock_s in [*clocks, 0.0, 5e-324]:
        pacer.sent(4096, now)
        now += 0.001
        pacer.acknowledged(clock_s, now)
        assert 1 <= pacer.chunk_bytes() <= 1 << 18
        pacer.may_send(now)


def test_a_query_in_between_does_not_look_like_a_slow_link() -> None:
    rate_Bps, now, departs = 1e6, 0.0, 0.0
    pacer = UploadPacer(1 << 18)
    for number in range(400):
        if number == 200:
            pacer.carried(600_000)
            departs += 0.6
        departs = max(now, departs) + 4096 / rate_Bps
        pacer.sent(4096, now)
        now = departs + 0.01
        pacer.acknowledged(departs, now)
        if number > 20:
            assert pacer.mean_rate_Bps is not None
            assert pacer.mean_rate_Bps > 0.25 * rate_Bps
    assert pacer.mean_rate_Bps == pytest.approx(4096 / 0.014096, rel=0.1)
