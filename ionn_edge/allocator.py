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


def keep_freed_memory() -> bool:
    """Let this process reuse what it frees; False where the C library is another than glibc."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(
            mallopt(_MMAP_THRESHOLD, _LARGEST_THRESHOLD) and mallopt(_TRIM_THRESHOLD, _NEVER)
        )
    return False
