"""How much one device may ask, over all of its connections."""

from __future__ import annotations

from dataclasses import dataclass

from ionn_edge.config import Config
from ionn_edge.quota import Quota


@dataclass(eq=False)
class Asker:
    running: int
    queued: int
    waiting_bytes: int = 0


def test_a_device_asks_a_burst_and_then_so_many_a_second() -> None:
    quota = Quota(Config(device_queries_per_s=10.0, device_burst=3))
    assert [quota.refusal(5.0) for _ in range(3)] == [None] * 3
    assert quota.refusal(5.0) == ("this device may ask 10 queries a second; ask again in 0.100 s")
    assert quota.refusal(5.05) is not None
    assert quota.refusal(5.101) is None
    assert quota.refusal(5.101) is not None
    # However long nothing is asked, no more than a burst comes of it.
    assert [quota.refusal(1e6) is None for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    quota = Quota(Config(device_queries_per_s=10.0, device_burst=1))
    assert quota.refusal(100.0) is None
    assert quota.refusal(50.0) is not None
    assert quota.refusal(50.05) is not None


def test_open_queries_of_all_connections_count() -> None:
    quota = Quota(Config(device_queries=5))
    first, second = Asker(1, 2), Asker(1, 0)
    quota.sessions |= {first, second}
    assert quota.refusal(0.0) is None
    second.queued = 1
    assert quota.refusal(0.0) == "this device has 5 queries open already; wait for their answers"
    quota.sessions.discard(first)
    assert quota.refusal(0.0) is None


def test_tensors_that_wait_count_over_all_connections() -> None:
    quota = Quota(Config(max_waiting_bytes=100))
    assert quota.refusal(0.0, 1000) is None, "one may be any size"
    quota.sessions |= {Asker(0, 1, 40), Asker(0, 1, 40)}
    assert quota.refusal(0.0, 20) is None
    assert quota.refusal(0.0, 21) == "this device's open queries hold 80 bytes of tensors already"
