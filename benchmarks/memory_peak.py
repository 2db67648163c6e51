"""The most memory that a process and its children take until the input ends, in bytes.

`python benchmarks/memory_peak.py PID < pipe`: in a process of its own, so that looking does not
disturb what is measured. Pages that are shared are counted once.
"""

from __future__ import annotations

import select
import sys

import psutil

INTERVAL_S = 0.2


def now_bytes(pid: int) -> int:
    """Proportional set size of the process and all below it."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for each in family:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    pid, peak = int(sys.argv[1]), 0
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], INTERVAL_S)[0]:
        peak = max(peak, now_bytes(pid))
    print(peak)


if __name__ == "__main__":
    main()
