"""The pacer over a simulated link on a virtual clock: the link full, its queue short."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ionn_client.machine.calm import MOST_CHUNK_S
from ionn_client.machine.pacer import RESIZE, UploadPacer
from tests.link_simulation import Scenario, framed_bytes, idle, simulate

MBIT_BPS = 1e6 / 8
SECONDS = {5: 15.0, 20: 10.0, 80: 6.0}
RATES = (5, 20, 80)
ROUND_TRIPS_S = (0.002, 0.02, 0.04)
QUEUES_S = (0.05, 0.5)
SETTLED_S = 2.0


def scenario(rate_Mbit: int, round_trip_s: float, queue_s: float = 0.5) -> Scenario:
    return Scenario(rate_Mbit * MBIT_BPS, round_trip_s, queue_s, SECONDS[rate_Mbit])


def changed(
    before_Mbit: int, after_Mbit: int, round_trip_s: float, *, at: float, seconds: float
) -> tuple[Scenario, float]:
    """A link whose rate changes, and what it carries as payload per second from then on."""
    change = (at, after_Mbit * MBIT_BPS)
    rate_Bps = before_Mbit * MBIT_BPS
    link = Scenario(rate_Bps, round_trip_s, seconds=seconds, rate_changes=(change,))
    return link, link.payload_Bps * after_Mbit / before_Mbit


@pytest.mark.parametrize("queue_s", QUEUES_S)
@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize("rate_Mbit", RATES)
def test_the_upload_alone_fills_the_link(
    rate_Mbit: int, round_trip_s: float, queue_s: float
) -> None:
    link = scenario(rate_Mbit, round_trip_s, queue_s)
    outcome = simulate(link)
    share = 0.97 if (rate_Mbit, round_trip_s) != (80, 0.002) else 0.95
    assert outcome.goodput_Bps(SETTLED_S, link.seconds) >= share * link.payload_Bps
    assert outcome.rate_at(link.seconds) == pytest.approx(link.payload_Bps, rel=0.1)


@pytest.mark.parametrize("query_bytes", [1_000, 150_000])
@pytest.mark.parametrize("queue_s", QUEUES_S)
@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize("rate_Mbit", RATES)
def test_queries_hardly_wait_for_the_upload_and_the_link_stays_full(
    rate_Mbit: int, round_trip_s: float, queue_s: float, query_bytes: int
) -> None:
    link = replace(scenario(rate_Mbit, round_trip_s, queue_s), query_bytes=query_bytes)
    busy, alone = simulate(link), idle(link)
    assert busy.goodput_Bps(SETTLED_S, link.seconds) >= 0.95 * link.payload_Bps
    # A query that overflows the router's queue by itself differs by its own losses.
    overflows = query_bytes > queue_s * link.rate_Bps
    if round_trip_s >= 0.02 or overflows:
        assert busy.latency_s(0.5) <= 1.15 * alone.latency_s(0.5)
        assert busy.latency_s(0.95) <= 1.35 * alone.latency_s(0.95)
    else:
        # One chunk is being sent, and where it is a packet, some half of another stands behind it.
        chunk_s = max(0.0015, 1514 / link.rate_Bps)
        assert busy.latency_s(0.5) <= alone.latency_s(0.5) + 1.55 * chunk_s


@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize(("before", "after"), [(5, 10), (5, 25), (20, 4), (20, 10), (80, 16)])
def test_a_change_of_the_rate_is_known_within_two_seconds(
    before: int, after: int, round_trip_s: float
) -> None:
    link, true_Bps = changed(before, after, round_trip_s, at=4.0, seconds=8.0)
    outcome = simulate(link)
    for seconds in (2.0, 3.0, 3.9):
        assert outcome.rate_at(4.0 + seconds) == pytest.approx(true_Bps, rel=0.1)
    assert outcome.goodput_Bps(6.0, 8.0) > 0.85 * true_Bps


@pytest.mark.parametrize("round_trip_s", [0.002, 0.04])
@pytest.mark.parametrize(
    ("before", "after", "seed"), [(5, 20, 1), (20, 80, 5), (10, 15, 2), (40, 30, 3)]
)
def test_large_chunks_leave_no_wrong_least_times_behind(
    before: int, after: int, round_trip_s: float, seed: int
) -> None:
    link, true_Bps = changed(before, after, round_trip_s, at=8.0, seconds=16.0)
    outcome = simulate(replace(link, jitter_s=(0.0005, 0.003), seed=seed))
    known = [rate_Bps for at, rate_Bps in outcome.rates if at >= 10.0]
    assert known == pytest.approx([true_Bps] * len(known), rel=0.1)
    assert outcome.goodput_Bps(10.0, 16.0) > 0.95 * true_Bps


@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize("rate_Mbit", RATES)
def test_an_edge_that_stands_still_now_and_then_is_no_slow_link(
    rate_Mbit: int, round_trip_s: float
) -> None:
    link = replace(scenario(rate_Mbit, round_trip_s), stall_every_s=0.5)
    outcome = simulate(link)
    # More than a pause on average, which would be 5 %, is lost to no pacer.
    assert outcome.goodput_Bps(SETTLED_S, link.seconds) > 0.88 * link.payload_Bps
    for now in (3.0, 4.0, 5.0):
        assert outcome.rate_at(now) == pytest.approx(link.payload_Bps, rel=0.1)


@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize("rate_Mbit", RATES)
def test_start_up_soon_fills_the_link_without_a_long_queue(
    rate_Mbit: int, round_trip_s: float
) -> None:
    link = replace(scenario(rate_Mbit, round_trip_s), seconds=1.0)
    outcome = simulate(link)
    began_s = 0.1 + 8 * round_trip_s
    assert outcome.goodput_Bps(began_s, began_s + 0.4) > 0.9 * link.payload_Bps
    assert outcome.worst_queue_s(0.0, 1.0) < 1.2 * max(0.03, round_trip_s)


@pytest.mark.parametrize(
    "edge_clock",
    [
        pytest.param(lambda now: 7.0, id="standing"),  # noqa: ARG005
        pytest.param(lambda now: 1e300, id="huge"),  # noqa: ARG005
        pytest.param(lambda now: 3 * now, id="fast"),
        pytest.param(lambda now: now / 2, id="slow"),
        pytest.param(lambda now: -now, id="backward"),
        pytest.param(lambda now: now + 1e6 * (now > 3), id="jumping"),
        pytest.param(lambda now: 1.00005 * now, id="drifting ahead"),
        pytest.param(lambda now: 0.99995 * now, id="drifting back"),
    ],
)
def test_whatever_the_edges_clock_says_link_and_queries_fare_well(
    edge_clock: Callable[[float], float],
) -> None:
    link = replace(scenario(20, 0.02), query_bytes=1_000, edge_clock=edge_clock)
    outcome, alone = simulate(link), idle(link)
    assert outcome.goodput_Bps(SETTLED_S, link.seconds) > 0.9 * link.payload_Bps
    assert outcome.latency_s(0.5) < 1.2 * alone.latency_s(0.5)
    assert outcome.rate_at(link.seconds) == pytest.approx(link.payload_Bps, rel=0.1)


@pytest.mark.parametrize("skew", [1e-4, -1e-4])
@pytest.mark.parametrize("round_trip_s", [0.002, 0.04])
@pytest.mark.parametrize("rate_Mbit", [20, 80])
def test_a_clock_that_drifts_costs_no_throughput(
    rate_Mbit: int, round_trip_s: float, skew: float
) -> None:
    link = replace(scenario(rate_Mbit, round_trip_s), seconds=8.0)
    drifting = replace(link, edge_clock=lambda now: 5.0 + (1 + skew) * now)
    outcome, steady = simulate(drifting), simulate(link)
    assert outcome.goodput_Bps(3.0, 8.0) >= 0.985 * steady.goodput_Bps(3.0, 8.0)


@pytest.mark.parametrize("rate_Mbit", RATES)
def test_a_large_reply_holds_the_upload_up_no_more_than_queries_do(rate_Mbit: int) -> None:
    link = replace(scenario(rate_Mbit, 0.02), query_bytes=1_000, reply_bytes=150_000)
    outcome, alone = simulate(link), idle(link)
    # At 5 Mbit/s TCP's acknowledgements of replies and what is around chunks take 4% of the link.
    assert outcome.goodput_Bps(SETTLED_S, link.seconds) > 0.94 * link.payload_Bps
    assert outcome.latency_s(0.5) < 1.15 * alone.latency_s(0.5)


def test_a_way_that_became_longer_is_not_taken_for_a_queue_for_long() -> None:
    link = replace(scenario(20, 0.02), seconds=16.0, way_changes=((4.0, 0.06), (11.0, 0.02)))
    outcome = simulate(link)
    assert outcome.goodput_Bps(8.0, 11.0) > 0.9 * link.payload_Bps
    assert outcome.goodput_Bps(12.0, 16.0) > 0.95 * link.payload_Bps


@pytest.mark.parametrize(
    ("rate_Mbit", "before_s", "after_s"), [(5, 0.02, 0.06), (20, 0.002, 0.04), (80, 0.02, 0.06)]
)
def test_a_way_that_became_longer_starves_the_upload_for_a_second_or_two(
    rate_Mbit: int, before_s: float, after_s: float
) -> None:
    link = replace(scenario(rate_Mbit, before_s), seconds=9.0, way_changes=((4.0, after_s),))
    assert simulate(link).goodput_Bps(6.5, 9.0) > 0.95 * link.payload_Bps


@settings(max_examples=15, deadline=None)
@given(st.floats(5e5, 1e7), st.floats(0.001, 0.1))
def test_it_fills_any_link_and_keeps_the_queue_short(rate_Bps: float, rtt_s: float) -> None:
    outcome = simulate(Scenario(rate_Bps, rtt_s, seconds=6.0))
    assert outcome.goodput_Bps(3.0, 6.0) > 0.9 * rate_Bps * 0.956
    queues = [queue_s for at, queue_s in outcome.queues_s if at > 3.0]
    # Nobody asks: what a large chunk puts there may stand in front of the first who does.
    large_s = MOST_CHUNK_S
    assert sum(queues) / len(queues) < 0.006 + large_s + 0.2 * rtt_s + 3 * 1514 / rate_Bps


def paced(way_s: float, seconds: float) -> UploadPacer:
    """A pacer that has used a link of 10 MB/s for so long."""
    pacer, now = UploadPacer(1 << 18), 0.0
    while now < seconds:
        while pacer.may_send(now):
            pacer.sent(pacer.chunk_bytes(), now)
        now += pacer.chunk_bytes() / 1e7
        pacer.acknowledged(now, now + way_s)
    return pacer


@pytest.mark.parametrize("chunks", range(1, 12))
@pytest.mark.parametrize("jump_s", [-2.0, 2.0])
@pytest.mark.parametrize("clock_s", [-1_000.0, 0.0, 1_000.0])
def test_a_clock_that_jumps_makes_the_link_no_slower(
    clock_s: float, jump_s: float, chunks: int
) -> None:
    pacer, now = UploadPacer(1 << 18), 0.0
    for arrived in range(1, 40):
        while pacer.may_send(now):
            pacer.sent(pacer.chunk_bytes(), now)
        now += pacer.chunk_bytes() / 1e6
        jumped_s = jump_s if arrived >= chunks else 0.0
        pacer.acknowledged(now + clock_s + jumped_s, now + 0.02)
        assert (pacer.mean_rate_Bps or 1e6) > 5e5


@pytest.mark.parametrize(("way_s", "chunk_s"), [(0.002, 0.0015), (0.01, 0.0015), (0.05, 0.004)])
def test_chunks_take_a_millisecond_and_a_half_or_a_share_of_the_way(
    way_s: float, chunk_s: float
) -> None:
    pacer = paced(way_s, 0.8)
    alone_s = pacer.chunk_bytes() / 1e7
    pacer.carried(1_000, 0.9)
    beside_queries_s = pacer.chunk_bytes() / 1e7
    assert beside_queries_s == pytest.approx(chunk_s, rel=0.35)
    assert alone_s == pytest.approx(2 * chunk_s, rel=0.35)
    assert framed_bytes(pacer.chunk_bytes()) % 1448 == 0


@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize(("query_bytes", "chunk_s"), [(0, MOST_CHUNK_S), (1_000, 0.004)])
def test_chunks_are_large_while_nobody_asks_and_nothing_changes(
    round_trip_s: float, query_bytes: int, chunk_s: float
) -> None:
    link = replace(scenario(80, round_trip_s), query_bytes=query_bytes)
    sizes = [size for at, size in simulate(link).delivered if at > 3.0]
    longest_s = framed_bytes(max(sizes)) / link.payload_Bps
    assert longest_s < chunk_s
    assert query_bytes or longest_s > chunk_s / RESIZE


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("rate_Mbit", [5, 80])
def test_what_scatters_does_not_make_chunks_small_again(rate_Mbit: int, seed: int) -> None:
    link = Scenario(rate_Mbit * MBIT_BPS, 0.002, 0.05, 20.0, (0.0005, 0.003), seed=seed)
    sizes = [size for at, size in simulate(link).delivered if at > 4.0]
    assert min(sizes) > 0.02 * link.payload_Bps


@pytest.mark.parametrize("round_trip_s", ROUND_TRIPS_S)
@pytest.mark.parametrize(("before", "after"), [(20, 4), (20, 10), (80, 16)])
def test_large_chunks_tell_of_a_slower_link_at_once(
    before: int, after: int, round_trip_s: float
) -> None:
    link, true_Bps = changed(before, after, round_trip_s, at=5.0, seconds=6.5)
    outcome = simulate(link)
    # Three chunks tell, each of which takes so many times as long.
    assert outcome.rate_at(5.1 + 3 * MOST_CHUNK_S * before / after) == pytest.approx(
        true_Bps, rel=0.1
    )
    assert outcome.goodput_Bps(5.7, 6.5) > 0.9 * true_Bps


def test_a_large_chunk_that_was_not_sent_in_time_says_nothing_of_the_link() -> None:
    # The edge stands still, and with it the acknowledgements that let chunks go.
    link = replace(scenario(80, 0.04), seconds=5.0, stall_every_s=1.0, stall_s=(0.08, 0.1))
    outcome = simulate(link)
    for now in (3.0, 4.0, 5.0):
        assert outcome.rate_at(now) == pytest.approx(link.payload_Bps, rel=0.1)


def test_a_link_that_became_faster_has_small_chunks_first() -> None:
    link, true_Bps = changed(5, 40, 0.002, at=5.0, seconds=5.8)
    outcome = simulate(link)
    before, after = (
        max(size for at, size in outcome.delivered if begin < at < end)
        for begin, end in ((4.5, 5.0), (5.3, 5.8))
    )
    assert after / 40 < before / 5 / 3
    assert outcome.goodput_Bps(5.5, 5.8) > 0.9 * true_Bps


def test_what_may_be_sent_without_hearing_is_due_when_it_has_arrived() -> None:
    pacer = paced(0.01, 2.0)
    while pacer.may_send(2.0):
        pacer.sent(pacer.chunk_bytes(), 2.0)
    due_at = pacer.due_at()
    assert due_at is not None
    assert due_at < 2.02 + pacer.chunk_bytes() / 1e7
    assert pacer.may_send(due_at)
    # Once: nothing is known of the chunks after the one that arrives.
    sent_bytes = 0
    while pacer.may_send(9.0):
        pacer.sent(pacer.chunk_bytes(), 9.0)
        sent_bytes += pacer.chunk_bytes()
    assert sent_bytes <= 2 * pacer.chunk_bytes()
    assert pacer.due_at() is None


def test_no_chunk_is_larger_than_the_edge_takes() -> None:
    assert UploadPacer(500).chunk_bytes() == 500


def test_a_lost_connection_empties_the_flight() -> None:
    pacer = UploadPacer(1 << 18)
    while pacer.may_send(0.0):
        pacer.sent(1428, 0.0)
    assert pacer.in_flight_bytes > 0
    pacer.reset_flight()
    assert pacer.in_flight_bytes == 0
    assert pacer.may_send(0.0)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=60))
def test_no_clock_of_an_edge_can_break_the_pacer(clocks: list[float]) -> None:
    pacer = UploadPacer(1 << 18)
    now = 0.0
    for clock_s in [*clocks, 0.0, 5e-324]:
        pacer.sent(pacer.chunk_bytes(), now)
        now += 0.001
        pacer.acknowledged(clock_s, now)
        assert 1 <= pacer.chunk_bytes() <= 1 << 18
        assert pacer.window_bytes() > 0
        assert pacer.may_send(now)


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_chunk_that_a_query_overtook_says_nothing_about_the_queue(overtaken: bool) -> None:
    pacer = UploadPacer(1 << 20, overtaken=overtaken)
    pacer.sent(pacer.chunk_bytes(), 0.0)
    pacer.acknowledged(1.0, 0.02)
    window_bytes = pacer.window_bytes()
    while pacer.may_send(0.02):
        pacer.sent(pacer.chunk_bytes(), 0.02)
    pacer.carried(150_000, 0.02)
    # Each waits for as long as the query takes: on one connection, those before it would not.
    for number in range(5):
        pacer.acknowledged(1.08 + number / 1e4, 0.10 + number / 1e4)
    assert (pacer.window_bytes() >= window_bytes) == overtaken


def test_queries_that_leave_no_chunk_alone_leave_the_upload_its_link() -> None:
    link = replace(scenario(20, 0.02), seconds=3.5, query_bytes=150_000, pause_s=0.0)
    outcome, alone = simulate(link), idle(link)
    assert outcome.goodput_Bps(2.5, 3.5) > 0.95 * link.payload_Bps
    assert outcome.latency_s(0.5) < 1.15 * alone.latency_s(0.5)


def started_up(pause_s: float) -> float:
    """The window after a second and a half of start-up on a long way. The edge pauses in it."""
    pacer, now, free_at = UploadPacer(1 << 18), 0.0, 0.0
    arrivals: deque[float] = deque()
    while now < 1.5:
        while pacer.may_send(now):
            size_bytes = pacer.chunk_bytes()
            pacer.sent(size_bytes, now)
            free_at = max(free_at, now + 0.1) + size_bytes / 1e7
            arrivals.append(1.12 + pause_s if 1.12 <= free_at < 1.12 + pause_s else free_at)
        clock_s = arrivals.popleft()
        now = clock_s + 0.1
        pacer.acknowledged(clock_s, now)
    return pacer.window_bytes()


def test_a_pause_of_the_edge_does_not_end_the_start_up() -> None:
    assert started_up(pause_s=0.15) > 0.75 * started_up(pause_s=0.0)
