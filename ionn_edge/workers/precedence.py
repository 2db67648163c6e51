"""Whose processes go first on the processors: the server, then devices that used little lately.

No clock of its own. Everything is lowered, nothing raised, so that it needs no privileges: workers
begin behind the server, and those of a device that used much, while others are here, go behind all
(docs/decisions/0026).
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")

# Workers are so much nicer than the server.
NICENESS = 5
# What a device used counts half after so long.
HALF_LIFE_S = 2.0
# Of its part of the processors, a device that used more is heavy, one below the second no more.
HEAVY, LIGHT = 0.25, 0.125
# A fork costs this beside what the worker uses itself.
FORK_S = 0.01
# Beside others so many workers of an owner start at once, and then one each so long.
FORKS_AT_ONCE, FORK_EVERY_S = 4, 2.0


@dataclass(slots=True)
class _Use:
    seconds: float = 0.0
    at: float = 0.0
    heavy: bool = False

    def now(self, now: float) -> float:
        seconds: float = self.seconds * 0.5 ** (max(now - self.at, 0.0) / HALF_LIFE_S)
        return seconds


class Precedence:
    """What each owner of workers used of `processors` of them, lately."""

    def __init__(self, processors: int) -> None:
        self._processors = processors
        self._uses: dict[str, _Use] = {}

    def used(self, owner: str, cpu_s: float, now: float) -> None:
        """Its workers used so many processor seconds more."""
        use = self._uses.setdefault(owner, _Use(at=now))
        use.seconds, use.at = use.now(now) + cpu_s, now

    def heavy(self, here: Collection[str], now: float) -> set[str]:
        """Which owners of those here go behind the others; nobody who is alone."""
        for owner in [each for each in self._uses if each not in here]:
            # Who comes anew soon is still known for what it did.
            if self._uses[owner].now(now) < FORK_S:
                del self._uses[owner]
        if len(here) <= 1:
            return set()
        part = self._processors / len(here)
        for owner in here:
            use = self._uses.setdefault(owner, _Use(at=now))
            processors = use.now(now) * math.log(2) / HALF_LIFE_S
            use.heavy = processors > part * (LIGHT if use.heavy else HEAVY)
        return {owner for owner in here if self._uses[owner].heavy}


class Forks:
    """When each owner may have its next worker beside others: a fork keeps a processor, whoever
    waits for it, and has no precedence of its own."""

    def __init__(self) -> None:
        # Until when those that each had are paid for.
        self._until: dict[str, float] = {}

    def wait_s(self, owner: str, now: float) -> float:
        """How long it waits for its next one."""
        return max(self._until.get(owner, now) - now - (FORKS_AT_ONCE - 1) * FORK_EVERY_S, 0.0)

    def forked(self, owner: str, now: float) -> None:
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[owner] = self._until.get(owner, now) + FORK_EVERY_S


def stand_behind() -> None:
    """This process and its children behind who started it, in the same session.

    Where the kernel shares processors out by sessions first, niceness counts within one only; a
    process group of its own is enough not to hear the terminal's signals.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)


def put_back(pid: int) -> None:
    """All of a process's threads behind every other process, which they do not keep waiting."""
    if sys.platform == "linux":
        _schedule(pid, os.SCHED_IDLE)


def bring_forward(pid: int) -> None:
    """Undo it, where the system lets this process do so: as root, or by its limit of niceness."""
    if sys.platform == "linux":
        _schedule(pid, os.SCHED_OTHER)


def behind_all(work: Callable[[], _Result]) -> _Result:
    """What comes of it, in a thread of this process that keeps no other process waiting.

    The process stays where it is: without privileges none of its threads comes forward again.
    """
    with ThreadPoolExecutor(1, "behind", initializer=_step_back) as thread:
        return thread.submit(work).result()


def _step_back() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _schedule(pid: int, policy: int) -> None:
    # It may have ended, or started and ended threads; new ones are as who starts them.
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), policy, os.sched_param(0))
