"""A stream of frames through a model, with tokens: the newest frame wins, nothing piles up.

Knows only `query`. Source: Gabriel (Ha et al., MobiSys'14, section on limiting the frames that are
on their way by tokens), where a token is one frame of one sensor that may be under way.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from ionn_client.machine.query import QueryResult

DEFAULT_TOKENS = 2
_END = object()


class Queryable(Protocol):
    """What a stream needs of an Offload."""

    async def query(self, *args: Any) -> QueryResult: ...


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The answer to one frame of a stream.

    frame: its number in the source, from 0. result: as `query` gives it.
    waited_s: from when the source gave the frame until it got a token.
    dropped: frames between the previous result and this one that newer ones replaced.
    """

    frame: int
    result: QueryResult
    waited_s: float
    dropped: int


def stream(
    offload: Queryable, source: AsyncIterable[Any] | Iterable[Any], tokens: int = DEFAULT_TOKENS
) -> AsyncGenerator[StreamResult, None]:
    """Query `offload` with the frames of `source`, newest first; results in the frames' order.

    source: frames, each a tensor or a tuple of the model's arguments. A plain iterable is read in
        a thread, so that it may block as a camera does. It is read as fast as it gives frames.
    tokens: how many frames may be open at once: asked for and not yet done with. A frame is done
        with when the consumer comes back for the next, so a slow consumer slows the stream. A
        frame that comes while no token is free waits, and replaces the one that waited.

    What the source raises comes after the results of the frames before it; what `query` raises
    comes in its frame's place; both end the stream. To end it early, leave the loop, or await
    `aclose()`, which waits for a blocking read under way. Raises ValueError for tokens below 1
    and TypeError for a source that cannot be iterated, at once.
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"tokens is a whole number, 1 or more, not {tokens!r}")
    if not isinstance(source, AsyncIterable | Iterable):
        raise TypeError(f"a source of frames can be iterated, which {type(source).__name__} cannot")
    return _Stream(offload, tokens).results(source)


@dataclass(frozen=True, slots=True)
class _Frame:
    number: int
    args: tuple[Any, ...]
    came_at: float


@dataclass(frozen=True, slots=True)
class _Open:
    """A frame with a token."""

    number: int
    waited_s: float
    answer: asyncio.Task[QueryResult]


class _Stream:
    """The tokens of one source, the frames that hold one, and the one frame that waits."""

    def __init__(self, offload: Queryable, tokens: int) -> None:
        self._offload = offload
        self._free = tokens
        self._waiting: _Frame | None = None
        self._open: deque[_Open] = deque()
        self._changed = asyncio.Event()

    async def results(
        self, source: AsyncIterable[Any] | Iterable[Any]
    ) -> AsyncGenerator[StreamResult, None]:
        reading = asyncio.create_task(self._read(source))
        reading.add_done_callback(lambda _: self._changed.set())
        next_frame = 0
        try:
            while await self._opened(reading):
                first = self._open[0]
                result = await first.answer
                yield StreamResult(first.number, result, first.waited_s, first.number - next_frame)
                next_frame = first.number + 1
                self._open.popleft()
                self._free += 1
                self._start()
        finally:
            await _end(reading, *(frame.answer for frame in self._open))

    async def _opened(self, reading: asyncio.Task[None]) -> bool:
        """Until a frame is open; False after the last one of the source."""
        while not self._open:
            if reading.done():
                reading.result()
                return False
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _read(self, source: AsyncIterable[Any] | Iterable[Any]) -> None:
        frames = aiter(source) if isinstance(source, AsyncIterable) else _in_thread(source)
        number = 0
        try:
            async for frame in frames:
                args = frame if isinstance(frame, tuple) else (frame,)
                self._waiting = _Frame(number, args, time.monotonic())
                number += 1
                self._start()
                await asyncio.sleep(0)  # A source that never waits must not hold up the loop.
        finally:
            # A generator that the caller made is the caller's to close.
            if frames is not source and isinstance(frames, AsyncGenerator):
                await frames.aclose()

    def _start(self) -> None:
        """Gives the frame that waits a token, if one is free."""
        frame = self._waiting
        if frame is None or not self._free:
            return
        self._waiting = None
        self._free -= 1
        answer = asyncio.create_task(self._offload.query(*frame.args))
        self._open.append(_Open(frame.number, time.monotonic() - frame.came_at, answer))
        self._changed.set()


async def _in_thread(source: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """The frames of a plain iterable, all read by one thread."""
    thread = ThreadPoolExecutor(1, "ionn-stream")
    try:
        frames = await asyncio.wrap_future(thread.submit(iter, source))
        while True:
            frame = await asyncio.wrap_future(thread.submit(next, frames, _END))
            if frame is _END:
                return
            yield frame
    finally:
        await asyncio.to_thread(thread.shutdown, cancel_futures=True)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    # What they come to was raised already, or is not wanted any more.
    await asyncio.gather(*tasks, return_exceptions=True)
