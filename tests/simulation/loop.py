"""An asyncio event loop whose time is virtual, and whose threads are functions called in turn.

Time passes only when nothing is left to do at the moment, and then at once to the next timer.
What real programs hand to a thread is called on the loop after a drawn delay, and its result
comes after another one; a process that was killed meanwhile calls nothing any more.
"""

from __future__ import annotations

import asyncio
import contextvars
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


class _Selector:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        self._loop.pass_time(timeout)
        return ()

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """`turns`: after so many rounds of callbacks the simulation is taken to be in a loop."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self._selector = _Selector(self)
        self._now = 0.0
        self._turns_left = turns
        self._single: dict[int, float] = {}

    def time(self) -> float:
        return self._now

    def pass_time(self, timeout: float | None) -> None:
        self._turns_left -= 1
        if self._turns_left <= 0:
            raise Stuck("too much happens: something is busy for ever")
        if timeout is None:
            raise Stuck("nothing will ever happen any more")
        self._now += timeout + TIMER_LATE_S

    def _process_events(self, _: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

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
        self._timers: dict[int, tuple[float, asyncio.TimerHandle, _Timer]] = {}

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

    def when(self) -> float:
        return self._when

    def arm(self) -> None:
        self.cancel()
        owner = self._owner
        handle = owner._loop.call_at(self._when - owner._offset_s, self._due)
        owner._timers[id(self)] = (self._when, handle, self)

    def cancel(self) -> None:
        held = self._owner._timers.pop(id(self), None)
        if held is not None:
            held[1].cancel()

    def _due(self) -> None:
        self._owner._timers.pop(id(self), None)
        self._callback(*self._args)
