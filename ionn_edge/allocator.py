"""The C allocator's habits, set for a process that runs layers again and again.

By default glibc hands large blocks back to the system and takes new pages for the next layer's
output; each new page costs a fault, 0.5 to 2 microseconds on a virtual machine, which is more
than writing it. Times then also depend on what was freed before, which no regression knows.
"""

from __future__ import annotations

import contextlib
import ctypes

# From malloc.h; glibc's largest threshold for mapped blocks is 32 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_THRESHOLD, _NEVER = 32 << 20, (1 << 31) - 1
# Just below the threshold, and so many that large blocks find room beside what else was taken.
_OVERHEAD, _ROOM = 1 << 16, 6


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees; False where the C library is another than glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
        kept = bool(
            mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_TRIM_THRESHOLD, _NEVER)
        )
        if kept:
            _leave_room(libc)
        return kept
    return False


def _leave_room(libc: ctypes.CDLL) -> None:
    """Address space, no memory yet: a block at or above the threshold is mapped anew each time
    where none so large is free."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    blocks = [libc.malloc(_LARGEST_THRESHOLD - _OVERHEAD) for _ in range(_ROOM)]
    for block in blocks:
        libc.free(block)
