"""The queries of one connection that have no answer yet: those that wait, and the one that runs.

No I/O, no clock. What is said of them, and whose turn it is, the session decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wire import messages


@dataclass(frozen=True, slots=True)
class OpenQuery:
    """What was asked and when, and until when it may wait."""

    execute: messages.Execute
    received_at: float
    deadline_at: float | None

    @property
    def number(self) -> int:
        return self.execute.query


class OpenQueries:
    """In the order that they came; one at a time runs."""

    def __init__(self) -> None:
        self._waiting: dict[int, OpenQuery] = {}
        self._running: OpenQuery | None = None
        self._running_since = 0.0
        self._unwanted = False

    def __contains__(self, number: int) -> bool:
        return number in self._waiting or self._runs(number)

    @property
    def running(self) -> int:
        return int(self._running is not None)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def waiting_bytes(self) -> int:
        """Tensors of queries that wait."""
        return sum(tensor_bytes(query.execute) for query in self._waiting.values())

    def add(self, execute: messages.Execute, now: float) -> None:
        deadline_at = None if execute.deadline_s is None else now + execute.deadline_s
        self._waiting[execute.query] = OpenQuery(execute, now, deadline_at)

    def cancel(self, number: int) -> None:
        """Nobody wants its answer any more; one that runs keeps its place until it has run."""
        self._waiting.pop(number, None)
        if self._runs(number):
            self._unwanted = True

    def begin(self, now: float) -> messages.Execute:
        """The first in line runs from now on. There is one, and nothing runs."""
        query = self._waiting.pop(next(iter(self._waiting)))
        self._running, self._running_since, self._unwanted = query, now, False
        return query.execute

    def settle(self, number: int) -> OpenQuery | None:
        """The running query is over; None if nobody wants its answer any more."""
        query = self._running
        if query is None or query.number != number:
            return None
        self._running = None
        return None if self._unwanted else query

    def drop(self) -> list[OpenQuery]:
        """Nothing runs or waits any more; those of which somebody wants to hear."""
        lost = [self._running] if self._running is not None and not self._unwanted else []
        lost.extend(self._waiting.values())
        self._running = None
        self._waiting.clear()
        return lost

    def expired(self, now: float) -> Iterator[OpenQuery]:
        """Those that waited past their deadline, and are taken out."""
        for query in list(self._waiting.values()):
            if query.deadline_at is not None and now >= query.deadline_at:
                yield self._waiting.pop(query.number)

    def runs_since(self) -> float | None:
        return None if self._running is None else self._running_since

    def deadlines(self) -> list[float]:
        """Of those that wait."""
        times = (query.deadline_at for query in self._waiting.values())
        return [at for at in times if at is not None]

    def _runs(self, number: int) -> bool:
        return self._running is not None and self._running.number == number


def tensor_bytes(execute: messages.Execute) -> int:
    """Bytes of a query's tensors, as they came."""
    return sum(memoryview(tensor.data).nbytes for tensor in execute.tensors)
