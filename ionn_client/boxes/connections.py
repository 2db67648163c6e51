"""A session's connection, and its second one for weights (the lane). Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from ionn_client.boxes.access import Access, TurnedAway
from ionn_client.boxes.connection import Connection, Priority
from ionn_client.errors import NotPaired, PairingError
from ionn_client.machine import events
from wire import Limits, ProtocolError, messages

MOST_REFUSALS = 5

# Tells the session.
Post = Callable[[events.Event], None]


class Opener:
    """Opens connections to one box. The edge ends those that are silent for `silence_s`."""

    def __init__(self, access: Access, limits: Limits, silence_s: float) -> None:
        self._access, self._limits, self._silence_s = access, limits, silence_s
        self.http: aiohttp.ClientSession
        # Times in a row that the edge closed the door on this device, and not on others.
        self.turned_away = 0

    async def open(self) -> Connection | PairingError | str:
        """A connection, or why there is none: for good, or for now."""
        try:
            connection = await Connection.open(self.http, self._access, self._limits)
            connection.give_up_after(self._silence_s)
            self.turned_away = 0
            return connection
        except PairingError as error:
            return error
        except TurnedAway as error:
            self.turned_away += 1
            return NotPaired(str(error)) if self.turned_away >= MOST_REFUSALS else str(error)
        except ConnectionError as error:
            self.turned_away = 0
            return f"no edge at {self._access}: {error}"
        except Exception as error:
            return internal(error)


class Line:
    """One of the two, while there is one."""

    def __init__(
        self,
        post: Post,
        connected: Callable[[], events.Event],
        heard: Callable[[messages.Message], events.Event],
        lost: Callable[[str], events.Event],
    ) -> None:
        self._post, self._connected, self._heard, self._lost = post, connected, heard, lost
        self.current: Connection | None = None

    async def use(self, connection: Connection) -> None:
        """Until it ends, or another takes its place."""
        self.current = connection

        def heard(message: messages.Message) -> bool:
            current = self.current is connection
            if current:
                self._post(self._heard(message))
            return current

        try:
            reason = await connection.converse(lambda: self._post(self._connected()), heard)
        except Exception as error:
            # An error of our own ends a connection, not the session.
            reason = internal(error)
        if self.current is connection:
            self.forget()
            self._post(self._lost(reason))

    def send(self, message: messages.Message) -> None:
        if self.current is None:
            return
        try:
            self.current.send(message)
        except ProtocolError as error:
            # Not sendable, which the session should have known: answer from here.
            self.abort()
            lost = self._lost(internal(error))
            asyncio.get_running_loop().call_soon(self._post, lost)

    def flush(self) -> None:
        if self.current is not None:
            self.current.flush()

    def close(self) -> None:
        if (connection := self.forget()) is not None:
            connection.close()

    def abort(self) -> None:
        if (connection := self.forget()) is not None:
            connection.abort()

    def forget(self) -> Connection | None:
        """Its task sees that it is no longer the current one, and ends quietly."""
        connection, self.current = self.current, None
        return connection


class Lane(Line):
    """The second: its packets give way to those of the first for as long as it is there."""

    def __init__(self, post: Post, first: Line) -> None:
        super().__init__(post, events.LaneConnected, events.LaneHeard, events.LaneLost)
        self._first = first
        self.opening: asyncio.Task[None] | None = None

    async def use(self, connection: Connection) -> None:
        self._prefer_first(Priority.QUERIES)
        connection.prefer(Priority.WEIGHTS)
        await super().use(connection)

    def forget(self) -> Connection | None:
        """One that is still opening ends."""
        connection = super().forget()
        if connection is None and self.opening is not None:
            self.opening.cancel()
        self.opening = None
        self._prefer_first(Priority.USUAL)
        return connection

    def _prefer_first(self, priority: Priority) -> None:
        if self._first.current is not None:
            self._first.current.prefer(priority)


class Connections:
    """Both. begin: begins a task that ends with the session."""

    def __init__(
        self,
        post: Post,
        opener: Opener,
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._post, self._opener, self._begin = post, opener, begin
        self.first = Line(post, events.Connected, events.MessageReceived, events.ConnectionLost)
        self.lane = Lane(post, self.first)

    def flush(self) -> None:
        self.first.flush()
        self.lane.flush()

    def open(self, delay_s: float) -> None:
        self._begin(self._open(delay_s))

    async def _open(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        connection = await self._opener.open()
        if isinstance(connection, PairingError):
            self._post(events.EdgeDistrusted(connection))
        elif isinstance(connection, str):
            self._post(events.ConnectionLost(connection))
        else:
            await self.first.use(connection)

    def open_lane(self) -> None:
        self.lane.opening = self._begin(self._open_lane())

    async def _open_lane(self) -> None:
        connection = await self._opener.open()
        if isinstance(connection, Connection):
            await self.lane.use(connection)
        else:
            self._post(events.LaneLost(str(connection)))


def internal(error: Exception) -> str:
    """What an error of our own is told as."""
    return f"internal error: {error!r}"
