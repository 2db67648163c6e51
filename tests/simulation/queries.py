"""Queries as the messages tell of them, and what either side may do with them.

Independent of the machines' own bookkeeping, but for what only that knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ionn_client.config import Options
from ionn_client.machine import events as client_events
from ionn_client.machine.breaker import FIRST_BACKOFF_S, TRIP
from ionn_client.machine.dialogue import RETRY_QUOTA_S, SLOW_REFUSALS
from ionn_client.machine.replies import GRACE_S
from ionn_client.machine.session import Session
from ionn_client.machine.trust import TROUBLE
from wire import messages

# Of a timer, by itself or behind what else there is to do.
LATE_S = 0.3
# An edge that fails so many in a row is one that the client has stopped to ask.
MANY_FAILURES = 2 * int(TRIP)


class ClientQueries:
    """Which of a client's queries are at the edge, and what became of the last ones there."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._options: Options = session.options
        self._at_edge: set[int] = set()
        self._over: set[int] = set()
        self._hops = Counter[int]()
        self._asked_at: dict[int, float] = {}
        # What running all layers here takes; None after a clock has jumped, which tells otherwise.
        self.local_s: float | None = None
        self._failures = 0
        self._failing_asked_at: float | None = None
        self._refused_for_room = False

    def longest_wait_s(self, number: int) -> float:
        """How long a query may wait for its edge in all, as often as that was asked."""
        return self._hops[number] * self._longest_s

    @property
    def _longest_s(self) -> float:
        options = self._options
        return GRACE_S + options.patience * max(self.local_s or 0.0, options.silence_s)

    def did(self, commands: list[Any], now: float, *, caught_up: bool) -> Iterator[str]:
        """What is wrong with doing this now, and, where events are caught up with, what is late."""
        for command in commands:
            yield from self._does(command, now)
        for number in self._at_edge & self._over:
            self._at_edge.discard(number)
            yield f"query {number} is over, and the edge was not told"
        for query in self._session.queries._open.values():
            if query.on_edge and query.number not in self._at_edge:
                yield f"query {query.number} waits for an edge that owes nothing"
        if caught_up:
            yield from self._hedges(now)
            for query in self._session.queries._open.values():
                if query.on_edge and query.late_at is None and query.hedge is None:
                    yield f"query {query.number} waits for the edge without end"

    def _hedges(self, now: float) -> Iterator[str]:
        queries = self._session.queries._open
        hedged = sum(query.hedge is not None for query in queries.values())
        if hedged > 1:
            yield "several queries are hedged at once"
        elif not hedged and self.local_s:
            longest_s = self._longest_s + LATE_S
            for number in self._at_edge:
                if now - self._asked_at[number] > longest_s:
                    yield f"query {number} waits at the edge for more than {longest_s:.2f} s"

    def hears(self, event: Any) -> None:
        match event:
            case client_events.Connected() | client_events.ConnectionLost():
                self._at_edge.clear()
            case client_events.MessageReceived(messages.Result(number)):
                self._at_edge.discard(number)
                self._failures, self._failing_asked_at = 0, None
            case client_events.MessageReceived(messages.Error(code, _, None)):
                self._refused_for_room |= code in SLOW_REFUSALS
            case client_events.MessageReceived(messages.Error(code, _, int(number))):
                self._failures += number in self._at_edge and code in TROUBLE
                self._at_edge.discard(number)
            case client_events.QueryAbandoned(number):
                self._over.add(number)

    def _does(self, command: Any, now: float) -> Iterator[str]:
        match command:
            case client_events.SendMessage(messages.Execute(number)):
                if number in self._over or number in self._at_edge:
                    yield f"the edge is asked again for query {number}"
                self._at_edge.add(number)
                self._asked_at[number] = now
                self._hops[number] += 1
                yield from self._asks(now)
            case client_events.SendMessage(messages.Cancel(number)):
                self._at_edge.discard(number)
            case client_events.AbortConnection() | client_events.CloseConnection():
                self._at_edge.clear()
            case client_events.FinishQuery(number) | client_events.FailQuery(number):
                self._over.add(number)
            case client_events.OpenConnection(delay_s):
                longest_s = RETRY_QUOTA_S if self._refused_for_room else self._options.max_backoff_s
                if delay_s > longest_s:
                    yield f"it connects only after {delay_s:.1f} s"

    def _asks(self, now: float) -> Iterator[str]:
        if self._failures < MANY_FAILURES:
            return
        before, self._failing_asked_at = self._failing_asked_at, now
        if before is not None and now - before < 0.9 * FIRST_BACKOFF_S:
            yield f"it goes on asking an edge that failed {self._failures} times in a row"
