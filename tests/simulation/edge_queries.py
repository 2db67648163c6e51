"""The queries of one of the edge's connections as its messages tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ionn_edge.config import Config
from ionn_edge.machine import events
from wire import messages

# Sums of times may be rounded the other way than differences.
ROUNDED_S = 1e-6
WORKER_FAILED = "the worker failed"


class EdgeQueries:
    """The queries of one of the edge's connections, in the order in which they came."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._waiting: dict[int, float | None] = {}
        self._running: int | None = None
        self._running_since = 0.0
        self._came_at: dict[int, float] = {}
        # Of workers, since one has answered.
        self._restarts = 0
        self._drain_until: float | None = None
        self._over = False
        self._too_late: set[int] = set()

    def step(self, event: Any, commands: list[Any], now: float) -> Iterator[str]:
        """What is wrong with doing this upon that."""
        match event:
            case events.Received(messages.Execute(query=number, deadline_s=deadline_s)):
                # A number that is open already is refused, with the connection.
                until = None if deadline_s is None else now + deadline_s
                self._waiting.setdefault(number, until)
                self._came_at.setdefault(number, now)
                if self._drain_until is not None:
                    self._too_late.add(number)
            case events.Received(messages.Cancel(number)):
                self._waiting.pop(number, None)
            case events.RangeRan(number) | events.RangeFailed(number):
                self._settle(number)
            case events.ModelOpened():
                self._restarts = 0
            case events.Draining():
                self._drain_until = now + self._config.drain_s
            # One that was being started when the connection ended may still fail.
            case events.WorkerLost() if not self._over:
                ends = (events.RestartWorker, events.CloseConnection)
                if not any(isinstance(command, ends) for command in commands):
                    yield "a worker is gone, and no other is started"
        for command in commands:
            self._over |= isinstance(command, events.CloseConnection)
            yield from self._does(command, now)
        for number, until in self._waiting.items():
            if until is not None and now > until + ROUNDED_S:
                yield f"query {number} waits beyond its deadline"
        timeout_s = self._config.range_timeout_s
        if self._running is not None and now >= self._running_since + timeout_s:
            yield f"query {self._running} runs for more than {timeout_s} s"

    def _settle(self, number: int) -> None:
        if self._running == number:
            self._running = None

    def _does(self, command: Any, now: float) -> Iterator[str]:
        match command:
            case events.RunRange(number):
                first = next(iter(self._waiting), None)
                if number != first:
                    yield f"query {number} runs, where {first} is next"
                until = self._waiting.pop(number, None)
                if until is not None and now >= until:
                    yield f"query {number} runs after its deadline"
                if self._running is not None:
                    yield f"query {number} runs beside {self._running}"
                if number in self._too_late:
                    yield f"query {number} runs, and came when the edge was stopping"
                self._running, self._running_since = number, now
            case events.Send(message):
                yield from self._says(message, now)
            case events.StopWorker():
                self._running = None
            case events.RestartWorker():
                self._running = None
                self._restarts += 1
                if self._restarts > self._config.max_restarts:
                    yield f"worker after worker is started, {self._restarts} in a row"
            case events.CloseConnection():
                self._waiting.clear()

    def _says(self, message: messages.Message, now: float) -> Iterator[str]:
        match message:
            case messages.Result(query=number):
                self._restarts = 0
                took_s = message.queue_s + message.coding_s + message.compute_s
                since_s = now - self._came_at.pop(number, now)
                if not 0.0 <= took_s <= since_s + ROUNDED_S:
                    yield f"query {number} is said to have taken {took_s} s, and came {since_s} ago"
            case messages.Error(query=int(number)):
                self._came_at.pop(number, None)
                self._waiting.pop(number, None)
                self._settle(number)
            case messages.Error(text=text) if text.startswith(WORKER_FAILED):
                if self._restarts < self._config.max_restarts:
                    yield f"it gives up after {self._restarts} workers: {text}"
            case messages.Bye("draining"):
                early = self._drain_until is None or now < self._drain_until
                if early and (self._waiting or self._running is not None):
                    yield "it stops before its time, with queries open"
