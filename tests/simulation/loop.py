"""An asyncio event loop whose time is virtual, and whose threads are functions called in turn.

Time passes only when nothing is left to do at the moment, and then at once to the next timer.
What real programs hand to a thread is called on the loop after a drawn delay, and its result
comes after another one; a process that was killed meanwhile calls nothing any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

# Timers never go off on the dot: sums of times may be rounded the other way than differences.
TIMER_LATE_S = 1e-6


class Place(Protocol):
    """A process of the simulated world: what runs in its context runs there."""

    alive: bool

    def thread_s(self) -> tuple[float, float]:
        """How long a thread takes until it has worked, and from then until that is known."""


HERE: contextvars.ContextVar[Place] = contextvars.ContextVar("HERE")


class Stuck(Exception):
    """Nothing will ever happen any more, or far too much happens at once."""


class _Handle:
    """What asyncio's own handles are to its loops, without what debugging takes."""

    __slots__ = ("_args", "_callback", "_context", "_when", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float = 0.0,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context() if context is None else context
        self._when = when
        self.is_cancelled = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def run(self) -> None:
        self._context.run(self._callback, *self._args)


class VirtualLoop(asyncio.BaseEventLoop):
    """`turns`: after so many rounds of callbacks the simulation is taken to be in a loop."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._now = 0.0
        self._turns_left = turns
        self._single: dict[int, float] = {}
        self._soon: deque[_Handle] = deque()
        # By the time, and then by the order in which they were asked for.
        self._timers: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Handle:
        handle = _Handle(callback, args, context)
        self._soon.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Handle:
        handle = _Handle(callback, args, context, when)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> _Handle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """What is to be done now; where there is nothing, time passes until there is."""
        soon, timers = self._soon, self._timers
        self._turns_left -= 1
        if self._turns_left <= 0:
            raise Stuck("too much happens: something is busy for ever")
        if not soon:
            while timers and timers[0][2].is_cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing will ever happen any more")
            self._now = max(self._now, timers[0][0])
        self._now += TIMER_LATE_S
        while timers and timers[0][0] <= self._now:
            soon.append(heapq.heappop(timers)[2])
        for _ in range(len(soon)):
            handle = soon.popleft()
            if handle.is_cancelled:
                continue
            try:
                handle.run()
            except (Exception, asyncio.CancelledError) as error:
                text = "an exception in a callback"
                self.call_exception_handler({"message": text, "exception": error})

    def close(self) -> None:
        super().close()
        self._soon.clear()
        self._timers.clear()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        place = HERE.get()
        future: asyncio.Future[Any] = self.create_future()
        before_s, after_s = place.thread_s()
        begins = self._now
        if getattr(executor, "_max_workers", 0) == 1:
            begins = max(begins, self._single.get(id(executor), 0.0))
            self._single[id(executor)] = begins + before_s
        self.call_at(begins + before_s, self._work, place, future, after_s, func, args)
        return future

    def _work(
        self,
        place: Place,
        future: asyncio.Future[Any],
        after_s: float,
        func: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        if not place.alive:
            return
        try:
            outcome, failed = func(*args), False
        except Exception as error:
            outcome, failed = error, True
        self.call_later(after_s, _tell, future, outcome, failed)


def _tell(future: asyncio.Future[Any], outcome: Any, failed: bool) -> None:
    if future.done():
        return
    if failed:
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class ShiftedLoop:
    """The loop as a process with a clock of its own sees it. Its clock may jump forward."""

    def __init__(self, loop: VirtualLoop, offset_s: float) -> None:
        self._loop = loop
        self._offset_s = offset_s
        self._timers: dict[int, tuple[float, _Handle, _Timer]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        return self._loop.time() + self._offset_s

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> _Timer:
        timer = _Timer(self, when, callback, args)
        timer.arm()
        return timer

    def jump(self, seconds: float) -> None:
        """As after a suspension that the clock did not stop for: what was due meanwhile is late."""
        self._offset_s += seconds
        for timer in list(_armed(self)):
            timer.arm()

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> _Timer:
        return self.call_at(self.time() + delay, callback, *args)


def _armed(loop: ShiftedLoop) -> list[_Timer]:
    return [timer for _, _, timer in loop._timers.values()]


class _Timer:
    def __init__(
        self, owner: ShiftedLoop, when: float, callback: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._owner = owner
        self._when = when
        self._callback = callback
        self._args = args
        # Whoever makes the clock jump arms it again, and may be another process.
        self._context = contextvars.copy_context()

    def when(self) -> float:
        return self._when

    def arm(self) -> None:
        self.cancel()
        owner = self._owner
        due_at = self._when - owner._offset_s
        handle = owner._loop.call_at(due_at, self._due, context=self._context)
        owner._timers[id(self)] = (self._when, handle, self)

    def cancel(self) -> None:
        held = self._owner._timers.pop(id(self), None)
        if held is not None:
            held[1].cancel()

    def _due(self) -> None:
        self._owner._timers.pop(id(self), None)
        self._callback(*self._args)
