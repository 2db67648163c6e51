"""Whose workers go first: by numbers alone, and as the system then schedules them."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from ionn_edge.workers import jobs
from ionn_edge.workers.nursery import FORK_PATIENCE_S, Nursery
from ionn_edge.workers.precedence import (
    FORK_EVERY_S,
    FORKS_AT_ONCE,
    HALF_LIFE_S,
    NICENESS,
    Forks,
    Precedence,
    behind_all,
    bring_forward,
    put_back,
)


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


def test_who_has_had_some_workers_beside_others_waits_for_more() -> None:
    forks = Forks()
    for _ in range(FORKS_AT_ONCE):
        assert forks.wait_s("a", 10.0) == 0.0
        forks.forked("a", 10.0)
    assert forks.wait_s("a", 10.0) == FORK_EVERY_S
    assert forks.wait_s("b", 10.0) == 0.0
    assert forks.wait_s("a", 10.0 + FORK_EVERY_S) == 0.0
    forks.forked("a", 10.0 + FORK_EVERY_S)
    assert forks.wait_s("a", 10.0 + FORK_EVERY_S) == FORK_EVERY_S
    # Who stayed away for long has no more than anybody.
    for _ in range(FORKS_AT_ONCE):
        forks.forked("a", 1000.0)
    assert forks.wait_s("a", 1000.0) == FORK_EVERY_S
    assert set(forks._until) == {"a"}


@pytest.mark.asyncio(loop_scope="session")
async def test_the_next_worker_of_who_had_many_waits_as_long_as_there_are_others(
    nursery: Nursery,
) -> None:
    other = await nursery.fork("other")
    mine = [await nursery.fork("mine") for _ in range(FORKS_AT_ONCE)]
    now = asyncio.get_running_loop().time()
    # For long, so that a slow machine does not tell otherwise.
    nursery._forks._until["mine"] = now + 1000.0
    waiting = asyncio.create_task(nursery.fork("mine"))
    try:
        done, _ = await asyncio.wait([waiting], timeout=2 * FORK_PATIENCE_S)
        assert not done
        mine.append(await nursery.fork("third"))
        await mine.pop().close()
        assert not waiting.done()
        await other.close()
        async with asyncio.timeout(60):
            mine.append(await waiting)
    finally:
        del nursery._forks._until["mine"]
        waiting.cancel()
        for worker in mine:
            await worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux schedules")
def test_what_is_done_behind_all_is_and_what_it_raises_is_raised() -> None:
    behind = behind_all(partial(os.sched_getscheduler, 0))
    assert (behind, os.sched_getscheduler(0)) == (os.SCHED_IDLE, os.SCHED_OTHER)
    with pytest.raises(ZeroDivisionError):
        behind_all(lambda: 1 // 0)


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux schedules")
@pytest.mark.asyncio(loop_scope="session")
async def test_a_graph_is_read_and_checked_behind_all(nursery: Nursery, tmp_path: Path) -> None:
    worker = await nursery.fork()
    header, graph = jobs.encode(jobs.Check("f" * 64, b"\x91" * 1000, str(tmp_path)))
    try:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(worker._pipe, bytes(header) + bytes(graph[:500]))
        async with asyncio.timeout(60):
            while os.SCHED_IDLE not in policies(worker.pid):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # Queries that come later are not behind.
        assert os.sched_getscheduler(worker.pid) == os.SCHED_OTHER
        await loop.sock_sendall(worker._pipe, graph[500:])
        worker._asked = jobs.Check
        async with asyncio.timeout(60):
            answer = await worker.receive()
        assert isinstance(answer, jobs.Refused)
    finally:
        await worker.close()


def policies(pid: int) -> list[int]:
    threads = map(int, os.listdir(f"/proc/{pid}/task"))
    return [os.sched_getscheduler(thread) for thread in threads]


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux schedules")
def test_a_process_that_has_ended_stands_nowhere() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    put_back(pid)
    bring_forward(pid)
