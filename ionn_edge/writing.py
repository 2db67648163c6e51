"""Stores one connection's segments, in order, while its socket brings more.

What is not stored yet is bounded: beyond that nothing more is read from the client, so that one
that sends faster than the disk takes is held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ionn_edge import events
from ionn_edge.blobs import Mismatch, StorageError
from ionn_edge.box import Box, Client
from ionn_edge.events import Model
from ionn_edge.parts import Part
from ionn_edge.store import NoRoom
from wire import DTYPE_BYTES, RemoteProtocolError
from wire.planes import COARSE, MIDDLE, stored_bytes

MAX_UNSTORED_BYTES = 4 << 20
# What a segment takes that waits, beside its bytes: they may be few.
SEGMENT_BYTES = 1 << 10
# Smaller segments are decoded, hashed and written in less time than a thread takes to be told.
INLINE_BYTES = 64 << 10
_PRECISION_AFTER = {COARSE: "float12", MIDDLE: "bfloat16"}

Tell = Callable[[events.Event], None]
Prepared = Callable[[Model, bytes, str, int], None]


class Writer:
    """The segments of `owner`, whichever connection brings them.

    `prepared` is told (model, digest, precision, number of the part) when a plane is complete.
    """

    def __init__(self, box: Box, owner: Client, prepared: Prepared) -> None:
        self._box = box
        self._owner = owner
        self._prepared = prepared
        self._waiting: deque[tuple[Model, events.StoreSegment, Tell]] = deque()
        self._unstored_bytes = 0
        self._offers = 0
        self._ended = False
        self._some = asyncio.Event()
        self._stored = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether so much waits for the disk that no more should be read."""
        return self._unstored_bytes > MAX_UNSTORED_BYTES and not self._ended

    def add(self, model: Model, command: events.StoreSegment, tell: Tell) -> None:
        """Store this after those before it, and tell what became of it."""
        if self._ended:
            return
        self._waiting.append((model, command, tell))
        self._unstored_bytes += _bytes_of(command)
        self._some.set()

    def clear(self) -> None:
        """What waits, or is being stored, belongs to a model that was evicted."""
        self._offers += 1
        self._unstored_bytes -= sum(_bytes_of(each) for _, each, _ in self._waiting)
        self._waiting.clear()
        self._stored.set()

    async def stored(self) -> None:
        """Until the next segment is stored."""
        self._stored.clear()
        await self._stored.wait()

    async def run(self) -> None:
        """Store segments for as long as the connection lasts."""
        try:
            while True:
                while self._waiting:
                    model, command, tell = self._waiting.popleft()
                    await self._store(model, command, tell)
                    self._unstored_bytes -= _bytes_of(command)
                    self._stored.set()
                self._some.clear()
                await self._some.wait()
        finally:
            self._ended = True
            self._stored.set()

    async def idle(self) -> None:
        """Until everything that came so far is stored, or has failed."""
        while self._unstored_bytes and not self._ended:
            await self.stored()

    async def _store(self, model: Model, command: events.StoreSegment, tell: Tell) -> None:
        digest, _, dtype = model.weights[command.segment.weight]
        offers, part = self._offers, self._box.store.part(digest, self._owner)
        outcome = await self._outcome(model, part, command)
        if offers != self._offers:
            return
        if part is not None and isinstance(outcome, events.SegmentStored):
            precision = _PRECISION_AFTER.get(outcome.plane)
            total = model.weights[command.segment.weight][1] // DTYPE_BYTES[dtype]
            done = outcome.count == total and not outcome.complete
            if precision is not None and done and not part.adopted:
                self._prepared(model, digest, precision, part.number)
        tell(outcome)

    async def _outcome(
        self, model: Model, part: Part | None, command: events.StoreSegment
    ) -> events.SegmentStored | events.SegmentFailed:
        segment, store = command.segment, self._box.store
        digest, size_bytes, dtype = model.weights[segment.weight]
        try:
            if part is not None:
                await self._append(part, dtype, command)
        except StorageError as error:
            return events.SegmentFailed("storage", str(error))
        except NoRoom as error:
            return events.SegmentFailed("memory", str(error))
        except RemoteProtocolError as error:
            return events.SegmentFailed(error.code, str(error))
        except Mismatch as error:
            assert part is not None
            store.drop(part)
            self._box.forgot()
            return events.SegmentFailed("digest", f"{error}; send it again from 0")
        complete = store.is_whole(digest)
        if part is None and not complete:
            text = "another connection that offers this model has taken over the upload"
            return events.SegmentFailed("unexpected", text)
        end = size_bytes // DTYPE_BYTES[dtype] if complete else segment.start + segment.count
        return events.SegmentStored(segment.weight, segment.plane, end, complete)

    async def _append(self, part: Part, dtype: str, command: events.StoreSegment) -> None:
        segment, payloads = command.segment, command.payloads
        if segment.plane and not part.widened:
            self._box.widen(self._owner)
            part.widened = True
        stored = stored_bytes(dtype, segment.plane, segment.count)
        assert part.size_bytes is not None
        if stored <= INLINE_BYTES and (segment.start or part.size_bytes <= INLINE_BYTES):
            part.store(segment, dtype, payloads)
        else:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._box.writers, part.store, segment, dtype, payloads)
        if part.full:
            self._box.store.finish(part)
            self._box.completed(part.digest)


def _bytes_of(command: events.StoreSegment) -> int:
    return command.segment.coded_bytes + SEGMENT_BYTES
