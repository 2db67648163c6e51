"""The C allocator's habits, set for a process that runs layers again and again.

By default glibc hands large blocks back to the system and takes new pages for the next layer's
output; each new page costs a fault, 0.5 to 2 microseconds on a virtual machine, which is more
than writing it. Times then also depend on what was freed before, which no regression knows.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import resource
from pathlib import Path

# From malloc.h; glibc's largest threshold for mapped blocks is 32 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD, _NEVER = 32 << 20, (1 << 31) - 1
# Just below the threshold, and so many that large blocks find room beside what else was taken.
_OVERHEAD, _ROOM = 1 << 16, 6
# What alignment cuts off before a block, in bytes asked for, and how many of a size glibc's cache
# of a thread takes. One that it took would part the free blocks on both sides for ever.
_CUT_OFF, _CACHED = range(24, 120, 16), 7
# Not where that is much of what a worker may have.
_SCARCE = 8


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees; False where the C library is another than glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
        kept = bool(
            mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_TRIM_THRESHOLD, _NEVER)
        )
        if kept and _spare_bytes() >= _SCARCE * _ROOM * _LARGEST_THRESHOLD:
            _leave_room(libc)
        return kept
    return False


def _spare_bytes() -> float:
    """How much more memory this process may have."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return math.inf
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return limit - pages * resource.getpagesize()


def _leave_room(libc: ctypes.CDLL) -> None:
    """Address space, no memory yet: a block at or above the threshold is mapped anew each time
    where none so large is free."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    sizes = (_LARGEST_THRESHOLD - _OVERHEAD,) * _ROOM + tuple(_CUT_OFF) * _CACHED
    for block in [libc.malloc(size) for size in sizes]:
        libc.free(block)
