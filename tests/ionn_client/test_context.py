"""What a query finds on its way: chunks before it, unless it goes past them."""

from __future__ import annotations

import pytest

from ionn_client import Options
from ionn_client.machine.context import Context
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.pacer import UploadPacer
from planner import Link
from tests.support import chain

LINK = Link(1e6, 1e6, 0.01)


@pytest.mark.parametrize("overtaken", [False, True])
def test_chunks_under_way_hold_up_what_comes_behind_them(overtaken: bool) -> None:
    graph, _ = chain(1)
    context = Context(graph, Forecast(graph, [1.0]), Options(assumed_link=LINK))
    assert context.queueing_s() == 0
    pacer = context.pacer = UploadPacer(1 << 20, overtaken=overtaken)
    # The way itself holds 10 KB; what is beyond that waits.
    for now in range(6):
        pacer.sent(5000, float(now))
    assert context.queueing_s() == (0 if overtaken else pytest.approx(0.02))
    assert context.acknowledging_s() == 0
    assert context.link_now().rtt_s == pytest.approx(0.01 if overtaken else 0.03)


def test_what_the_way_holds_is_told_by_chunks_and_not_by_queries() -> None:
    graph, _ = chain(1)
    # Of a link whose round trip was taken for a fourth of what it is.
    context = Context(graph, Forecast(graph, [1.0]), Options(assumed_link=LINK))
    pacer = context.pacer = UploadPacer(1 << 20)
    for number in range(20):
        pacer.sent(1000, 0.001 * number)
    for number in range(20):
        pacer.acknowledged(0.02 + 0.001 * number, 0.04 + 0.001 * number)
        pacer.sent(1000, 0.04 + 0.001 * number)
        pacer.sent(1000, 0.04 + 0.001 * number)
    # 40 KB under way are what 40 ms hold at a megabyte per second.
    assert pacer.round_trip_s == pytest.approx(0.04)
    assert context.queueing_s() == pytest.approx(0.0, abs=1e-9)


def test_nothing_is_heard_before_the_oldest_chunk_is_there_and_what_it_came_behind() -> None:
    graph, _ = chain(1)
    context = Context(graph, Forecast(graph, [1.0]), Options(assumed_link=LINK))
    assert context.acknowledging_s() == 0
    pacer = context.pacer = UploadPacer(1 << 20)
    pacer.carried(40_000, 0.0)
    for now in range(6):
        pacer.sent(30_000, float(now))
    assert context.acknowledging_s() == pytest.approx(0.07 - LINK.rtt_s)
    pacer.acknowledged(1.0, 6.0)
    assert pacer.oldest_bytes == 30_000
