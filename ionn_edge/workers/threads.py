"""How many threads a worker may have: the kernel asks the forkserver before it makes each.

A filter of system calls has whoever makes a thread wait for the word of another process, which the
worker cannot answer for itself (seccomp's user notification, Linux 5.5). Nothing that is asked is
in memory, so nothing of it can be changed meanwhile: what is decided is how many there may be.
Kernel documentation: userspace-api/seccomp_filter, "Userspace Notification".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import time
from pathlib import Path

# linux/seccomp.h: id, pid, flags, and the call; id, value, error, flags.
_QUESTION, _ANSWER = struct.Struct("=QII64x"), struct.Struct("=QqiI")
_CONTINUE = 1


def _ioctl(number: int, size: int) -> int:
    # asm-generic/ioctl.h: both ways, of the type "!".
    return 3 << 30 | size << 16 | ord("!") << 8 | number


_RECEIVE, _SEND = _ioctl(0, _QUESTION.size), _ioctl(1, _ANSWER.size)
# Libraries start their threads once, or each time that more of them are of use. Of as many as it
# may have, a worker starts so many times at once, and so many times a second in the long run.
STARTS_AT_ONCE, STARTS_PER_S = 64, 16
# Why a worker is ended, as the server is told.
TOO_MANY, ENDLESS = 1, 2


def excess_text(excess: int, most: int) -> str:
    """The same for a person."""
    if excess == TOO_MANY:
        return f"its worker wanted more than {most} threads and was ended"
    return "its worker started threads without end and was ended"


class Threads:
    """One worker's. `listener` is the filter's descriptor, and closed by `close`.

    excess: what it wanted too much of, 0 while it has not; it is to be ended then, and what it
    asked is never answered.
    """

    def __init__(self, pid: int, listener: int, most: int) -> None:
        self.excess = 0
        self._pid = pid
        self._listener = listener
        self._most = most
        self._spare = float(most * STARTS_AT_ONCE)
        self._seen_at = time.monotonic()

    def fileno(self) -> int:
        return self._listener

    def close(self) -> None:
        os.close(self._listener)

    def answer(self) -> bool:
        """Take the question that is there. Whether more may come: not where nobody is left."""
        question, ready = bytearray(_QUESTION.size), select.poll()
        ready.register(self._listener, select.POLLIN)
        # Older kernels would have us wait for the question of who has ended.
        if not any(events & select.POLLIN for _, events in ready.poll(0)):
            return False
        try:
            fcntl.ioctl(self._listener, _RECEIVE, question, True)
        except OSError:
            return True  # Who asked has ended meanwhile; others may ask.
        number, _, _ = _QUESTION.unpack(question)
        self.excess = self._excess()
        if self.excess:
            return False
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, 0, 0, _CONTINUE))
        return True

    def _excess(self) -> int:
        now = time.monotonic()
        earned = (now - self._seen_at) * self._most * STARTS_PER_S
        self._spare = min(self._spare + earned, self._most * STARTS_AT_ONCE) - 1
        self._seen_at = now
        if self._count() >= self._most:
            return TOO_MANY
        return ENDLESS if self._spare < 0 else 0

    def _count(self) -> int:
        try:
            said = Path(f"/proc/{self._pid}/stat").read_text()
        except OSError:
            return 0
        # The 20th field; the second, the program's name, may hold anything but a last bracket.
        return int(said.rpartition(")")[2].split()[17])
