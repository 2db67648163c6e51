"""Whose workers go first: by numbers alone, and as the system then schedules them."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from ionn_edge.nursery import Nursery
from ionn_edge.precedence import HALF_LIFE_S, NICENESS, Precedence, bring_forward, put_back


def test_who_uses_much_beside_others_goes_behind_them() -> None:
    precedence = Precedence(processors=2)
    for tick in range(40):
        precedence.used("heavy", 0.25, tick / 4)
        precedence.used("light", 0.03, tick / 4)
    assert precedence.heavy({"heavy", "light"}, 10.0) == {"heavy"}


def test_who_is_alone_goes_behind_nobody() -> None:
    precedence = Precedence(processors=2)
    precedence.used("heavy", 100.0, 0.0)
    assert precedence.heavy({"heavy"}, 0.0) == set()
    assert precedence.heavy({"heavy", "other"}, 0.0) == {"heavy"}


def test_who_stops_comes_forward_later_than_it_went_back() -> None:
    precedence, both = Precedence(processors=2), {"a", "b"}
    # A part of one processor, and a quarter of that is the threshold.
    precedence.used("a", 1.01 * 0.25 * HALF_LIFE_S / 0.6931, 0.0)
    assert precedence.heavy(both, 0.0) == {"a"}
    assert precedence.heavy(both, 0.9 * HALF_LIFE_S) == {"a"}
    assert precedence.heavy(both, 1.1 * HALF_LIFE_S) == set()


def test_who_leaves_and_comes_anew_is_known_for_a_while_and_then_forgotten() -> None:
    precedence = Precedence(processors=2)
    precedence.used("a", 10.0, 0.0)
    assert precedence.heavy({"b", "c"}, 0.0) == set()
    assert precedence.heavy({"a", "b"}, 1.0) == {"a"}
    precedence.heavy({"b", "c"}, 1000.0)
    assert precedence.heavy({"a", "b"}, 1000.0) == set()
    assert set(precedence._uses) == {"a", "b"}


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux schedules")
@pytest.mark.asyncio(loop_scope="session")
async def test_a_heavy_owners_workers_run_on_what_others_leave(nursery: Nursery) -> None:
    light, heavy = await nursery.fork("light"), await nursery.fork("heavy")
    try:
        assert os.getsid(light.pid) == os.getsid(0), "niceness would not count"
        assert os.getpgid(light.pid) != os.getpgid(0), "Ctrl-C is the server's to hear"
        assert os.getpriority(os.PRIO_PROCESS, light.pid) >= NICENESS
        nursery._precedence.used("heavy", 60.0, asyncio.get_running_loop().time())
        late = await nursery.fork("heavy")
        try:
            policies = [os.sched_getscheduler(each.pid) for each in (light, heavy, late)]
            assert policies == [os.SCHED_OTHER, os.SCHED_IDLE, os.SCHED_IDLE]
        finally:
            await late.close()
    finally:
        await light.close()
        await heavy.close()


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux schedules")
def test_a_process_that_has_ended_stands_nowhere() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    put_back(pid)
    bring_forward(pid)
