"""What each worker uses, and when that is too much. Knows processes by number, and no jobs.

The kernel's own limits stand behind these (see sandbox). What they do not say is why a worker
ended, or that it keeps a processor busy for nobody.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.config import format_bytes
from ionn_edge.settings import WorkerSettings

# So often every worker is looked at.
INTERVAL_S = 0.25
# Beside what computes there is a thread that loads weights.
_LOADERS = 1
# An idle worker may put weights in order now and then.
_IDLE_SHARE = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: processor seconds since it began, bytes that are its alone, threads."""

    cpu_s: float
    private_bytes: int
    threads: int


def usage(pid: int) -> Usage | None:
    """None where it has ended, or where the system does not tell."""
    process = Path(f"/proc/{pid}")
    try:
        pages = (process / "statm").read_text().split()
        # The second field, the program's name, may hold anything but a last bracket.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # Resident pages less those of files and of shared memory.
    private = int(pages[1]) - int(pages[2])
    cpu = int(fields[11]) + int(fields[12])
    return Usage(cpu / _TICKS, private * resource.getpagesize(), int(fields[17]))


def allow_more(pid: int, bytes_more: int) -> None:
    """Move the kernel's limits of a worker's memory: weights that come by planes are its own.

    Each is there once as planes, and once mapped.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):
        for limit, times in ((resource.RLIMIT_DATA, 1), (resource.RLIMIT_AS, 2)):
            soft, hard = resource.prlimit(pid, limit)
            if soft != resource.RLIM_INFINITY:
                resource.prlimit(pid, limit, (soft + times * bytes_more, hard))


class Allowance:
    """What one worker may use, and what it was last seen to use.

    `device` is the paired device that it works for. `weights_bytes`: so much more memory, for
    weights that come by planes. `exceeded`: why it has to end, for a person.
    """

    def __init__(self, settings: WorkerSettings, at_first: Usage | None, now: float) -> None:
        self._settings = settings
        # What all workers share is in there: torch itself.
        self._base_bytes = 0 if at_first is None else at_first.private_bytes
        self._cpu_s = 0.0 if at_first is None else at_first.cpu_s
        self._spare_s = settings.spare_cpu_s
        self._seen_at = now
        self.device: str | None = None
        self.weights_bytes = 0
        self.own_bytes = 0
        self.exceeded: str | None = None

    def look(self, usage: Usage, busy: bool, now: float) -> float:
        """What it uses now; processor seconds since the last look.

        `busy`: a job was open since the last look, or is.
        """
        self.own_bytes = usage.private_bytes - self._base_bytes
        since_s = usage.cpu_s - self._cpu_s
        if self.exceeded is None:
            self.exceeded = self._excess(usage, busy, now)
        return since_s

    def _excess(self, usage: Usage, busy: bool, now: float) -> str | None:
        settings = self._settings
        share = settings.threads + _LOADERS if busy else _IDLE_SHARE
        earned_s = share * (now - self._seen_at)
        used_s = usage.cpu_s - self._cpu_s
        self._seen_at, self._cpu_s = now, usage.cpu_s
        self._spare_s = min(self._spare_s + earned_s - used_s, settings.spare_cpu_s)
        limit = settings.memory_bytes + self.weights_bytes
        if settings.device == "cpu" and self.own_bytes > limit:
            return f"its worker used more than {format_bytes(limit)} and was ended"
        if self._spare_s < 0:
            text = f"its worker used {settings.spare_cpu_s:g} s of the processor beyond its share"
            return f"{text} and was ended"
        most = settings.most_threads
        if settings.device == "cpu" and usage.threads > most:
            return f"its worker ran {usage.threads} threads, more than {most}, and was ended"
        return None


def look_together(allowances: Iterable[Allowance], limit_bytes: int) -> None:
    """The largest worker of each device whose workers have too much memory together is over."""
    by_device: defaultdict[str, list[Allowance]] = defaultdict(list)
    for each in allowances:
        if each.device is not None and each.exceeded is None:
            by_device[each.device].append(each)
    for workers in by_device.values():
        limit = limit_bytes + sum(each.weights_bytes for each in workers)
        if sum(each.own_bytes for each in workers) > limit:
            largest = max(workers, key=lambda each: each.own_bytes)
            together = f"the workers of its device used more than {format_bytes(limit)} together"
            largest.exceeded = f"{together} and the largest was ended"
