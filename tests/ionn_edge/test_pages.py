"""Large memory goes back in slices, once nobody looks at it any more."""

from __future__ import annotations

import asyncio
import gc
import mmap
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ionn_edge import pages as module
from ionn_edge.doors.frames import Pieces
from ionn_edge.pages import SLICE_BYTES, pages
from tests.ionn_edge.test_frames import fed, frame

SESSION = pytest.mark.asyncio(loop_scope="session")
SIZE = 8 * SLICE_BYTES + 1
STATUS = Path("/proc/self/status")


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where a slice was given back, in order."""
    given: list[int] = []
    real = module._give_back

    def give_back(loop: asyncio.AbstractEventLoop, memory: mmap.mmap, at: int) -> None:
        given.append(at)
        real(loop, memory, at)

    monkeypatch.setattr(module, "_give_back", give_back)
    return given


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def shared_bytes() -> int:
    lines = STATUS.read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssShmem:"))
    return int(line.split()[1]) << 10


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@SESSION
async def test_it_is_zeros_and_not_there_before_it_is_written_to() -> None:
    before = resident_bytes()
    array = pages(64 << 20)
    assert resident_bytes() - before < 16 << 20
    assert (array.size, array[0], array[-1]) == (64 << 20, 0, 0)
    del array
    await turns(300)


@pytest.mark.skipif(not STATUS.exists(), reason="Linux tells whose pages are")
@SESSION
async def test_it_is_nobody_elses() -> None:
    # Shared pages outlive what is given back of them, and go at once in the end.
    before = shared_bytes()
    array = pages(SIZE)
    array[:] = 1
    assert shared_bytes() - before < SIZE // 2
    del array
    await turns(20)


@SESSION
async def test_nothing_goes_while_somebody_has_a_view(slices: list[int]) -> None:
    view = pages(SIZE).data[5:10]
    gc.collect()
    await turns(20)
    view[:] = b"there"
    assert (slices, bytes(view)) == ([], b"there")
    del view
    await turns(20)


@SESSION
async def test_it_goes_a_slice_at_a_time_and_others_have_their_turn(slices: list[int]) -> None:
    array = pages(SIZE)
    array[:] = 1
    del array
    seen = []
    for _ in range(20):
        await asyncio.sleep(0)
        seen.append(len(slices))
    assert max(after - before for before, after in pairwise([0, *seen])) <= 2
    assert slices == list(range(0, SIZE, SLICE_BYTES))


@SESSION
async def test_the_last_view_may_be_another_threads(slices: list[int]) -> None:
    kept: list[Any] = [pages(SIZE)]
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    await turns(20)
    assert len(slices) == 9


def test_without_a_loop_it_goes_at_once(slices: list[int]) -> None:
    array = pages(SIZE)
    del array
    assert slices == []


def test_a_loop_that_is_closed_is_asked_for_nothing() -> None:
    async def made() -> Any:
        return pages(SIZE)

    with asyncio.Runner() as runner:
        array = runner.run(made())
    array[:] = 1
    del array
    gc.collect()


@SESSION
async def test_a_large_frames_memory_goes_so(slices: list[int]) -> None:
    pieces = Pieces(64 << 20)
    seen = fed(pieces, frame(b"x" * SIZE))
    claimed = pieces.claim(seen[2:])
    assert bytes(claimed[:3]) == b"xxx"
    del claimed
    await turns(20)
    assert len(slices) == 9
