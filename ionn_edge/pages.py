"""Large memory that costs nothing before it is written to, and no pause when it goes.

The kernel takes 10 ms to take back what a query of 61 MB was in, and whoever else is served waits
meanwhile. So pages go back some at a time, between what else the event loop has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import weakref
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

# Given back at once: some 30 microseconds.
SLICE_BYTES = 256 << 10

Pages: TypeAlias = "NDArray[numpy.uint8]"


def pages(size: int) -> Pages:
    """Zeros, none of which is there before it is written to: what is declared costs nothing."""
    # What is shared with nobody is cleared faster, and what is given back of it is free at once.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # Clearing 2 MiB at once takes milliseconds.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    array: Pages = numpy.frombuffer(memory, numpy.uint8)
    with contextlib.suppress(RuntimeError):
        loop = asyncio.get_running_loop()
        # Whoever has a view of them has the array.
        weakref.finalize(array, _unused, loop, memory).atexit = False
    return array


def _unused(loop: asyncio.AbstractEventLoop, memory: mmap.mmap) -> None:
    # The last view may be another thread's. Of a loop that is closed nobody waits for anything.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_give_back, loop, memory, 0)


def _give_back(loop: asyncio.AbstractEventLoop, memory: mmap.mmap, at: int) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED, at, min(SLICE_BYTES, len(memory) - at))
        if at + SLICE_BYTES < len(memory):
            loop.call_soon(_give_back, loop, memory, at + SLICE_BYTES)
