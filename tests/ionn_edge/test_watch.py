"""What a worker may use, by numbers alone; and what the system says that this process uses."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from ionn_edge.settings import WorkerSettings
from ionn_edge.workers.watch import Allowance, Usage, look_together, usage

MIB = 1 << 20
SETTINGS = WorkerSettings("cpu", 2, memory_bytes=100 * MIB, spare_cpu_s=5.0)
AT_FIRST = Usage(cpu_s=1.0, private_bytes=300 * MIB, threads=1)


def allowance(settings: WorkerSettings = SETTINGS) -> Allowance:
    return Allowance(settings, AT_FIRST, now=0.0)


def test_memory_counts_from_what_a_fork_begins_with() -> None:
    worker = allowance()
    worker.look(Usage(1.0, 400 * MIB, 1), busy=True, now=1.0)
    assert (worker.own_bytes, worker.exceeded) == (100 * MIB, None)
    worker.look(Usage(1.0, 400 * MIB + 4096, 1), busy=True, now=2.0)
    assert worker.exceeded == "its worker used more than 104.9 MB and was ended"


def test_weights_come_on_top() -> None:
    worker = allowance()
    worker.weights_bytes = 50 * MIB
    worker.look(Usage(1.0, 450 * MIB, 1), busy=True, now=1.0)
    assert worker.exceeded is None


@pytest.mark.parametrize(
    ("busy", "rate", "lasts"),
    [(True, 3.0, True), (True, 3.5, False), (False, 0.02, True), (False, 1.0, False)],
    ids=["its share", "more than its share", "now and then", "for nobody"],
)
def test_processor_time_beyond_the_share_is_spent_once(
    busy: bool, rate: float, lasts: bool
) -> None:
    worker = allowance()
    for second in range(1, 61):
        worker.look(Usage(1.0 + rate * second, 300 * MIB, 1), busy, now=float(second))
    assert (worker.exceeded is None) == lasts
    if not lasts:
        assert "used 5 s of the processor beyond its share" in str(worker.exceeded)


def test_what_was_spent_comes_back() -> None:
    worker = allowance()
    worker.look(Usage(5.9, 300 * MIB, 1), busy=False, now=0.0)
    worker.look(Usage(5.9, 300 * MIB, 1), busy=True, now=2.0)
    worker.look(Usage(10.8, 300 * MIB, 1), busy=False, now=2.0)
    assert worker.exceeded is None
    worker.look(Usage(11.0, 300 * MIB, 1), busy=False, now=2.0)
    assert worker.exceeded is not None


def test_a_flood_of_threads_is_too_many() -> None:
    worker = allowance()
    worker.look(Usage(1.0, 300 * MIB, SETTINGS.most_threads), busy=True, now=1.0)
    assert worker.exceeded is None
    worker.look(Usage(1.0, 300 * MIB, SETTINGS.most_threads + 1), busy=True, now=1.0)
    assert "threads" in str(worker.exceeded)


def test_the_largest_worker_of_a_device_that_has_too_much_together_is_over() -> None:
    workers = [allowance() for _ in range(4)]
    for number, worker in enumerate(workers):
        # The last one is another device's.
        worker.device = "first" if number < 3 else "second"
        worker.look(Usage(1.0, (350 + number) * MIB, 1), busy=True, now=1.0)
    look_together(workers, 153 * MIB)
    assert [each.exceeded for each in workers] == [None] * 4
    workers[0].weights_bytes = MIB
    look_together(workers, 151 * MIB)
    assert [each.exceeded is None for each in workers] == [True, True, False, True]
    assert "159.4 MB together" in str(workers[2].exceeded)
    workers[0].device = None
    look_together([workers[0]], 0)
    assert workers[0].exceeded is None


def test_this_process_is_seen() -> None:
    before = usage(os.getpid())
    assert before is not None
    # Of its own: what others freed may be given to a plain allocation.
    held = mmap.mmap(-1, 64 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"x" * len(held))
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        after = usage(os.getpid())
    finally:
        stop.set()
        thread.join()
    assert after is not None
    assert after.private_bytes - before.private_bytes > len(held) // 2
    assert after.threads == before.threads + 1
    assert after.cpu_s >= before.cpu_s > 0
    held.close()


def test_a_process_that_is_not_there_uses_nothing() -> None:
    assert usage((1 << 22) + 1) is None
