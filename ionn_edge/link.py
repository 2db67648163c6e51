"""One client's connection: performs what its session asks for. Decides nothing.

Three things feed the session: messages from the socket, answers from the worker, and the box
(time, eviction, load, draining). Commands are performed at once, but for segments, which are
stored in their order beside (see writing).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import time
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from ionn_edge.box import Box
from ionn_edge.doors.devices import LOOPBACK, Device
from ionn_edge.machine import events
from ionn_edge.machine.quota import Quota
from ionn_edge.machine.session import Session
from ionn_edge.machine.turns import TURN_S, cost_s
from ionn_edge.outbox import Outbox
from ionn_edge.served import Served
from ionn_edge.storage.admission import count
from ionn_edge.storage.writing import Writer
from wire import HEARD, Decoder, RemoteProtocolError, Role

log = logging.getLogger("ionn_edge")


class Link:
    """A WebSocket and its session, for as long as the connection lasts."""

    def __init__(
        self,
        box: Box,
        socket: web.WebSocketResponse,
        transport: Any,
        address: str,
        device: Device = LOOPBACK,
        quota: Quota | None = None,
    ) -> None:
        self.device = device
        self._quota = quota
        self._ended = asyncio.Event()
        self.address = address
        self._secret = secrets.token_hex(16)
        self.session = Session(
            box.config,
            lambda version, now: box.welcome(version, device, self._secret, now),
            quota,
        )
        self._box = box
        self._served = Served(box, self)
        self._writer = Writer(box, self, self._served.prepared)
        # Who this one carries weights for, and who does so for this one.
        self._first: Link | None = None
        self._lane: Link | None = None
        self._socket = socket
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup
        self._cancellable: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._outbox = Outbox(socket, transport, box.config.limits)

    async def serve(self) -> None:
        """Until the connection has ended, from whichever side."""
        box = self._box
        box.clients.add(self)
        if self._quota is not None:
            self._quota.sessions.add(self.session)
        log.info("%s came", self.address)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self.start(self._watch_failure())
                self.start(self._writer.run())
                tasks.create_task(self._outbox.run())
                self.post(events.Connected(*box.room()))
                if box.draining:
                    self.post(events.Draining())
                await self._receive_all()
                self._outbox.close()
                self._part()
                for task in self._cancellable:
                    task.cancel()
        finally:
            log.info("%s left", self.address)
            self._part()
            box.left(self)
            self._ended.set()
            if self._quota is not None:
                self._quota.sessions.discard(self.session)
            if self._timer is not None:
                self._timer.cancel()
            await self._served.close()
            self._give_way()
            box.store.shelf(self.device.id).release(self)

    # A second connection, which carries weights for the first.

    @property
    def heard_at(self) -> float:
        """When the client last said something, on either connection."""
        lane = self._lane
        return max(self.session.heard_at, 0.0 if lane is None else lane.session.heard_at)

    @property
    def is_lane(self) -> bool:
        return self._first is not None

    @property
    def may_be_joined(self) -> bool:
        return self._lane is None and self.session.lend_intake() is not None

    def _join(self, secret: str) -> None:
        first = self._with_secret(secret)
        if first is None:
            self.post(events.LaneRefused("no connection was told of this lane"))
        elif first._lane is not None:
            self.post(events.LaneRefused("that connection has a lane already"))
        elif (intake := first.session.lend_intake()) is None:
            self.post(events.LaneRefused("that connection has no model to carry weights of"))
        else:
            self._first, first._lane = first, self
            self.post(events.LaneJoined(intake))
            log.info("%s carries weights for %s", self.address, first.address)

    def _with_secret(self, secret: str) -> Link | None:
        found = None
        for other in self._box.clients:
            # All are compared, each in constant time: how long it takes tells nothing.
            if (
                isinstance(other, Link)
                and hmac.compare_digest(other._secret.encode(), secret.encode())
                and other.device == self.device
            ):
                found = other
        return found

    def _part(self) -> None:
        """This connection ends: so does its lane, or its first has none any more."""
        self._end_lane()
        if self._first is not None and self._first._lane is self:
            self._first._lane = None

    def _end_lane(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            lane._post_from_outside(events.LaneOver())

    # What the box has to say. An exception here is this connection's, not the speaker's.

    def evicted(self, epoch: str) -> None:
        self._writer.clear()
        self._post_from_outside(events.ModelEvicted(epoch))

    def tell_load(self) -> None:
        self._post_from_outside(events.LoadReported(self._box.load(self.device)))

    async def revoke(self) -> None:
        """The device is unpaired: nothing is said any more, nor heard. Until all has ended."""
        self._transport.abort()
        await self._ended.wait()

    def drain(self) -> None:
        self._post_from_outside(events.Draining())

    def completed(self, digest: bytes) -> None:
        self._served.completed(digest)

    def _wake(self) -> None:
        self._timer = None
        self._post_from_outside(events.TimePassed())

    def _post_from_outside(self, event: events.Event) -> None:
        try:
            self.post(event)
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    async def _watch_failure(self) -> None:
        await self._failure

    # The session.

    def post(self, event: events.Event) -> None:
        clock = self._box.clock
        for command in self.session.handle(event, clock()):
            self._perform(command)
        self._outbox.flush()
        self._give_way()
        wake_at = self.session.wake_at
        # One that goes off too early does no harm, and most are put off before they do.
        if wake_at is not None and (self._timer is None or wake_at < self._wakes_at):
            if self._timer is not None:
                self._timer.cancel()
            self._wakes_at = wake_at
            self._timer = self._loop.call_later(max(wake_at - clock(), 0.0), self._wake)

    def _give_way(self) -> None:
        """Others of the device may run now what they waited for."""
        turns = () if self._quota is None else self._quota.next_to_run()
        for other in self._box.clients if turns else ():
            if isinstance(other, Link) and other is not self and other.session in turns:
                self._loop.call_soon(other._post_from_outside, events.TimePassed())

    def _perform(self, command: events.Command) -> None:
        match command:
            case events.Send(message):
                self._outbox.add(message)
            case events.StoreSegment():
                carrier = self._first or self
                if carrier.session.model is not None:
                    carrier._writer.add(carrier.session.model, command, self.post)
            case events.JoinLane(lane):
                self._join(lane)
            case events.EndLane():
                self._end_lane()
            case events.CountHeld():
                self.start(self._count())
            case events.OpenModel(fingerprint, graph):
                self._writer.clear()
                self.start(self._served.open(fingerprint, graph))
            case events.RunRange():
                self._served.run(command)
            case events.StopWorker():
                self._served.stop()
            case events.RestartWorker():
                self.start(self._served.restart())
            case events.ReportLoad():
                self.post(events.LoadReported(self._box.load(self.device)))
            case events.CloseConnection():
                self._outbox.close()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the connection."""
        task = self._tasks.create_task(work)
        self._cancellable.add(task)
        task.add_done_callback(self._cancellable.discard)
        return task

    # The socket.

    async def _receive_all(self) -> None:
        config, decoder = self._box.config, Decoder(self._box.config.limits, HEARD[Role.EDGE])
        spent_s = 0.0
        async for frame in self._socket:
            # Not what others took meanwhile.
            began_s = time.thread_time()
            if frame.type is aiohttp.WSMsgType.PING:
                with contextlib.suppress(OSError, aiohttp.ClientError):
                    await self._socket.pong(frame.data)
            # The session is over, and perhaps the decoder: what still comes is not looked at.
            event = None if self.session.closed else _decoded(decoder, frame)
            if event is not None:
                self.post(event)
            size_bytes = len(frame.data) if isinstance(frame.data, bytes) else 0
            spent_s += cost_s(size_bytes, time.thread_time() - began_s)
            if spent_s >= TURN_S:
                rest_s = self._box.rest_s(self.device, spent_s)
                spent_s = 0.0
                await asyncio.sleep(rest_s)
            writer = (self._first or self)._writer
            while writer.full and not self._outbox.closing:
                await writer.stored()
            # Who does not read what is said is not listened to either.
            await self._outbox.below(config.max_unsent_bytes)

    async def _count(self) -> None:
        model = self.session.model
        await self._writer.idle()
        if model is not None and self.session.model is model:
            here = await count(self._box, model, self)
            self.post(events.HeldCounted(self._box.epoch(self.device.id), here.held))


def _decoded(decoder: Decoder, frame: aiohttp.WSMessage) -> events.Event | None:
    if frame.type in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
        return None
    if frame.type is aiohttp.WSMsgType.ERROR:
        return events.Garbled(str(frame.data))
    if frame.type is not aiohttp.WSMsgType.BINARY:
        return events.Garbled(f"a {frame.type.name.lower()} frame; every frame here is binary")
    try:
        message = decoder.feed(frame.data)
    except RemoteProtocolError as error:
        return events.Garbled(str(error), error.code)
    return None if message is None else events.Received(message)
