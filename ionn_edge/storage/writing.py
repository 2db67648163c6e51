"""Stores one connection's segments, in order, while its socket brings more.

Decoding, hashing and writing are a thread's: a disk that stalls holds up nobody but who writes
to it. Segments go to it together, those that came while it was busy and within some
milliseconds, because telling it takes longer than storing one. What completes a plane or a
weight, and so makes a layer usable, waits for nothing. What is not stored yet is bounded: beyond
that nothing more is read from the client, so that one that sends faster than the disk takes is
held back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ionn_edge.box import Box, Client
from ionn_edge.machine import events
from ionn_edge.machine.events import Model
from ionn_edge.storage.blobs import Mismatch, StorageError
from ionn_edge.storage.parts import Part
from ionn_edge.storage.shelf import Shelf
from ionn_edge.storage.store import NoRoom
from wire import DTYPE_BYTES, RemoteProtocolError
from wire.planes import COARSE, MIDDLE

MAX_UNSTORED_BYTES = 4 << 20
# What a segment takes that waits, beside its bytes: they may be few.
SEGMENT_BYTES = 1 << 10
# So many bytes go to the thread together: none of them is acknowledged before all are stored.
TOGETHER_BYTES = 1 << 20
# The thread is told so often, or when so much waits.
GATHER_S = 0.02
GATHER_BYTES = 1 << 19
_PRECISION_AFTER = {COARSE: "float8", MIDDLE: "bfloat16"}

Tell = Callable[[events.Event], None]
Prepared = Callable[[Model, bytes, str, int], None]
# What storing a segment may end in, beside success.
_Failure = StorageError | RemoteProtocolError | Mismatch


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A segment that came, for which model, and who is told what becomes of it."""

    model: Model
    command: events.StoreSegment
    tell: Tell

    @property
    def digest(self) -> bytes:
        return self.model.weights[self.command.segment.weight][0]

    @property
    def dtype(self) -> str:
        return self.model.weights[self.command.segment.weight][2]

    @property
    def elements(self) -> int:
        """Of its whole weight."""
        return self.model.weights[self.command.segment.weight][1] // DTYPE_BYTES[self.dtype]

    @property
    def end(self) -> int:
        return self.command.segment.start + self.command.segment.count

    @property
    def is_last(self) -> bool:
        """Of its plane."""
        return self.end == self.elements

    @property
    def unstored_bytes(self) -> int:
        return self.command.segment.coded_bytes + SEGMENT_BYTES

    def store(self, part: Part, owner: Client) -> None:
        part.store(self.command.segment, self.dtype, self.command.payloads, owner)


class Writer:
    """The segments of `owner`, whichever connection brings them.

    `prepared` is told (model, digest, precision, number of the part) when a plane is complete.
    """

    def __init__(self, box: Box, owner: Client, prepared: Prepared) -> None:
        self._box = box
        self._owner = owner
        self._prepared = prepared
        self._waiting: deque[_Arrived] = deque()
        self._unstored_bytes = 0
        self._offers = 0
        self._ended = False
        self._told_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
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
        arrived = _Arrived(model, command, tell)
        self._waiting.append(arrived)
        self._unstored_bytes += arrived.unstored_bytes
        loop = asyncio.get_running_loop()
        wait_s = self._told_at + GATHER_S - loop.time()
        if arrived.is_last or wait_s <= 0 or self._unstored_bytes >= GATHER_BYTES:
            self._some.set()
        elif self._timer is None:
            self._timer = loop.call_later(wait_s, self._gathered)

    @property
    def _shelf(self) -> Shelf:
        return self._box.store.shelf(self._owner.device.id)

    def _gathered(self) -> None:
        self._timer = None
        self._some.set()

    def clear(self) -> None:
        """What waits, or is being stored, belongs to a model that was evicted."""
        self._offers += 1
        self._unstored_bytes -= sum(each.unstored_bytes for each in self._waiting)
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
                    await self._store_some()
                    self._stored.set()
                self._some.clear()
                await self._some.wait()
        finally:
            self._ended = True
            self._stored.set()
            if self._timer is not None:
                self._timer.cancel()

    async def idle(self) -> None:
        """Until everything that came so far is stored, or has failed."""
        self._some.set()
        while self._unstored_bytes and not self._ended:
            await self.stored()

    async def _store_some(self) -> None:
        """The next segments, as many as go together; or one that cannot be stored."""
        offers, together, size_bytes = self._offers, list[tuple[_Arrived, Part]](), 0
        while self._waiting and size_bytes < TOGETHER_BYTES:
            arrived = self._waiting[0]
            try:
                part = self._part_for(arrived)
            except (NoRoom, StorageError) as error:
                if not together:
                    self._fail(self._waiting.popleft(), error)
                break
            if part is None:
                if not together:
                    self._finish(self._waiting.popleft(), None)
                break
            size_bytes += arrived.unstored_bytes
            together.append((self._waiting.popleft(), part))
        if together:
            loop = asyncio.get_running_loop()
            self._told_at = loop.time()
            async with self._box.turn_to_store(self._owner.device):
                stored, failure = await loop.run_in_executor(
                    self._box.writers, _store, together, self._owner
                )
            self._take_outcome(together, stored, failure, offers)

    def _part_for(self, arrived: _Arrived) -> Part | None:
        """Where it goes, with room for it. Raises NoRoom or StorageError."""
        part = self._shelf.part(arrived.digest, self._owner)
        if part is not None and arrived.command.segment.plane and not part.widened:
            self._box.widen(self._owner)
            part.widened = True
        return part

    def _take_outcome(
        self,
        together: Sequence[tuple[_Arrived, Part]],
        stored: int,
        failure: _Failure | None,
        offers: int,
    ) -> None:
        # Behind a failure, what is there to be written to may be another part.
        again = [arrived for arrived, _ in together[stored + 1 :]]
        if offers == self._offers:
            self._waiting.extendleft(reversed(again))
        else:
            self._unstored_bytes -= sum(arrived.unstored_bytes for arrived in again)
        told = offers == self._offers
        for arrived, part in together[:stored]:
            self._finish(arrived, self._still_own(part), told)
        if failure is not None:
            arrived, part = together[stored]
            if self._still_own(part) is None:
                self._finish(arrived, None, told)
                return
            if isinstance(failure, Mismatch):
                self._shelf.drop(part)
                self._box.forgot(self._owner.device.id)
            self._fail(arrived, failure, told)

    def _still_own(self, part: Part) -> Part | None:
        """None for one that another connection has taken over meanwhile, or that was dropped."""
        return part if part.owner is self._owner else None

    def _finish(self, arrived: _Arrived, part: Part | None, told: bool = True) -> None:
        """It is stored, or another connection has completed its blob."""
        shelf, segment = self._shelf, arrived.command.segment
        precision = _PRECISION_AFTER.get(segment.plane) if arrived.is_last else None
        # Of those stored together, the blob's last.
        if part is not None and part.full and precision is None and arrived.is_last:
            try:
                shelf.finish(part)
            except StorageError as error:
                self._fail(arrived, error, told)
                return
            self._box.completed(self._owner.device.id, arrived.digest)
        complete = shelf.is_whole(arrived.digest)
        self._unstored_bytes -= arrived.unstored_bytes
        if not told:
            return
        if part is None and not complete:
            text = "another connection that offers this model has taken over the upload"
            arrived.tell(events.SegmentFailed("unexpected", text))
            return
        if part is not None and precision is not None and not (complete or part.adopted):
            self._prepared(arrived.model, arrived.digest, precision, part.number)
        end = arrived.elements if complete else arrived.end
        arrived.tell(events.SegmentStored(segment.weight, segment.plane, end, complete))

    def _fail(self, arrived: _Arrived, error: _Failure | NoRoom, told: bool = True) -> None:
        self._unstored_bytes -= arrived.unstored_bytes
        if told:
            arrived.tell(_failed(error))


def _store(together: Sequence[tuple[_Arrived, Part]], owner: Client) -> tuple[int, _Failure | None]:
    """How many were stored, and why the next one was not. Runs in a thread."""
    for number, (arrived, part) in enumerate(together):
        try:
            arrived.store(part, owner)
        except (StorageError, RemoteProtocolError, Mismatch) as failure:
            return number, failure
    return len(together), None


def _failed(error: _Failure | NoRoom) -> events.SegmentFailed:
    match error:
        case RemoteProtocolError():
            return events.SegmentFailed(error.code, str(error))
        case Mismatch():
            return events.SegmentFailed("digest", f"{error}; send it again from 0")
        case NoRoom():
            return events.SegmentFailed("memory", str(error))
        case StorageError():
            return events.SegmentFailed("storage", str(error))
