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
# Smaller segments are decoded, hashed and written in less time than a thread takes to be told.
INLINE_BYTES = 64 << 10
_PRECISION_AFTER = {COARSE: "float12", MIDDLE: "bfloat16"}

Prepared = Callable[[Model, bytes, str, int], None]


class Writer:
    """The segments of `owner`. What became of each goes to `tell`.

    `prepared` is told (model, digest, precision, number of the part) when a plane is complete.
    """

    def __init__(
        self, box: Box, owner: Client, tell: Callable[[events.Event], None], prepared: Prepared
    ) -> None:
        self._box = box
        self._owner = owner
        self._tell = tell
        self._prepared = prepared
        self._waiting: deque[tuple[Model, events.StoreSegment]] = deque()
        self._unstored_bytes = 0
        self._some = asyncio.Event()
        self._stored = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether so much waits for the disk that no more should be read."""
        return self._unstored_bytes > MAX_UNSTORED_BYTES

    def add(self, model: Model, command: events.StoreSegment) -> None:
        self._waiting.append((model, command))
        self._unstored_bytes += command.segment.coded_bytes
        self._some.set()

    def clear(self) -> None:
        """What waits belongs to a model that was evicted."""
        self._unstored_bytes -= sum(command.segment.coded_bytes for _, command in self._waiting)
        self._waiting.clear()

    async def stored(self) -> None:
        """Until the next segment is stored."""
        self._stored.clear()
        await self._stored.wait()

    async def run(self) -> None:
        """Store segments for as long as the connection lasts."""
        while True:
            while self._waiting:
                model, command = self._waiting.popleft()
                await self._store(model, command)
                self._unstored_bytes -= command.segment.coded_bytes
                self._stored.set()
            self._some.clear()
            await self._some.wait()

    async def _store(self, model: Model, command: events.StoreSegment) -> None:
        digest, size_bytes, dtype = model.weights[command.segment.weight]
        store, segment = self._box.store, command.segment
        part = store.part(digest, self._owner)
        try:
            if part is not None:
                await self._append(part, dtype, command)
        except StorageError as error:
            self._tell(events.SegmentFailed("storage", str(error)))
        except NoRoom as error:
            self._tell(events.SegmentFailed("memory", str(error)))
        except RemoteProtocolError as error:
            self._tell(events.SegmentFailed(error.code, str(error)))
        except Mismatch as error:
            assert part is not None
            store.drop(part)
            self._box.forgot()
            self._tell(events.SegmentFailed("digest", f"{error}; send it again from 0"))
        else:
            complete = store.is_whole(digest)
            if part is None and not complete:
                text = "another connection that offers this model has taken over the upload"
                self._tell(events.SegmentFailed("unexpected", text))
                return
            count = size_bytes // DTYPE_BYTES[dtype]
            if not complete:
                count = segment.start + segment.count
            self._tell(events.SegmentStored(segment.weight, segment.plane, count, complete))

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
        elif segment.plane in _PRECISION_AFTER:
            model = self._owner.session.model
            total = part.size_bytes // DTYPE_BYTES[dtype]
            if model is not None and segment.start + segment.count == total:
                precision = _PRECISION_AFTER[segment.plane]
                self._prepared(model, part.digest, precision, part.number)
